"""What the app needs of Gradio beyond its public interface; nothing else touches Gradio's insides.

Each function says what it changes, why, and what public way would replace it, and raises
GradioChanged when a release of Gradio no longer has what it relies on, instead of doing nothing.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio import processing_utils, utils

from ric_diffusion.api.http.connections import TimedProtocol

DOWNLOAD = "async_ssrf_protected_get"  # of gradio.processing_utils
PROTOCOL = "http_protocol_class"  # of a uvicorn.Config, asked for at each connection
PAUSES = ("sleep_when_free", "progress_update_sleep_when_free")  # of a gradio.queueing.Queue

# What `launch` says of blocks, beside what only it gives them.
LAUNCHED = ("enable_monitoring", "favicon_path", "pwa", "run_history", "share", "show_error")


class GradioChanged(RuntimeError):
    """The installed Gradio has not what the app relies on."""


def refuse_downloads() -> None:
    """Have Gradio fetch no file of another machine.

    An input that is a file may come as an address, which Gradio downloads before any handler sees
    it: anybody who can reach the app could have this machine ask others. A setting of ``launch``
    against that would replace this.
    """
    if not hasattr(processing_utils, DOWNLOAD):
        raise GradioChanged(_message(f"processing_utils.{DOWNLOAD}"))
    setattr(processing_utils, DOWNLOAD, _refuse)


async def _refuse(*given: Any, **more: Any) -> Any:
    raise gr.Error("files of other machines are not fetched; drop one")


def look_for_work_every(app: gr.Blocks, seconds: float) -> None:
    """Have an app's queue look for work this often instead of every millisecond, which takes 8 % of
    the time of a model that computes on the same two cores. An argument of ``Blocks.queue`` would
    replace this.
    """
    queue = getattr(app, "_queue", None)
    for name in PAUSES:
        if not hasattr(queue, name):
            raise GradioChanged(_message(f"Blocks._queue.{name}"))
        setattr(queue, name, seconds)


def end_slow_connections(app: gr.Blocks) -> None:
    """Have the server of a launched app end connections whose other end takes too long, which
    uvicorn keeps as long as they say nothing. An argument of ``Blocks.launch`` for uvicorn's
    settings would replace this.
    """
    config = getattr(getattr(app, "server", None), "config", None)
    if not hasattr(config, PROTOCOL):
        raise GradioChanged(_message(f"Blocks.server.config.{PROTOCOL}"))
    setattr(config, PROTOCOL, TimedProtocol)


def hand_over_path(picture: gr.Image | gr.File) -> None:
    """Have an Image or a File input give handlers the path of what was dropped, None for nothing.

    Decoding it is ours to do: Gradio's knows no bounds, also with ``type="filepath"``. A type that
    does not decode would replace this; a subclass would not, for each one Gradio writes a file
    beside its source.
    """
    if not callable(getattr(picture, "preprocess", None)):
        raise GradioChanged(_message("Image.preprocess"))
    picture.preprocess = lambda dropped: dropped.path if dropped else None


def hand_over_number(control: Any) -> None:
    """Have a Number or a Slider hand handlers whatever it was sent.

    Gradio refuses a number out of range with a traceback in the terminal, before any handler could
    say in a line what to give instead. A setting that leaves the range to the browser would replace
    this.
    """
    if not callable(getattr(control, "preprocess", None)):
        raise GradioChanged(_message(f"{type(control).__name__}.preprocess"))
    control.preprocess = lambda number: number


def show_instead(running: gr.Blocks, other: gr.Blocks) -> None:
    """Have a running app show other blocks from the next time that its page is loaded.

    Other rewards are other sliders, and blocks are fixed once they are launched. A public way to
    exchange them would replace this, as Gradio does it when a source file was changed.
    """
    server = getattr(running, "app", None)
    if not hasattr(utils, "BaseReloader") or not hasattr(server, "state_holder"):
        raise GradioChanged(_message("utils.BaseReloader.swap_blocks"))
    reloader = type("Reloader", (utils.BaseReloader,), {"running_app": server})
    reloader().swap_blocks(other)
    for name, value in vars(running).items():  # which the reloader leaves for `launch` to say again
        if name in LAUNCHED or name not in vars(other):
            setattr(other, name, value)
    other.config = other.get_config_file()


def _message(what: str) -> str:
    return (
        f"gradio {gr.__version__} has no {what}, which ric_diffusion/app/gradio_seam.py relies on; "
        "install gradio>=6.31,<7, or adapt that module"
    )
