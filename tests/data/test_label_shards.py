"""Labelling of shards: what comes out of which, whoever did it, and nothing twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import ric_diffusion
from ric_diffusion.data import label_shards
from ric_diffusion.data.framing import Framing
from ric_diffusion.data.images import open_image, pixel_digest
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.unchanged import check_unchanged
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import reporting
from ric_diffusion.rewards import RewardSpace
from support.shards import jpeg, sample, write_parquet, write_shards, write_tar

SEEDS = [[0, 1, 2, 3, 4], [5, 1, 6], [7, 8, 0, 9]]  # 1 and 0 twice
FILES = {"metadata.parquet", "reward_space.json", "skipped.json", "stamps.json", "framing.json"}
FILES |= {"manifest.json"}


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "in", SEEDS)


def run(source, out, *scorers, **options):
    return label_folder(source, out, scorers, progress=False, **options)


def rows(path):
    return pq.read_table(path).to_pylist()


def contents(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_a_shard_comes_out_of_each(shards, tmp_path, make_scorer):
    out = tmp_path / "out"
    report = run(shards, out, make_scorer(), batch_size=2)
    assert (report.count, report.written, report.scored) == (10, True, {"brightness": 12})
    assert set(os.listdir(out)) == {*FILES, "run.json", "shards"}
    assert set(os.listdir(out / "shards")) == {
        f"{i:05}.{suffix}" for i in range(3) for suffix in ("tar", "parquet", "skipped.json")
    }
    found = rows(out / "metadata.parquet")
    assert list(found[0]) == [
        *("file_name", "text", "captions", "score_brightness"),
        *("digest", "tar_offset", "tar_size", "original", "url", "key", "width"),
    ]
    assert [row["text"] for row in found] == [f"picture {i}" for i in range(10)]
    assert found[5]["file_name"] == "shards/00001.tar/000010000.jpg"
    assert found[5]["original"] == "00001.tar/000010000.jpg"
    assert (found[5]["url"], found[5]["width"]) == ("http://5", 16)
    for i, row in enumerate(found):
        tar = out / row["file_name"].rpartition("/")[0]
        with tar.open("rb") as file:
            file.seek(row["tar_offset"])
            data = file.read(row["tar_size"])
        assert data == jpeg(i)
        square = open_image(data).crop((2, 0, 14, 12))
        assert row["digest"] == pixel_digest(square)[:32]
        assert row["score_brightness"] == np.float32(np.mean(square))
    scores = [row["score_brightness"] for row in found]
    assert report.space == RewardSpace.load(out / "reward_space.json")
    assert report.space.means[0] == np.mean(scores) and report.space.count == 10
    assert Framing.read(out) == Framing()
    stamps = json.loads((out / "stamps.json").read_text())
    assert stamps["shards/00002.tar"] == [
        (out / "shards/00002.tar").stat().st_size,
        (shards / "00002.tar").stat().st_mtime_ns,
    ]
    records, space = read_labelled(out)
    assert space == report.space and len(records) == 10
    assert [record.source(out) for record in records] == [jpeg(i) for i in range(10)]
    (out / "stamps.json").unlink()  # so that every digest is compared
    check_unchanged(out, records, IMAGE, tmp_path / "cache")


def test_an_output_shard_is_a_tar_for_webdataset(shards, tmp_path, make_scorer):
    run(shards, tmp_path / "out", make_scorer())
    with tarfile.open(tmp_path / "out/shards/00001.tar") as tar:
        assert [(m.name, m.mtime, m.uid) for m in tar.getmembers()] == [
            (f"00001000{i}.{suffix}", 0, 0) for i in range(3) for suffix in ("jpg", "txt")
        ]
        assert tar.extractfile("000010002.txt").read() == b"picture 6"
        assert tar.extractfile("000010002.jpg").read() == jpeg(6)


def test_the_first_of_equal_pictures_counts(shards, tmp_path, make_scorer):
    write_tar(shards / "00003.tar", [*sample("a", 11), *sample("b", 11), *sample("c", 8)])
    report = run(shards, tmp_path / "out", make_scorer())
    assert report.skipped == {
        "00001.tar/000010001.jpg": "same as 00000.tar/000000001.jpg",
        "00002.tar/000020002.jpg": "same as 00000.tar/000000000.jpg",
        "00003.tar/b.jpg": "same as 00003.tar/a.jpg",
        "00003.tar/c.jpg": "same as 00002.tar/000020001.jpg",
    }
    entries = json.loads((tmp_path / "out/skipped.json").read_text())
    assert [(e["file"], e["reason"]) for e in entries] == [*report.skipped.items()]
    assert [*report.skipped.values()][2] == "same as 00003.tar/a.jpg" and len(report.skipped) == 4
    assert json.loads((tmp_path / "out/shards/00001.skipped.json").read_text()) == []
    assert len(rows(tmp_path / "out/shards/00001.parquet")) == 3


def test_as_a_folder_of_the_same_pictures_is_labelled(tmp_path, make_scorer):
    shards, folder = write_shards(tmp_path / "in", [[*range(6)], [*range(6, 12)]]), tmp_path / "f"
    folder.mkdir()
    for seed in range(12):
        (folder / f"{seed:02}.jpg").write_bytes(jpeg(seed))
        (folder / f"{seed:02}.txt").write_text(f"picture {seed}")
    ours = run(shards, tmp_path / "a", make_scorer(gain=2.0))
    theirs = run(folder, tmp_path / "b", make_scorer(gain=2.0))
    assert ours.space == theirs.space and ours.warnings == theirs.warnings
    records, _ = read_labelled(tmp_path / "b")
    found = rows(tmp_path / "a/metadata.parquet")
    assert [row["score_brightness"] for row in found] == [r.scores["brightness"] for r in records]
    assert [row["digest"] for row in found] == [Path(r.file).stem for r in records]


@pytest.mark.parametrize("order", [[(0, 1)], [(1, 2), (0, 2)], [(3, 4), (1, 4), (0, 4)]])
def test_who_does_which_makes_no_difference(shards, tmp_path, make_scorer, order):
    class Social(make_scorer):
        """As a network's, in the last bits."""

        def _score(self, images, prompts):
            return np.array(super()._score(images, prompts)) + len(images) / 1000

    alone, out = run(shards, tmp_path / "alone", Social(), batch_size=2).out, tmp_path / "out"
    for k, n in order:
        report = run(shards, out, Social(), shard=(k, n), batch_size=2)
        chosen = SEEDS[k::n]
        assert (report.count, report.space) == (sum(map(len, chosen)), None)
        assert report.scored == ({"brightness": report.count} if chosen else {})
        assert not (out / "metadata.parquet").exists()
    run(shards, out, Social(), batch_size=2)
    assert contents(out) == contents(alone)


def test_asked_again_nothing_happens(shards, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(shards, out, make_scorer())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    scorer = make_scorer()
    report = run(shards, out, scorer, batch_size=3)
    assert (report.written, scorer.calls, report.count) == (False, 0, 10)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_only_what_is_new_is_done(shards, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(shards, out, make_scorer())
    report = run(shards, out, make_scorer(), make_scorer("second"))
    assert report.scored == {"brightness": 0, "second": 12}
    assert report.space.names == ("brightness", "second")
    report = run(shards, out, make_scorer("second"), make_scorer(fingerprint="brightness-2"))
    assert report.scored == {"brightness": 12, "second": 0}
    write_tar(shards / "00001.tar", [*sample("a", 5), *sample("b", 20)])
    (shards / "00002.tar").unlink()
    report = run(shards, out, make_scorer("second"), make_scorer(fingerprint="brightness-2"))
    assert report.scored == {"brightness": 1, "second": 1} and report.count == 7
    fresh = run(
        shards, tmp_path / "fresh", make_scorer("second"), make_scorer(fingerprint="brightness-2")
    )
    assert contents(out) == contents(fresh.out)


def test_a_table_beside_the_tar_is_part_of_it(shards, tmp_path, make_scorer):
    table = [{"key": f"00000000{i}", "license": f"CC{i}"} for i in range(5)]
    write_parquet(shards / "00000.parquet", table)
    out = tmp_path / "out"
    run(shards, out, make_scorer())
    found = rows(out / "metadata.parquet")
    assert [row["license"] for row in found] == ["CC0", "CC1", "CC2", "CC3", "CC4", *[None] * 5]
    write_parquet(shards / "00000.parquet", [{**row, "n": 1} for row in table])
    assert run(shards, out, make_scorer()).written
    assert [row["n"] for row in rows(out / "metadata.parquet")] == [1] * 5 + [None] * 5
    (shards / "00000.parquet").write_bytes(b"words")
    reason = run(shards, out, make_scorer()).skipped["00000.tar"]
    assert reason.startswith("00000.parquet beside it: not a whole parquet file")


def test_nothing_of_a_broken_shard_is_labelled(shards, tmp_path, make_scorer, caplog):
    path = shards / "00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10240])
    out = tmp_path / "out"
    report = run(shards, out, make_scorer())
    assert report.count == 8
    reason = report.skipped["00001.tar"]
    assert reason.startswith("it is cut short")
    [said] = [text for text in caplog.messages if "left out" in text]
    assert said == f"{path}: {reason}; all of it is left out"
    assert rows(out / "shards/00001.parquet") == []
    with tarfile.open(out / "shards/00001.tar") as tar:
        assert tar.getnames() == []
    path.write_bytes(whole)
    assert run(shards, out, make_scorer()).count == 10


def test_captions_one_to_a_line(tmp_path, make_scorer):
    source, scorer = tmp_path / "shards", make_scorer()
    source.mkdir()
    members = [
        (f"{i}.{end}", data)
        for i in range(3)
        for end, data in (("jpg", jpeg(i)), ("txt", b"one\ntwo"))
    ]
    write_tar(source / "0.tar", members)
    run(source, tmp_path / "out", scorer, captions="lines")
    for row in rows(tmp_path / "out" / "metadata.parquet"):
        assert row["text"] == "one" and row["captions"] == ["one", "two"]


def test_what_is_left_out_is_listed(tmp_path, make_scorer):
    members = [
        *sample("a", 0),
        ("b.jpg", b"words"),
        ("b.txt", b"t"),
        ("c.jpg", jpeg(2)),
        ("d.txt", b"t"),
        ("e.jpg", jpeg(3, (100, 10))),
        ("e.txt", b"t"),
        *sample("f", 4),
        *sample("g", 5),
    ]
    write_tar(tmp_path / "in/0.tar", members)

    class Sometimes(make_scorer):
        def _score(self, images, prompts):
            scores = np.array(super()._score(images, prompts))
            return np.where([prompt == "picture 4" for prompt in prompts], np.nan, scores)

    report = run(tmp_path / "in", tmp_path / "out", Sometimes())
    assert report.skipped == {
        "0.tar/b.jpg": "not a picture of a known format",
        "0.tar/c.jpg": "no caption or prompt",
        "0.tar/d": "no picture",
        "0.tar/e.jpg": "too wide (100x10: width / height is 10, at most 4)",
        "0.tar/f.jpg": "brightness: score is not finite",
    }
    assert report.count == 2 and report.skipped["0.tar/d"] == "no picture"
    with pytest.raises(KeyError):
        report.skipped["0.tar/a.jpg"]


def test_parquet_of_the_hub(tmp_path, make_scorer):
    for part in range(2):
        made = [
            {"image": {"bytes": jpeg(i), "path": None}, "text": f"t{i}", "label": i}
            for i in range(3 * part, 3 * part + 3)
        ]
        write_parquet(tmp_path / f"hub/data/train-{part:05}-of-00002.parquet", made)
    out = tmp_path / "out"
    assert run(tmp_path / "hub", out, make_scorer()).count == 6
    found = rows(out / "metadata.parquet")
    assert [row["label"] for row in found] == [*range(6)]
    assert found[4]["file_name"] == "shards/train-00001-of-00002.tar/00000001.jpg"
    with tarfile.open(out / "shards/train-00001-of-00002.tar") as tar:
        assert tar.getnames()[2:4] == ["00000001.jpg", "00000001.txt"]


def test_an_address_and_a_labelled_folder_are_input_too(shards, tmp_path, make_scorer):
    fsspec = pytest.importorskip("fsspec")
    root = uuid.uuid4().hex
    for path in shards.iterdir():
        fsspec.filesystem("memory").pipe(f"/{root}/{path.name}", path.read_bytes())
    out = run(f"memory://{root}", tmp_path / "out", make_scorer()).out
    here = run(shards, tmp_path / "here", make_scorer()).out
    same = {"shards/00000.tar", "reward_space.json", "skipped.json"}
    assert all((out / name).read_bytes() == (here / name).read_bytes() for name in same)
    again = run(out, tmp_path / "again", make_scorer(), make_scorer("second"))
    assert again.count == 10
    row = rows(again.out / "metadata.parquet")[9]
    assert (row["original"], row["url"]) == ("00002.tar/000020003.jpg", "http://9")
    assert row["tar_offset"] == rows(out / "metadata.parquet")[9]["tar_offset"]


def test_columns_that_do_not_agree(tmp_path, make_scorer):
    cells = [{"n": 1, "m": 1, "tags": ["a"]}, {"n": 0.5, "m": "one"}, {"tags": {"a": 1}, "m": None}]
    for i, more in enumerate(cells):
        write_tar(tmp_path / f"in/{i}.tar", sample("a", i, **more))
    run(tmp_path / "in", tmp_path / "out", make_scorer())
    table = pq.read_table(tmp_path / "out/metadata.parquet").to_pydict()
    assert table["n"] == [1.0, 0.5, None]
    assert table["m"] == ["1", '"one"', None]
    assert table["tags"] == ['["a"]', None, '{"a": 1}']


def test_bad_input(shards, tmp_path, make_scorer):
    def refused(match, source, out, scorer, **options):
        with pytest.raises(InputError, match=match) as caught:
            run(source, out, scorer, **options)
        assert "\n" not in str(caught.value)

    out = tmp_path / "out"
    texts = make_scorer()
    texts.medium = "text"
    refused("shards hold pictures; brightness scores texts", shards, out, texts)
    refused("one is inside the other", shards, shards / "out", make_scorer())
    refused("lies in", shards / "00000.tar", shards, make_scorer())
    refused("no shard 3 of 3", shards, out, make_scorer(), shard=(3, 3))
    assert not out.exists()
    (shards / "00000.tar").write_bytes(b"")
    for name in ("00001.tar", "00002.tar"):
        (shards / name).unlink()
    few = "0 usable pictures, at least 2 are needed; 1 skipped, '00000.tar' first: not a whole"
    refused(few, shards, out, make_scorer())
    assert not (out / "metadata.parquet").exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(0))
    (folder / "a.txt").write_text("a")
    refused("holds a run with other layout", folder, out, make_scorer())


def test_progress_tells_the_shards(shards, tmp_path, make_scorer):
    told = []
    with reporting(told.append):
        label_folder(shards, tmp_path / "out", [make_scorer()])
    assert [one.done for one in told if one.stage == "label"][-1] == 3
    assert {(one.stage, one.total, one.unit) for one in told} == {
        ("label", 3, "shard"),
        ("merge", 6, "shard"),
    }
    assert max(one.done for one in told) == 6


def test_journals_of_slow_scores_are_kept_and_go_when_the_shard_is_whole(
    shards, tmp_path, make_scorer, monkeypatch
):
    out = tmp_path / "out"

    class Stops(make_scorer):
        def _score(self, images, prompts):
            if "picture 2" in prompts:
                raise KeyboardInterrupt
            return super()._score(images, prompts)

    with pytest.raises(KeyboardInterrupt):
        run(shards, out, Stops(), batch_size=2)
    assert [p.name.split("-")[0] for p in (out / "scores").iterdir()] == ["00000"]
    assert not list(out.rglob(".tmp-*"))
    scorer = make_scorer()
    run(shards, out, scorer, batch_size=2)
    assert scorer.seen[0] == "picture 2" and not (out / "scores").exists()
    assert label_shards.SECONDS > 0


# The scorer kills its own process in its batch `last`.
PROGRAM = """
import os, signal, sys
import numpy as np
import scorers
from ric_diffusion.data import label_shards
from ric_diffusion.data.label import label_folder

source, out, last = sys.argv[1:]
label_shards.SECONDS = 0.0

class Deadly(scorers.BaseScorer):
    name, unit, fingerprint, options = "brightness", "level", "brightness-1", {"gain": 1.0}
    batches = 0
    def _score(self, images, prompts):
        self.batches += 1
        if self.batches == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.mean(image) for image in images]

label_folder(source, out, [Deadly()], batch_size=2, progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_twice_and_resumed(shards, tmp_path, make_scorer):
    out = tmp_path / "out"
    home = str(Path(ric_diffusion.__file__).parents[1])
    for last, whole in ((2, 0), (4, 1)):  # of 3, 2 and 2 batches
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(shards), str(out), str(last)],
            env={**os.environ, "PYTHONPATH": home},
            timeout=300,
        )
        assert done.returncode == -signal.SIGKILL
        assert len(list((out / "shards").glob("[!.]*.parquet"))) == whole
        assert not (out / "metadata.parquet").exists()
    scorer = make_scorer()
    run(shards, out, scorer, batch_size=2)
    assert scorer.seen == ["picture 6", "picture 7", "picture 8", "picture 0", "picture 9"]
    assert contents(out) == contents(run(shards, tmp_path / "whole", make_scorer()).out)


def test_one_worker_after_another_was_stopped_while_it_wrote(shards, tmp_path, make_scorer):
    """A tar without its metadata is not whole."""
    out = tmp_path / "out"
    run(shards, out, make_scorer())
    expected = contents(out)
    (out / "shards/00001.parquet").unlink()
    (out / "shards/00001.tar").write_bytes(b"half")
    shutil.copy(out / "shards/00000.tar", out / "shards/.tmp-000000-1-00000000-x.tar")
    os.utime(out / "shards/.tmp-000000-1-00000000-x.tar", (0, 0))
    assert run(shards, out, make_scorer()).scored == {"brightness": 3}
    assert contents(out) == expected
