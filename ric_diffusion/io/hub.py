"""How long the hub is waited for, and why it did not give a file, in words."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ric_diffusion.io.errors import reason_of

UNREACHED = "the hub cannot be reached"
PATIENCE = 5.0  # seconds for its word on what a file is; HF_HUB_ETAG_TIMEOUT is another
PAUSE = 60.0  # seconds for which nobody asks again a hub that did not answer


@functools.cache
def hurry() -> None:
    """From now on huggingface_hub takes a hub that does not answer within PATIENCE for one that
    cannot be reached, in this process, and looks into its cache for what is asked of it meanwhile.

    By itself it waits 10 and then 60 seconds and asks six times, for each file. What is being
    downloaded waits as long as ever.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    last: list[float] = []  # when it did not answer

    def client() -> Any:
        made: Any = default_client_factory()
        made.send = functools.partial(_send, made.send, last)
        return made

    set_client_factory(client)


def _send(send: Any, last: list[float], request: Any, *, stream: bool = False, **how: Any) -> Any:
    """A request of an httpx client, of one version or the other."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if stream:
        return send(request, stream=stream, **how)
    if last and time.monotonic() - last[-1] < PAUSE:
        raise OfflineModeIsEnabled(UNREACHED)
    own = constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT
    most = constants.HF_HUB_ETAG_TIMEOUT if own else PATIENCE
    asked = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {**asked, "connect": most, "read": most}
    try:
        return _within(2 * most, functools.partial(send, request, **how))
    except Exception as error:
        if not {"TimeoutError", "TimeoutException", "NetworkError"} & {
            c.__name__ for c in type(error).__mro__
        }:
            raise
        last[:] = [time.monotonic()]
        raise OfflineModeIsEnabled(UNREACHED) from error


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` returns or raises; TimeoutError if it takes longer, as where a resolver waits
    for servers of names that do not answer: no timeout of a request counts that."""
    answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        found, error = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return found


def lacks_file(error: Exception) -> bool:
    """Whether the repository is there, without the file."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error, RemoteEntryNotFoundError)


def refusal(error: Exception) -> str:
    """What an error of huggingface_hub says, as the end of a line; nothing of its requests."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub wants its terms accepted on its page, and `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such repository, or it is private and wants `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository on the hub has no such revision"
    if lacks_file(error):
        return "the repository on the hub has no such file"
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return UNREACHED
    return f"the hub did not give it ({reason_of(error)})"
