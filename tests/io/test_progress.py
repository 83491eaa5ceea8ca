"""Progress: a bar in the terminal, or a callback that hears of every step."""

import pytest

from ric_diffusion.io.progress import Progress, reporting, tracked, tracking


def at(done, total=3, stage="train", unit="step"):
    return Progress(stage=stage, done=done, total=total, unit=unit)


def test_a_callback_gets_the_start_and_every_advance(capsys):
    told = []
    with reporting(told.append), tracking("train", 3, unit="step") as tracker:
        assert told == [at(0)]
        tracker.advance()
        tracker.advance(2, loss="0.1")
    assert told == [at(0), at(1), at(3)]
    assert capsys.readouterr() == ("", "")  # instead of a bar


def test_what_was_done_before_counts():
    told = []
    with reporting(told.append), tracking("train", 9, unit="step", initial=4) as tracker:
        tracker.advance()
    assert told == [at(4, 9), at(5, 9)]


def test_without_a_callback_a_bar_goes_to_stderr(capsys):
    with tracking("train", 3, unit="step") as tracker:
        tracker.advance()
        tracker.advance(2, loss="0.125")
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.rstrip("\n").split("\r")[-1]
    assert "train" in last and "3/3" in last and "loss=0.125" in last


def test_a_hidden_stage_says_nothing_to_anybody(capsys):
    told = []
    with tracking("train", 3, show=False) as tracker:
        tracker.advance()
    with reporting(told.append), tracking("train", 3, show=False) as tracker:
        tracker.advance(3, loss="0.1")
    assert told == [] and capsys.readouterr() == ("", "")


def test_stages_may_be_nested():
    told = []
    with (
        reporting(told.append),
        tracking("rounds", 2, unit="round") as rounds,
        tracking("train", 1, unit="step") as steps,
    ):
        steps.advance()
        rounds.advance()
    assert told == [
        at(0, 2, "rounds", "round"),
        at(0, 1),
        at(1, 1),
        at(1, 2, "rounds", "round"),
    ]


def test_the_inner_of_two_callbacks_counts_and_none_changes_nothing():
    outer, inner = [], []
    with reporting(outer.append):
        with reporting(inner.append), tracking("train", 1, unit="step"):
            pass
        with reporting(None), tracking("train", 3, unit="step"):
            pass
    assert (inner, outer) == ([at(0, 1)], [at(0)])


def test_after_the_block_bars_are_back(capsys):
    told = []
    with pytest.raises(RuntimeError), reporting(told.append):
        raise RuntimeError
    with tracking("train", 3):
        pass
    assert told == [] and "train" in capsys.readouterr().err


def test_an_exception_of_the_callback_stops_the_work():
    def cancel(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    done = []
    with pytest.raises(KeyboardInterrupt), reporting(cancel):
        for item in tracked(range(9), "train"):
            done.append(item)
    assert done == [0, 1]
    told = []
    with reporting(told.append), tracking("train", 3, unit="step"):
        pass
    assert told == [at(0)]  # nothing is left of it


def test_an_exception_of_the_work_passes_through(capsys):
    with pytest.raises(ValueError, match="mine"), tracking("train", 3) as tracker:
        tracker.advance()
        raise ValueError("mine")
    assert "1/3" in capsys.readouterr().err


@pytest.mark.parametrize("items", [[], ["a", "b", "c"], ("a",), {"a": 1}, range(3)])
def test_tracked_gives_the_items(items):
    told = []
    with reporting(told.append):
        assert list(tracked(items, "read", unit="file")) == list(items)
    assert told == [at(i, len(items), "read", "file") for i in range(len(items) + 1)]


def test_tracked_left_early_has_told_what_was_done():
    told = []
    with reporting(told.append):
        for item in tracked("abc", "read"):
            if item == "b":
                break
    assert [progress.done for progress in told] == [0, 1]
