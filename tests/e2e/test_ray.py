"""The engine ray: workers that die, refuse and are stopped, and three verbs that end with the same
bytes as in one process."""

import json
import logging
import os
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import scorers
from ric_diffusion import api
from ric_diffusion.io.engines import opened
from ric_diffusion.io.errors import InputError, WorkerError
from scorers import ScorerError
from support import tasks

pytest.importorskip("ray", reason="the extra scale is not installed")
RAY = api.EngineConfig(name="ray", workers=2)
TESTS = Path(tasks.__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def ray(place):
    """Ray for two workers, who find the tests and the scorer ``deadly``. Engines join it."""
    about = place / "deadly-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ric.scorers]\ndeadly = support.tasks:Deadly\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        known = [str(place), str(TESTS), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(known))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv(tasks.DEADLY, str(place / "killed"))
        with opened(RAY):
            patch.delenv(tasks.DEADLY)  # of the workers alone
            yield


@pytest.fixture
def done(ray, tmp_path):
    """done(task, items): what the workers make of them."""

    def run(task, items, **options):
        elsewhere = partial(tasks.held, number=10, log=str(tmp_path / "made"))
        given = {"here": None, "elsewhere": elsewhere, "called": "item {}".format, **options}
        return engine.map(task, items, **given)

    with opened(RAY) as engine:
        yield run


def lines(path):
    return path.read_text().splitlines()


def test_each_worker_makes_what_it_holds_once(done, tmp_path):
    assert sorted(done(tasks.product, list(range(20)))) == [10 * i for i in range(20)]
    assert sorted(done(tasks.product, [7, 8])) == [70, 80]
    made = lines(tmp_path / "made")
    assert len(made) == len(set(made)) <= 2 and str(os.getpid()) not in made


def test_a_worker_that_dies_costs_one_item_again(done, tmp_path, caplog):
    items = [{"number": i, "once": str(tmp_path / "died")} for i in range(8)]
    with caplog.at_level(logging.WARNING):
        found = sorted(
            done(tasks.dies_of_three, items, called=lambda item: f"no. {item['number']}")
        )
    assert found == [10 * i for i in range(8)]
    [message] = caplog.messages
    assert message.startswith("no. 3: attempt 1 of 3 failed, the worker died: ")
    assert len(message.splitlines()) == 1


def test_an_item_that_kills_three_workers_is_named(done):
    items = [{"number": i, "once": None} for i in range(4)]
    with pytest.raises(WorkerError, match=r"^no\. 3: failed 3 times, at last because the worker"):
        list(done(tasks.dies_of_three, items, called=lambda item: f"no. {item['number']}"))
    assert list(done(tasks.product, [4])) == [40]  # the engine is none the worse for it


@pytest.mark.parametrize(
    ("kind", "error", "message", "attempts"),
    [
        ("input", InputError, "^so it is$", 1),
        ("scorer", ScorerError, "^so it is$", 1),
        ("bug", WorkerError, "^item: failed 3 times, at last because KeyError: 'so it is'", 3),
    ],
)
def test_what_is_wrong_with_the_input_is_said_at_once(
    done, tmp_path, kind, error, message, attempts
):
    item = {"kind": kind, "log": str(tmp_path / "log")}
    with pytest.raises(error, match=message) as caught:
        list(done(tasks.fails, [item], called=lambda item: "item"))
    assert lines(tmp_path / "log") == [kind] * attempts
    if kind == "bug":  # for whoever looks for it
        assert 'raise {"input": InputError' in "".join(caught.value.__notes__)


def test_interrupted_its_workers_end(done):
    found = done(tasks.process, [0, 600, 600])
    pid = next(found)  # it sleeps now
    found.close()  # as Ctrl+C does
    gone = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < gone:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_more_workers_than_there_are_devices(ray):
    with pytest.raises(InputError, match="workers: 3, and Ray has 2 CPUs; give 2"):
        api.label("x", "y", ["colorfulness"], engine=api.EngineConfig(name="ray", workers=3))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"address 127\.0\.0\.1:1: cannot be reached \(.*refused\); give the"),
        ("ray://127.0.0.1:1", r"address ray://127\.0\.0\.1:1: cannot be reached"),
        ("somewhere", r"address somewhere: write HOST:PORT, ray://HOST:PORT or auto"),
    ],
)
def test_an_address_that_cannot_be_reached(address, message):
    from ric_diffusion.io.ray_engine import _probe

    with pytest.raises(InputError, match=message):
        _probe(address)


COUNT = 40


@pytest.fixture(scope="module")
def pictures(place):
    folder, rng = place / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for i in range(COUNT):
        noise = rng.integers(0, 40 + 5 * i, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"picture {i}")
    (folder / "07.png").write_bytes(b"no picture")
    (folder / "09.png").write_bytes((folder / "08.png").read_bytes())
    return folder


def output(folder):
    """Bytes by path of everything but the journals."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("scores-"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_labelling_alone_by_hand_and_on_ray_with_a_worker_killed(
    ray, place, pictures, tmp_path, caplog
):
    using = ["compressibility:resize=none", "deadly"]
    api.label(pictures, tmp_path / "alone", using)
    for shard in (2, 0, 3, 1):
        api.label(pictures, tmp_path / "by hand", using, shard=(shard, 4))
    api.label(pictures, tmp_path / "by hand", using)

    with caplog.at_level(logging.WARNING):
        report = api.label(pictures, tmp_path / "ray", using, engine=RAY)
    assert (place / "killed").exists()
    [message] = caplog.messages
    assert "of 8 failed" not in message and message.startswith("shard ")
    assert "/8: attempt 1 of 3 failed, the worker died" in message
    assert report.count == COUNT - 2 == report.scored["deadly"]
    assert len(report.skipped) == 2 and len(report.space.names) == 2
    # More than one process wrote, and none of them this one.
    writers = {path.name.split("-")[1] for path in (tmp_path / "ray").glob("scores-*")}
    assert len(writers) > 1 and str(os.getpid()) not in writers

    alone = output(tmp_path / "alone")
    assert {"metadata.parquet", "reward_space.json", "skipped.json"} < alone.keys()
    assert len([name for name in alone if name.startswith("images/")]) == COUNT - 2
    assert output(tmp_path / "by hand") == alone
    assert output(tmp_path / "ray") == alone


def test_labelling_tar_shards_on_ray(ray, place, pictures, tmp_path):
    (tmp_path / "tars").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / "tars" / f"{number:05d}.tar", "w") as tar:
            for path in sorted(pictures.glob("*.png"))[number::3]:
                tar.add(path, path.name)
                tar.add(path.with_suffix(".txt"), f"{path.stem}.txt")
    api.label(tmp_path / "tars", tmp_path / "alone", ["deadly", "colorfulness"])
    report = api.label(tmp_path / "tars", tmp_path / "ray", ["deadly", "colorfulness"], engine=RAY)
    assert report.scored["deadly"] > 0
    alone = output(tmp_path / "alone")
    assert {f"shards/{i:05d}.{end}" for i in range(3) for end in ("tar", "parquet")} < alone.keys()
    assert output(tmp_path / "ray") == alone


def test_labelling_that_cannot_be_done(ray, ric, pictures, tmp_path):
    out = tmp_path / "out"

    def said(*args):
        done = ric("label", *args, "--out", out, "--engine", "ray", "--workers", "2")
        assert done.code == 2 and not out.exists()
        return done.err.splitlines()[-1]

    nowhere = tmp_path / "nowhere"
    assert said(nowhere, "--scorers", "deadly") == f"ric label: {nowhere}: no such file or folder"
    assert said(pictures, "--scorers", "deadli").startswith("ric label: no scorer 'deadli'")
    assert said(pictures, "--scorers", "deadly", "--shard", "0/2") == (
        "ric label: --shard: the engine shares the work itself; leave one of them out"
    )
    with pytest.raises(InputError, match="scorers: workers elsewhere load deadly by its name"):
        api.label(pictures, out, [scorers.load("deadly")], engine=RAY)


def timeless(value):
    """Without wall times, which alone differ."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def results(folder, run, names):
    """Of the files named, what stands in them, without paths and wall times."""
    found = {}
    for name in names:
        for path in sorted(folder.glob(name)):
            where = path.relative_to(folder).as_posix()
            if path.suffix == ".json":
                found[where] = timeless(json.loads(path.read_text().replace(str(folder), run)))
            else:
                found[where] = path.read_bytes()
    return found


def test_online_rounds_on_ray_are_those_of_one_process(ray, root, tiny, ric, tmp_path):
    data = tiny.config(root, "embedding")
    loop = data["loop"] | {"steps": 2, "schedule": "constant", "learning_rate": 0.001}
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
    online = {"rounds": 2, "samples": 8, "batch_size": 2, "loop": loop, "guard": guard}
    written = {name: data[name] for name in ("model", "data", "diffusion")} | {
        "adapter": str(root / "embedding" / "adapter"),
        "online": online,
    }
    (tmp_path / "online.yaml").write_text(yaml.safe_dump(written))

    def run(out, *args):
        done = ric("online", tmp_path / "online.yaml", "--out", out, *args)
        assert done.code == 0, done.err
        names = ("round-*/samples/*", "round-*/*.json", "adapter/ric_adapter.json")
        return results(out, "RUN", names)

    alone = run(tmp_path / "alone")
    assert len([name for name in alone if name.endswith(".png")]) == 16
    assert run(tmp_path / "ray", "--engine", "ray", "--workers", "2") == alone


def test_evaluation_on_ray_is_that_of_one_process(ray, root, ric, tmp_path):
    (tmp_path / "prompts.txt").write_text("red apple\ncat face\n")

    def run(out, *args):
        done = ric(
            "evaluate", "--model", root / "model", "--adapter", root / "embedding" / "adapter",
            "--prompts", tmp_path / "prompts.txt", "--points", 3, "--seeds", 2, "--steps", 1,
            "--scorers", "brightness", "--calibrate", "--out", out, *args,
        )  # fmt: skip
        assert done.code == 0, done.err
        names = ("metrics.json", "methods/*/samples/**/*.png", "calibration/*/samples/**/*.png")
        return results(out, "RUN", names)

    alone = run(tmp_path / "alone")
    assert len(alone) > 30
    assert run(tmp_path / "ray", "--engine", "ray", "--workers", "1") == alone
