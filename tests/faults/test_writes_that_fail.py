"""Writes that fail, as on a full disk: the old file or none is left, never half a new one."""

import errno
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from ric_diffusion.data.images import save_png
from ric_diffusion.io import files as files_module
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer


@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(part): what has ``part`` in its path cannot be brought to the disk any more."""
    sync = files_module.sync

    def fill(part=""):
        def fail(path):
            if part in str(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(path)

        monkeypatch.setattr(files_module, "sync", fail)

    yield fill
    monkeypatch.undo()


@contextmanager
def files_of_at_most(count):
    """No file may grow beyond ``count`` bytes: the system itself refuses."""
    resource = pytest.importorskip("resource")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def said(done, verb):
    """The last line, of a run that failed for no fault of the user's."""
    assert (done.code, done.out) == (1, "")
    line = done.err.splitlines()[-1]
    assert line.startswith(f"ric {verb}: ") and "No space left on device" in line
    assert "Traceback" not in done.err


def test_generate(ric, model, tmp_path, files, full_disk):
    old = tmp_path / "0001-x-seed0.png"
    old.write_bytes(b"old")
    full_disk()
    said(ric("generate", *model, "--prompt", "x", "--count", 2, "--out", tmp_path), "generate")
    assert files(tmp_path) == {old.relative_to(tmp_path): b"old"}


@pytest.mark.parametrize("part", ["grid.png", "sweep.json"])
def test_sweep(ric, model, tmp_path, full_disk, part):
    full_disk(part)
    said(ric("sweep", *model, "--prompt", "x", "--points", 2, "--out", tmp_path), "sweep")
    assert not (tmp_path / part).exists()
    assert len(list(tmp_path.iterdir())) == 2  # the pictures themselves are whole
    for path in tmp_path.iterdir():
        Image.open(path).load()


def test_export(ric, root, tmp_path, files, full_disk):
    out = tmp_path / "x.safetensors"
    args = ["--adapter", root / "text" / "adapter", "--format", "kohya", "--out", out]
    assert ric("export", *args).code == 0
    before = files(tmp_path)
    full_disk()
    said(ric("export", *args), "export")
    assert files(tmp_path) == before


def test_label(ric, root, tiny, tmp_path, full_disk):
    args = ["label", root / "pictures", "--out", tmp_path / "out", "--scorers", *tiny.SCORERS]
    full_disk("reward_space.json")
    said(ric(*args), "label")
    names = {path.name.partition("-")[0] for path in (tmp_path / "out").iterdir()}
    assert names == {"run.json", "scores"}  # what the next run needs to go on


@pytest.mark.parametrize("part", ["latents-", "config.json", "-adapter", "sheets"])
def test_train_and_again(ric, root, tiny, tmp_path, files, full_disk, monkeypatch, part):
    path = tiny.write_config(tmp_path / "config.yaml", tiny.config(root, "embedding"))
    run = tmp_path / "run"
    full_disk(part)
    said(ric("train", path, "--out", run), "train")
    assert not (run / "adapter").exists()
    assert not list(run.rglob(".tmp-*"))
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ric("train", path, "--out", run, "--resume").code == 0
    assert files(run / "adapter") == files(root / "embedding" / "adapter")


def test_checkpoint(toy, tmp_path, full_disk, monkeypatch):
    config = LoopConfig(
        precision="fp32", steps=9, batch_size=4, learning_rate=0.1, checkpoint_minutes=0.0
    )
    whole = toy.Toy(noise=0.3)
    Trainer(whole, toy.COUNT, config, tmp_path / "whole", digest="d").run()

    full_disk("step-5")
    with pytest.raises(OSError, match="No space left"):
        Trainer(toy.Toy(noise=0.3), toy.COUNT, config, tmp_path / "out", digest="d").run()
    assert sorted(os.listdir(tmp_path / "out" / "checkpoints")) == ["step-3", "step-4"]
    monkeypatch.undo()
    again = toy.Toy(noise=0.3)
    Trainer(again, toy.COUNT, config, tmp_path / "out", digest="d", resume=True).run()
    assert torch.equal(again.values(), whole.values())
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("whole", "out")]
    assert logs[0] == logs[1]


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(kB): a folder on a disk of that size, which the system itself says is full."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_disks_of_many_sizes(ric, root, tiny, tmp_path, files, small_disk, monkeypatch):
    """Wherever the disk is full, in the libraries' writing too, one line says so, and with more
    room the run goes on to the same adapter."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = tiny.write_config(tmp_path / "config.yaml", tiny.config(root, "embedding"))
    adapter = root / "embedding" / "adapter"
    needed = sum(len(data) for data in files(root / "embedding").values()) // 1024
    for share in (0.15, 0.5, 0.85):
        run = small_disk(int(needed * share)) / "run"
        said(ric("train", path, "--out", run), "train")
        assert not (run / "adapter").exists() and not list(run.rglob(".tmp-*"))
    roomy = tmp_path / "roomy"
    shutil.copytree(run, roomy)
    assert ric("train", path, "--out", roomy, "--resume").code == 0
    assert files(roomy / "adapter") == files(adapter)

    size = sum(len(data) for data in files(adapter).values()) // 1024
    for form in ("kohya", "comfyui", "diffusers"):
        out = small_disk(max(size // 2 + len(form), 4)) / "x.safetensors"
        args = ["--adapter", adapter, "--format", form, "--out", out]
        said(ric("export", *args), "export")
        assert not list(out.parent.iterdir())


def test_checkpoint_too_large_for_the_system(tmp_path):
    parameters = {"a": torch.nn.Parameter(torch.ones(1000))}
    optimizer = torch.optim.AdamW(parameters.values())
    state = checkpoint.State(parameters, optimizer, {"a": torch.ones(1000)}, step=1)
    checkpoint.save(tmp_path, state, digest="d")
    state.step = 2
    with files_of_at_most(4000), pytest.raises(OSError, match="File too large"):
        checkpoint.save(tmp_path, state, digest="d")
    assert os.listdir(tmp_path) == ["step-1"]
    found = checkpoint.State(parameters, optimizer, {"a": torch.zeros(1000)})
    checkpoint.load(checkpoint.newest(tmp_path), found, digest="d")
    assert found.step == 1 and found.average["a"].sum() == 1000


def test_picture_too_large_for_the_system(tmp_path):
    image = Image.effect_noise((64, 64), 100)
    path = tmp_path / "a.png"
    save_png(path, image, {"prompt": "old"})
    before = path.read_bytes()
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        save_png(path, image, {"prompt": "new"})
    assert os.listdir(tmp_path) == ["a.png"]
    assert path.read_bytes() == before


def test_story_that_is_no_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        save_png(tmp_path / "a.png", Image.new("L", (8, 8)), {"targets": {1, 2}})
    assert os.listdir(tmp_path) == []
    save_png(tmp_path / "a.png", Image.new("L", (8, 8)), {"targets": {"a": 1.0}})
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.text["targets"]) == {"a": 1.0}
