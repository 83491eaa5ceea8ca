import signal

import pytest

from ric_diffusion.io.signals import Stopped, heeded


def test_a_signal_is_told_by_its_number():
    assert Stopped(15).number == 15 and str(Stopped(15)) == ""
    assert str(Stopped(2, "stopped after step 3")) == "stopped after step 3"


@pytest.fixture
def own():
    """A handler of both signals' own; a process that was begun in the background ignores SIGINT."""

    def handler(*_):
        raise AssertionError

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handler) for number in numbers]
    yield handler
    for number, one in zip(numbers, before, strict=True):
        signal.signal(number, one)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_inside_it_is_raised_and_afterwards_all_is_as_it_was(number, own):
    cleaned = []
    with pytest.raises(Stopped) as caught, heeded():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)
    assert caught.value.number == number and cleaned == [number]
    assert signal.getsignal(number) is own


def test_a_signal_that_whoever_began_the_process_ignores_is_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heeded():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_library_makes_of_a_signal_is_still_that_signal(own):
    def imported():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RecursionError("deep inside") from None

    with pytest.raises(Stopped) as caught, heeded():
        imported()
    assert caught.value.number == signal.SIGTERM
    with pytest.raises(RecursionError), heeded():  # which no signal was the cause of
        raise RecursionError("ours")
