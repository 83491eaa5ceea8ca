"""The log goes on behind the step that a run is resumed from."""

import contextlib
import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.training import log as log_module
from ric_diffusion.training.log import Log
from ric_diffusion.training.loop import LoopConfig


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_scalars_are_lines(tmp_path):
    with Log(tmp_path / "out", 0) as log:
        log(1, loss=0.5, learning_rate=0.1)
        log(2, loss=0.25)
    assert lines(tmp_path / "out") == [
        {"step": 1, "loss": 0.5, "learning_rate": 0.1},
        {"step": 2, "loss": 0.25},
    ]
    assert list((tmp_path / "out" / "tensorboard").iterdir())


def test_what_was_logged_of_later_steps_is_dropped(tmp_path):
    with Log(tmp_path, 0) as log:
        for step in (2, 4, 6):
            log(step, loss=0.1 * step)
    before = (tmp_path / "log.jsonl").read_bytes()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # torn by a kill
    with Log(tmp_path, 4) as log:
        log(6, loss=0.1 * 6)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_line_is_there_before_the_log_is_closed(tmp_path):
    with pytest.raises(KeyboardInterrupt), Log(tmp_path, 0) as log:
        log(1, loss=0.5)
        assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]
        raise KeyboardInterrupt


SHEET = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def test_tensorboard_has_figures_speeds_and_sheets(tmp_path):
    with Log(tmp_path, 0) as log:
        log(1, loss=0.5)
        log.speed(1, samples_per_second=20.0)
        log.images(1, {"colorfulness": SHEET})
        log.images(2, {})
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("samples_per_second")] == [(1, 20.0)]
    (image,) = events.Images("colorfulness")
    assert (image.step, image.width, image.height) == (1, 4, 4)


@pytest.fixture
def service(monkeypatch, request):
    """A stand-in for the package of a service; what it was told."""
    told = []
    run = SimpleNamespace(
        log=lambda values, step: told.append((step, values)), finish=lambda: told.append("finish")
    )

    def init(**given):
        told.append(given)
        return run

    package = SimpleNamespace(init=init, Image=lambda image: ("image", image.size))
    monkeypatch.setitem(sys.modules, request.param, package)
    return request.param, told


@pytest.mark.parametrize("service", ["wandb", "trackio"], indirect=True)
def test_services_are_told_all_and_go_on_with_a_run(service, tmp_path):
    name, told = service
    with Log(tmp_path / "run", 3, trackers=[name], run="1a2b") as log:
        log(4, loss=0.5)
        log.images(4, {"colorfulness": SHEET})
    begun, *rest = told
    assert (begun["project"], begun["resume"]) == ("ric-diffusion", "allow")
    if name == "wandb":
        assert (begun["name"], begun["id"]) == ("run", "1a2b")
        assert rest == [(4, {"loss": 0.5}), (4, {"colorfulness": [("image", (4, 4))]}), "finish"]
    else:
        assert begun["name"] == "run-1a2b"
        assert rest == [(4, {"loss": 0.5}), (4, {"colorfulness": ("image", (4, 4))}), "finish"]
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(log_module, "find_spec", lambda name: None)
    given = {"steps": 1, "batch_size": 1, "trackers": ["wandb"]}
    with pytest.raises(InputError, match="trackers: wandb is not installed; pip install wandb"):
        from_dict(given, LoopConfig, "c.yaml")
    with pytest.raises(InputError, match="trackers"):
        from_dict(given | {"trackers": ["mlflow"]}, LoopConfig, "c.yaml")


def test_a_full_disk_under_tensorboard_is_told_once(tmp_path, monkeypatch):
    """Not by its thread as well, whose other errors and whose fellows are heard as ever."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fail(*_):
        raise OSError(28, "No space left on device")

    heard = []

    def hear(what):
        heard.append(what.exc_type)

    monkeypatch.setattr(threading, "excepthook", hear)
    log = Log(tmp_path, 0)
    monkeypatch.setattr(RecordWriter, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        log(1, loss=1.0)
    assert heard == []
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert heard == [OSError]
    with contextlib.suppress(OSError):  # it has something left to write
        log.close()
    assert threading.excepthook is hear
