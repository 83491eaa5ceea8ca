"""How long the hub is waited for, without one: a client that answers, fails, or says nothing."""

import threading
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, errors

from ric_diffusion.io import hub

httpx = pytest.importorskip("httpx")


@pytest.fixture
def clock(monkeypatch):
    """[seconds] of the monotonic clock."""
    now = [100.0]
    monkeypatch.setattr(hub.time, "monotonic", lambda: now[0])
    return now


def request():
    return SimpleNamespace(extensions={"timeout": {"connect": 10.0, "read": 60.0, "pool": 3.0}})


def test_an_answer_comes_through_with_our_patience():
    asked = request()
    answer = hub._send(lambda given, **how: (given, how), [], asked, follow=True)
    assert answer == (asked, {"follow": True})
    patience = hub.PATIENCE
    assert asked.extensions["timeout"] == {"connect": patience, "read": patience, "pool": 3.0}


def test_the_users_patience_goes_before(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 33)
    asked = request()
    hub._send(lambda given: None, [], asked)
    assert asked.extensions["timeout"] == {"connect": 33, "read": 33, "pool": 3.0}


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.ReadTimeout, httpx.ConnectError])
def test_it_is_not_asked_again_for_a_while(clock, error):
    calls, last = [], []

    def send(given):
        calls.append(given)
        raise error("no")

    for seconds in (0, 1, hub.PAUSE - 1.5):
        clock[0] += seconds
        with pytest.raises(errors.OfflineModeIsEnabled, match=f"^{hub.UNREACHED}$"):
            hub._send(send, last, request())
    assert len(calls) == 1
    clock[0] += 1
    with pytest.raises(errors.OfflineModeIsEnabled):
        hub._send(send, last, request())
    assert len(calls) == 2


def test_other_errors_pass_and_stop_nothing():
    def send(given):
        raise ValueError("what is this")

    last = []
    for _ in range(2):
        with pytest.raises(ValueError, match="what is this"):
            hub._send(send, last, request())
    assert last == []


def test_downloads_wait_as_long_as_ever(clock):
    asked = request()
    assert hub._send(lambda given, stream: stream, [clock[0]], asked, stream=True) is True
    assert asked.extensions["timeout"]["read"] == 60.0


def test_what_no_timeout_counts_is_not_waited_for_either(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.05)
    over, last = threading.Event(), []
    with pytest.raises(errors.OfflineModeIsEnabled):
        hub._send(lambda given: over.wait(60), last, request())
    over.set()
    assert len(last) == 1


def refused(kind, status=404):
    answer = httpx.Response(status, request=httpx.Request("GET", "https://hub.example"))
    return kind("Server says\nmore", response=answer)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused(errors.GatedRepoError, 403), "the hub wants its terms accepted on its page"),
        (refused(errors.RepositoryNotFoundError), "the hub has no such repository, or it is priv"),
        (refused(errors.RevisionNotFoundError), "the repository on the hub has no such revision"),
        (refused(errors.RemoteEntryNotFoundError), "the repository on the hub has no such file"),
        (errors.LocalEntryNotFoundError("x"), hub.UNREACHED),
        (errors.OfflineModeIsEnabled("x"), hub.UNREACHED),
        (ValueError("odd\nand long"), "the hub did not give it (odd"),
    ],
)
def test_refusals_are_the_end_of_a_line(error, said):
    found = hub.refusal(error)
    assert found.startswith(said) and "\n" not in found
    assert hub.lacks_file(error) == isinstance(error, errors.RemoteEntryNotFoundError)


def test_every_client_of_the_hub_is_ours(monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import _http

    made = []
    monkeypatch.setattr(huggingface_hub, "set_client_factory", made.append)
    monkeypatch.setattr(
        _http, "default_client_factory", lambda: SimpleNamespace(send=lambda given: "answer")
    )
    hub.hurry.cache_clear()
    hub.hurry()
    hub.hurry()
    assert len(made) == 1
    asked = request()
    assert made[0]().send(asked) == "answer"
    assert asked.extensions["timeout"]["read"] == hub.PATIENCE
    hub.hurry.cache_clear()
