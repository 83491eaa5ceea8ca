"""Labelling: what is kept, what is skipped, what is written, and what is never done twice."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scorers
from ric_diffusion.data import labelled, publish
from ric_diffusion.data.images import open_image, pixel_digest
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.records import Record, read_folder, read_labelled, write_metadata
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import sibling
from ric_diffusion.io.progress import reporting
from ric_diffusion.io.run import RunFolder

OUTPUT = {
    "images",
    "metadata.parquet",
    "reward_space.json",
    "manifest.json",
    "skipped.json",
    "stamps.json",
    "framing.json",
    "run.json",
}


def run(folder, out, *with_scorers, **options):
    return label_folder(folder, out, with_scorers, progress=False, **options)


def is_journal(path):
    return re.fullmatch(r"scores-\d+-[0-9a-f]{8}\.jsonl", path.name) is not None


def journals(out):
    return [path for path in sorted(out.iterdir()) if is_journal(path)]


def names(out):
    """What stands in the folder beside journals."""
    return {path.name for path in out.iterdir() if not is_journal(path)}


def contents(out):
    """Bytes by path of everything but the journals."""
    files = (path for path in out.rglob("*") if path.is_file() and not is_journal(path))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_labels(folder, tmp_path, make_scorer):
    scorer = make_scorer(gain=2.0)
    report = run(folder, tmp_path / "out", scorer, batch_size=4)
    assert (report.count, report.skipped, report.written) == (10, {}, True)
    assert report.scored == {"brightness": 10}
    assert scorer.seen == [f"picture {i}" for i in range(10)]
    assert scorer.calls == 3
    assert names(tmp_path / "out") == OUTPUT and len(journals(tmp_path / "out")) == 1
    records, space = read_labelled(tmp_path / "out")
    assert space == report.space
    (reward,) = space.rewards
    assert (reward.name, reward.unit) == ("brightness", "level")
    assert reward.scorer == {"name": "brightness", "options": {"gain": 2.0}}
    assert reward.fingerprint == "brightness-1"
    assert space.count == 10
    for record, original in zip(records, read_folder(folder), strict=True):
        assert record.captions == original.captions
        assert record.extra == {"original": original.file}
        source, copy = folder / original.file, tmp_path / "out" / record.file
        assert copy.read_bytes() == source.read_bytes()
        assert not copy.samefile(source)
        square = np.asarray(Image.open(source))[:, 2:14]
        assert record.scores["brightness"] == np.float32(2 * np.mean(square))


def test_built_in_scorers_by_spec(folder, tmp_path):
    chosen = [scorers.load("compressibility:resize=none"), scorers.load("colorfulness")]
    space = run(folder, tmp_path / "out", *chosen).space
    assert space.names == ("compressibility", "colorfulness")
    for reward, scorer in zip(space.rewards, chosen, strict=True):
        assert reward.fingerprint == scorer.fingerprint
        again = scorers.load(reward.scorer["name"], **reward.scorer["options"])
        assert again.fingerprint == scorer.fingerprint


def test_other_columns_and_earlier_scores_pass_through(folder, tmp_path, make_scorer):
    extra = {"style": "line", "nested": {"a": [1, 2]}, "original": "mine"}
    scores = {"old": 0.5, "brightness": -1.0}
    records = [
        Record(file=record.file, captions=record.captions, extra=extra, scores=scores)
        for record in read_folder(folder)
    ]
    write_metadata(folder, records)
    run(folder, tmp_path / "out", make_scorer())
    labelled, _ = read_labelled(tmp_path / "out")
    assert labelled[0].extra == {**extra, "score_old": 0.5}
    assert labelled[0].scores["brightness"] > 0
    assert labelled[0].captions == ("picture 0",)


def test_a_labelled_folder_can_be_labelled(folder, tmp_path, make_scorer):
    run(folder, tmp_path / "one", make_scorer("first"))
    run(tmp_path / "one", tmp_path / "two", make_scorer("second"))
    records, space = read_labelled(tmp_path / "two")
    assert space.names == ("second",)
    assert records[3].extra["original"] == "3.png"
    assert records[3].extra["score_first"] == records[3].scores["second"]


def test_bad_pictures_are_skipped_with_a_reason(folder, tmp_path, picture, make_scorer):
    def add(name, data=None, image=None, caption="a caption"):
        path = folder / name
        if image is not None:
            image.save(path)
        else:
            path.write_bytes(data)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)

    whole = (folder / "1.png").read_bytes()
    add("a truncated.png", whole[: len(whole) // 2])
    add("b.png", b"words, not pixels")
    add("c.png", b"")
    add("d.png", image=Image.new("RGB", (20, 20), "white"))
    add("e.png", image=Image.new("RGB", (20, 20)))
    add("f.png", data=whole, caption="another caption")
    add("g.png", image=picture(77), caption=None)
    add("ü h.png", image=picture(78).convert("P"))
    deep = np.random.default_rng(79).integers(0, 2**16, (9, 9), dtype=np.uint16)
    add("i.png", image=Image.fromarray(deep))
    add("j.png", image=picture(80), caption="long " * 2000)
    os.mkfifo(folder / "k.png")
    add("k.txt", b"pipe", caption=None)
    report = run(folder, tmp_path / "out", make_scorer(), batch_size=1)
    assert report.count == 13
    reasons = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert {entry["file"]: entry["reason"] for entry in reasons} == report.skipped
    expected = {
        "a truncated.png": "broken picture (",
        "b.png": "not a picture of a known format",
        "c.png": "empty file",
        "d.png": "blank",
        "e.png": "blank",
        "f.png": "same as 1.png",
        "g.png": "no caption or prompt",
        "k.png": "not a file",
    }
    assert list(report.skipped) == list(expected)
    for file, reason in expected.items():
        assert report.skipped[file].startswith(reason)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf8_and_files_that_are_gone(folder, tmp_path, picture, make_scorer):
    try:
        shutil.copy(folder / "1.png", os.fsencode(folder) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system wants UTF-8")
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "ghost"}\n')
    skipped = run(folder, tmp_path / "out", make_scorer()).skipped
    assert skipped == {"gone.png": "missing file", "\udcff.png": "its name is not UTF-8; rename it"}
    json.loads((tmp_path / "out" / "skipped.json").read_text())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite(folder, tmp_path, make_scorer, value):
    class Sometimes(make_scorer):
        def _score(self, images, prompts):
            scores = np.array(super()._score(images, prompts))
            return np.where([prompt == "picture 3" for prompt in prompts], value, scores)

    report = run(folder, tmp_path / "out", make_scorer("fine"), Sometimes())
    assert report.skipped == {"3.png": "brightness: score is not finite"}
    again = Sometimes()
    assert not run(folder, tmp_path / "out", make_scorer("fine"), again).written
    assert again.calls == 0


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError("encoder error -2\nwhen writing"), "OSError: encoder error -2 when writing"),
        (SystemExit("enough"), "SystemExit: enough"),
    ],
)
def test_a_picture_that_a_scorer_fails_on(folder, tmp_path, make_scorer, error, reason):
    class Picky(make_scorer):
        def _score(self, images, prompts):
            if "picture 4" in prompts:
                raise error
            return super()._score(images, prompts)

    report = run(folder, tmp_path / "out", Picky(), batch_size=4)
    assert report.skipped == {"4.png": f"brightness fails on it ({reason})"}
    assert report.count == 9


@pytest.mark.parametrize(
    "error, told, message",
    [
        (RuntimeError("bug"), scorers.ScorerError, "'brightness' fails (RuntimeError: bug); mend"),
        (SystemExit(3), scorers.ScorerError, "'brightness' fails (SystemExit: 3)"),
        (MemoryError(), scorers.ScorerError, "'brightness' fails (MemoryError)"),
        (scorers.ScorerError("misuse"), scorers.ScorerError, "misuse"),
        (OSError(28, "full"), OSError, "full"),
    ],
)
def test_a_broken_scorer_is_no_picture_s_fault(folder, tmp_path, make_scorer, error, told, message):
    class Broken(make_scorer):
        def _score(self, images, prompts):
            raise error

    with pytest.raises(told, match=re.escape(message)):
        run(folder, tmp_path / "out", Broken())
    assert os.listdir(tmp_path / "out") == ["run.json"]


def test_a_batch_that_memory_does_not_hold_is_scored_one_by_one(folder, tmp_path, make_scorer):
    class OutOfMemoryError(RuntimeError):
        """As torch's is called."""

    class Large(make_scorer):
        def _score(self, images, prompts):
            if len(images) > 1:
                raise OutOfMemoryError("tried to allocate 20 GiB")
            return super()._score(images, prompts)

    report = run(folder, tmp_path / "out", Large())
    assert report.count == len(read_folder(folder)) and not report.skipped

    class TooLarge(make_scorer):
        def _score(self, images, prompts):
            raise OutOfMemoryError("tried to allocate 20 GiB")

    with pytest.raises(scorers.ScorerError, match=r"fails \(OutOfMemoryError: tried"):
        run(folder, tmp_path / "other", TooLarge())


def test_a_scorer_that_miscounts(folder, tmp_path, make_scorer):
    class Miscounts(make_scorer):
        def __call__(self, images, prompts=None):
            return np.zeros(len(images) + 1)

    with pytest.raises(scorers.ScorerError, match=r"gave shape \(11,\) for 10 samples"):
        run(folder, tmp_path / "out", Miscounts())


# Nothing twice.


def test_asked_again_nothing_happens(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    before = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    scorer = make_scorer()
    report = run(folder, out, scorer, batch_size=3)
    assert (report.written, report.scored, scorer.calls) == (False, {"brightness": 0}, 0)
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == before


def test_a_copy_that_was_damaged_is_made_again(folder, tmp_path, make_scorer):
    """Size and time of change say nothing of it."""
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    before, (damaged, *_) = contents(out), sorted((out / "images").iterdir())
    status = damaged.stat()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(folder, out, make_scorer()).written
    assert contents(out) == before


def test_another_scorer_another_fingerprint_another_picture(folder, tmp_path, picture, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    report = run(folder, out, make_scorer(), make_scorer("second"))
    assert report.scored == {"brightness": 0, "second": 10}
    assert read_labelled(out)[1].names == ("brightness", "second")
    report = run(folder, out, make_scorer(fingerprint="brightness-2", gain=3.0))
    assert report.scored == {"brightness": 10}
    assert read_labelled(out)[1].rewards[0].fingerprint == "brightness-2"
    picture(50).save(folder / "50.png")
    (folder / "50.txt").write_text("new")
    (folder / "0.png").unlink()
    assert run(folder, out, make_scorer()).scored == {"brightness": 1}
    assert len(os.listdir(out / "images")) == 10
    fresh = run(folder, tmp_path / "fresh", make_scorer())
    assert contents(fresh.out) == contents(out)


class OfAnotherShape:
    """Has what the protocol asks for, and says nothing of prompts."""

    name, unit, higher_is_better, fingerprint, options = "other", "", True, "other-1", {}

    def __call__(self, images, prompts):
        return np.array([sum(prompt.encode()) for prompt in prompts], dtype=float)


def test_a_changed_caption_is_rescored_if_it_is_read(folder, tmp_path, make_scorer):
    class Reader(make_scorer):
        needs_prompts = True

    out, scorers = tmp_path / "out", (make_scorer(), Reader("reader"), OfAnotherShape())
    run(folder, out, *scorers)
    (folder / "2.txt").write_text("changed")
    report = run(folder, out, *scorers)
    assert report.scored == {"brightness": 0, "reader": 1, "other": 1}
    assert report.written
    assert read_labelled(out)[0][2].captions == ("changed",)


def test_a_damaged_output_is_mended(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    whole = contents(out)
    name = next(name for name in whole if name.startswith("images/"))
    (out / name).unlink()
    (out / name).write_bytes(b"other")
    (out / "images" / "stale.png").touch()
    (out / "reward_space.json").unlink()
    assert run(folder, out, make_scorer()).written
    assert contents(out) == whole


def test_a_torn_or_damaged_journal_costs_what_was_torn(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer(), batch_size=2)
    whole = contents(out)
    (journal,) = journals(out)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    for damage, batches in [
        (b"".join(lines)[:-9], 1),
        (b"".join(lines) + b'{"scorer": "bri', 0),
        (b"".join([b"\0\xff\n", b"[]\n", b'{"scores": []}\n', b"3\n", *lines[2:]]), 2),
        (lines[0], 4),
        (lines[0][:10], 5),
        (b"", 5),
    ]:
        journal.write_bytes(damage)
        scorer = make_scorer()
        report = run(folder, out, scorer, batch_size=2)
        assert (scorer.calls, report.written) == (batches, False)
        assert contents(out) == whole
        assert run(folder, out, make_scorer(), batch_size=2).scored == {"brightness": 0}
        assert journal.read_bytes() == damage  # what another process wrote is left alone
        for path in journals(out):
            if path != journal:
                path.unlink()


# All or nothing.


def test_errors_leave_nothing_half_written(folder, tmp_path, picture, make_scorer, monkeypatch):
    out = tmp_path / "out"

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "copy", full)
        with pytest.raises(OSError, match="No space left"):
            run(folder, out, make_scorer())
        assert names(out) == {"run.json"}
    run(folder, out, make_scorer())
    whole = contents(out)
    (folder / "1.png").unlink()
    picture(50).save(folder / "50.png")
    (folder / "50.txt").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "copy", full)
        with pytest.raises(OSError, match="No space left"):
            run(folder, out, make_scorer())
        assert contents(out) == whole
    assert run(folder, out, make_scorer()).scored == {"brightness": 0}
    assert contents(out) == contents(run(folder, tmp_path / "fresh", make_scorer()).out)


@pytest.mark.parametrize("output", ["new", "there already"])
def test_stopped_between_two_renames(folder, tmp_path, make_scorer, monkeypatch, output):
    out = tmp_path / "out"
    if output == "there already":  # with pictures that got other bytes since
        run(folder, out, make_scorer())
        for path in folder.rglob("*.png"):
            image = Image.open(path)
            image.load()
            path.unlink()
            image.save(path, compress_level=0)

    usual, moved = os.replace, []

    def stop(source, target):
        if Path(target).parent.name == "images":
            moved.append(target)
            if len(moved) == 4:
                raise KeyboardInterrupt
        usual(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(publish.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, out, make_scorer())
    assert not (out / "metadata.parquet").exists()
    with pytest.raises(InputError, match=r"metadata\.parquet is missing"):
        read_labelled(out)
    assert run(folder, out, make_scorer()).scored == {"brightness": 0}
    assert contents(out) == contents(run(folder, tmp_path / "fresh", make_scorer()).out)


def test_leftovers_of_a_killed_run_are_cleared(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid, alive in ((gone.pid, False), (os.getppid(), True)):
        staging = re.sub(r"-\d+-", f"-{pid}-", sibling(out / "images").name, count=1)
        (out / staging).mkdir()
        (out / staging / "a.png").touch()
        (out / staging.replace("images", "metadata.parquet")).touch()
        run(folder, out, make_scorer())
        # Another process may be writing what it has begun.
        begun = {staging, staging.replace("images", "metadata.parquet")} if alive else set()
        assert names(out) - OUTPUT == begun


def test_copies_do_not_change_with_the_originals(folder, tmp_path, make_scorer):
    run(folder, tmp_path / "out", make_scorer())
    before = contents(tmp_path / "out")
    for path in folder.rglob("*.png"):
        with path.open("r+b") as file:
            file.write(b"edited in place")
    assert contents(tmp_path / "out") == before


def test_hard_links_of_earlier_releases_become_copies(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer())
    (record, *_) = read_labelled(out)[0]
    (out / record.file).unlink()
    (out / record.file).hardlink_to(folder / record.extra["original"])
    assert run(folder, out, make_scorer()).written
    assert not (out / record.file).samefile(folder / record.extra["original"])


def test_a_link_in_the_folder_becomes_a_file(folder, tmp_path, picture, make_scorer):
    (folder / ".hidden").mkdir()
    picture(60).save(folder / ".hidden" / "real.png")
    (folder / "link.png").symlink_to(".hidden/real.png")
    (folder / "link.txt").write_text("linked")
    run(folder, tmp_path / "out", make_scorer())
    assert not any(path.is_symlink() for path in (tmp_path / "out" / "images").iterdir())


# What is refused.


def refused(match, folder, out, *with_scorers, **options):
    with pytest.raises(InputError, match=match) as caught:
        run(folder, out, *with_scorers, **options)
    assert "\n" not in str(caught.value)


def test_arguments(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    refused("scorers: none given", folder, out)
    refused("'brightness' is given twice", folder, out, make_scorer(), make_scorer())
    refused("batch_size: must be 1 or more, not 0", folder, out, make_scorer(), batch_size=0)
    refused("reward name 'Bad name'", folder, out, make_scorer("Bad name"))
    sound = make_scorer("loudness")
    sound.medium = "sound"
    refused("loudness: it scores an unknown medium 'sound'; one of: image", folder, out, sound)
    refused("no such folder", tmp_path / "gone", out, make_scorer())
    refused("one is inside the other", folder, folder, make_scorer())
    refused("one is inside the other", folder, folder / "out", make_scorer())
    refused("one is inside the other", folder / "more", folder, make_scorer())
    assert not out.exists()


def test_an_out_that_is_not_ours(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("dear")
    refused("already holds 'thesis.tex'", folder, out, make_scorer())
    (out / "scores-1-00000000.jsonl").write_text('{"my": "scores"}\n')
    refused("already holds", folder, out, make_scorer())
    assert (out / "scores-1-00000000.jsonl").read_text() == '{"my": "scores"}\n'
    refused("is a file", folder, out / "thesis.tex", make_scorer())
    assert len(os.listdir(out)) == 2


def test_an_out_that_holds_another_run(folder, tmp_path, make_scorer):
    RunFolder(tmp_path / "run", "train").begin({"seed": 0})
    refused("holds a run of ric train", folder, tmp_path / "run", make_scorer())
    assert os.listdir(tmp_path / "run") == ["run.json"]
    RunFolder(tmp_path / "texts", "label").begin({"medium": "text"})
    refused(r'holds a run with other medium \("text", now "image"\)', folder, tmp_path / "texts",
            make_scorer())  # fmt: skip


def test_too_few_pictures_or_nothing_to_steer(folder, tmp_path, make_scorer):
    class Constant(make_scorer):
        def _score(self, images, prompts):
            return [1.0] * len(images)

    refused("constant: .*every sample scores 1.0", folder, tmp_path / "a", Constant("constant"))
    for path in folder.rglob("*.png"):
        if path.name != "1.png":
            path.write_bytes(b"")
    fewer = "1 usable picture, at least 2 are needed; 9 skipped, '0.png' first: empty file"
    refused(fewer, folder, tmp_path / "b", make_scorer())
    for out in ("a", "b"):
        assert names(tmp_path / out) == {"run.json"}


def test_what_makes_sliders_hard_to_learn_is_said(tmp_path, picture, make_scorer):
    class Lookup(make_scorer):
        """The number in the caption."""

        needs_prompts = True

        def _score(self, images, prompts):
            return [float(prompt) for prompt in prompts]

    def labelled(name, scores):
        folder = tmp_path / name
        folder.mkdir()
        for i, score in enumerate(scores):
            picture(i, (8, 8)).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(str(score))
        return run(folder, tmp_path / f"{name} labelled", Lookup("number")).warnings

    few = "30 pictures are few: sliders are learned well from 500 and more"
    assert labelled("fine", range(30)) == (few,)
    assert labelled("outlier", [*range(29), 9000]) == (
        few,
        "number: 29.png of 30 pictures alone decides its scale, and the others lie close together "
        "on it; leave it out and label again",
    )
    rare = [i % 7 for i in range(500)]
    rare[100:104] = [1e4, -1e4, 2e4, -2e4]
    outlying, narrow = labelled("narrow", rare)
    assert outlying.startswith("number: 103.png and 1 more of 500 pictures alone decide its scale")
    assert narrow.startswith("number: its slider can hardly move, from -0.0")
    (same,) = labelled("same", [max(i, 560) for i in range(600)])
    assert same.startswith("number: 561 of 600 pictures have the same score, so its slider has ")
    shard = run(tmp_path / "fine", tmp_path / "shard", Lookup("number"), shard=(0, 2))
    assert shard.warnings == ()


def test_rewards_that_leave_nothing_to_trade_are_said(tmp_path, picture, make_scorer):
    class Lookup(make_scorer):
        """The number in the caption, upwards or downwards."""

        needs_prompts = True

        def _score(self, images, prompts):
            return [(-1) ** (self.name == "down") * float(prompt) for prompt in prompts]

    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(24):
        picture(i, (8, 8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(str(i))
    few, *opposed = run(folder, tmp_path / "a", Lookup("up"), Lookup("down")).warnings
    assert few.endswith("from 500 and more")
    assert opposed == [
        "up, down: nearly none of 24 pictures is above the median of both, so more of one is less "
        "of the other; add pictures that have both, or leave one out"
    ]
    _, *same = run(folder, tmp_path / "b", Lookup("up"), Lookup("twice")).warnings
    assert same == [
        "up, twice: nearly all of 24 pictures that are above the median of one are above that of "
        "the other, so their sliders do the same; leave one out"
    ]
    for i in range(18):
        (folder / f"{i}.png").unlink()
    (few,) = run(folder, tmp_path / "c", Lookup("up"), Lookup("down")).warnings
    single = "single pictures decide what the trade-offs between rewards are"
    assert few.endswith(f"500 and more; with fewer than 20, {single}")


# Shared work.


def test_shards_score_and_the_merge_publishes(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    seen = []
    for k in (2, 0, 1):
        scorer = make_scorer()
        report = run(folder, out, scorer, shard=(k, 3), batch_size=2)
        assert scorer.seen == [f"picture {i}" for i in range(10) if i // 2 % 3 == k]
        assert (report.count, report.scored) == (len(scorer.seen), {"brightness": len(scorer.seen)})
        assert (report.space, report.written) == (None, False)
        assert names(out) == {"run.json"}
        seen += scorer.seen
    assert len(seen) == 10 and len(journals(out)) == 3
    scorer = make_scorer()
    report = run(folder, out, scorer)
    assert (scorer.calls, report.scored, report.count) == (0, {"brightness": 0}, 10)
    assert names(out) == OUTPUT and len(journals(out)) == 3
    assert contents(out) == contents(run(folder, tmp_path / "alone", make_scorer()).out)


def test_the_merge_scores_what_no_shard_did(folder, tmp_path, make_scorer):
    out = tmp_path / "out"
    run(folder, out, make_scorer(), shard=(1, 4), batch_size=3)
    assert run(folder, out, make_scorer(), batch_size=3).scored == {"brightness": 7}
    assert run(folder, out, make_scorer(), shard=(3, 4)).scored == {"brightness": 0}
    assert contents(out) == contents(run(folder, tmp_path / "alone", make_scorer()).out)


def test_a_shard_says_what_it_skips_and_may_be_empty(folder, tmp_path, make_scorer):
    (folder / "3.png").write_bytes(b"")
    (folder / "0.png").write_bytes(b"")
    report = run(folder, tmp_path / "out", make_scorer(), shard=(1, 5), batch_size=2)
    assert (report.count, report.skipped) == (1, {"3.png": "empty file"})
    report = run(folder, tmp_path / "out", make_scorer(), shard=(15, 20))
    assert (report.count, report.skipped, report.scored) == (0, {}, {"brightness": 0})


def test_what_is_scored_together_does_not_depend_on_who_scores_it(folder, tmp_path, make_scorer):
    """A network's scores may differ in the last bits with what else is in the batch."""
    (folder / "3.png").write_bytes(b"")

    class Social(make_scorer):
        def _score(self, images, prompts):
            return np.array(super()._score(images, prompts)) + len(images) / 1000

    for k in range(2):
        run(folder, tmp_path / "shared", Social(), shard=(k, 2), batch_size=3)
    run(folder, tmp_path / "shared", Social(), batch_size=3)
    alone = run(folder, tmp_path / "alone", Social(), batch_size=3)
    assert alone.count == 9 and contents(alone.out) == contents(tmp_path / "shared")


@pytest.mark.parametrize("shard", [(3, 3), (-1, 2), (0, 0), (5, 2)])
def test_a_shard_that_does_not_exist(folder, tmp_path, make_scorer, shard):
    refused(
        f"shard: no shard {shard[0]} of {shard[1]}",
        folder,
        tmp_path / "out",
        make_scorer(),
        shard=shard,
    )
    assert not (tmp_path / "out").exists()


def test_a_run_inside_a_run(folder, tmp_path, make_scorer):
    """Another process scores all, publishes and ends while a batch is under way here."""

    class Nested(make_scorer):
        def _score(self, images, prompts):
            run(folder, tmp_path / "out", make_scorer())
            return super()._score(images, prompts)

    report = run(folder, tmp_path / "out", Nested())
    assert (report.count, report.written) == (10, False)
    assert names(tmp_path / "out") == OUTPUT


def test_where_two_runs_scored_differently_all_readers_use_the_same(folder, tmp_path, make_scorer):
    """A scorer on two machines may differ by rounding."""
    out = tmp_path / "out"

    class Nested(make_scorer):
        def _score(self, images, prompts):
            if not journals(out):
                run(folder, out, make_scorer())
                (first,) = journals(out)
                first.rename(out / "scores-0-00000000.jsonl")  # which is read first
            return np.asarray(super()._score(images, prompts)) + 1

    assert not run(folder, out, Nested()).written
    assert len(journals(out)) == 2
    assert not run(folder, out, make_scorer()).written


def test_progress_goes_to_stderr(folder, tmp_path, make_scorer, capsys):
    label_folder(folder, tmp_path / "out", [make_scorer()])
    captured = capsys.readouterr()
    assert captured.out == "" and "10/10" in captured.err
    run(folder, tmp_path / "out", make_scorer())
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_a_callback(folder, tmp_path, make_scorer, capsys):
    (folder / "3.png").write_bytes(b"")
    told = []
    with reporting(told.append):
        label_folder(folder, tmp_path / "out", [make_scorer()], batch_size=4)
    assert [one.done for one in told] == list(range(11))
    assert {(one.stage, one.total, one.unit) for one in told} == {("label", 10, "image")}
    assert capsys.readouterr() == ("", "")


def test_large_pictures_make_smaller_batches(folder, tmp_path, make_scorer, monkeypatch):
    from ric_diffusion.data import samples

    monkeypatch.setattr(samples, "BATCH_PIXELS", 3 * 12 * 12)
    scorer = make_scorer()
    run(folder, tmp_path / "out", scorer)
    assert scorer.calls == 4


def test_names_are_digests(folder, tmp_path, make_scorer):
    (folder / "1.png").rename(folder / "train.PNG")
    (folder / "1.txt").rename(folder / "train.txt")
    run(folder, tmp_path / "out", make_scorer())
    for path in (tmp_path / "out" / "images").iterdir():
        square = open_image(path).crop((2, 0, 14, 12))
        assert path.name == pixel_digest(square)[:32] + ".png"
    assert labelled.ORIGINAL == "original"
