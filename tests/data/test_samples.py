"""From records to samples: in order, each once, and with a reason for what is left out."""

import threading
from contextlib import closing

import pytest
from PIL import Image

from ric_diffusion.data import samples as samples_module
from ric_diffusion.data.framing import Framing
from ric_diffusion.data.medium import IMAGE, TEXT, Texts
from ric_diffusion.data.records import Record, read_folder
from ric_diffusion.data.samples import (
    AT_ONCE,
    SHARE,
    Sample,
    Unread,
    batches,
    in_threads,
    usable_samples,
)

WHOLE = Framing(rule="whole")


def texts(tmp_path, *rows):
    """Records of texts, one for each (prompt, text); several with one text share no file."""
    records = []
    for i, (prompt, text) in enumerate(rows):
        TEXT.write(text, tmp_path / f"{i}.txt")
        records.append(Record(file=f"{i}.txt", captions=(prompt,) if prompt else ()))
    return records


def unread(root, records):
    return [Unread(record=record, source=root / record.file) for record in records]


def read(root, records, medium):
    skipped = {}
    return list(usable_samples(unread(root, records), medium, WHOLE, skipped)), skipped


def test_pictures_come_in_the_order_of_the_records(folder):
    records = read_folder(folder)[::-1]
    samples, skipped = read(folder, records, IMAGE)
    assert [sample.record for sample in samples] == records and skipped == {}
    assert len({sample.digest for sample in samples}) == 10
    assert samples[0].digest == IMAGE.digest(samples[0].content)
    assert samples[0].pixels == 16 * 12


def test_one_picture_under_two_captions_is_a_duplicate(folder):
    (folder / "5.png").write_bytes((folder / "2.png").read_bytes())
    samples, skipped = read(folder, read_folder(folder), IMAGE)
    assert samples[5] is None and len([s for s in samples if s]) == 9
    assert skipped == {"5.png": "same as 2.png"}


def test_one_text_on_two_prompts_is_two_samples(tmp_path):
    rows = [("Why?", "So."), ("How?", "So."), ("Why?", "So."), ("How?", "Thus.")]
    samples, skipped = read(tmp_path, texts(tmp_path, *rows), TEXT)
    assert skipped == {"2.txt": "same as 0.txt"}
    assert len({sample.digest for sample in samples if sample}) == 3
    assert [sample.content for sample in samples if sample] == ["So.", "So.", "Thus."]
    assert samples[0].pixels == 0


def test_what_is_left_out_has_a_reason(tmp_path):
    records = texts(tmp_path, ("", "a"), ("b", " "), ("c", "d"))
    records += [
        Record(file="\udcff.txt", captions=("e",)),
        Record(file="gone.txt", captions=("e",)),
    ]
    samples, skipped = read(tmp_path, records, TEXT)
    assert [sample is not None for sample in samples] == [False, False, True, False, False]
    assert skipped == {
        "0.txt": "no caption or prompt",
        "1.txt": "empty",
        "\udcff.txt": "its name is not UTF-8; rename it",
        "gone.txt": "missing file",
    }


def test_reading_runs_only_a_little_ahead(tmp_path, monkeypatch):
    """Else a folder of millions would be in memory."""
    monkeypatch.setattr(samples_module, "cores", lambda: 4)
    seen = []

    class Counting(Texts):
        def read(self, source, suffix=""):
            seen.append(threading.current_thread())
            return super().read(source)

    records = texts(tmp_path, *((f"p{i}", f"t{i}") for i in range(200)))
    with closing(usable_samples(unread(tmp_path, records), Counting(), WHOLE, {})) as samples:
        assert next(samples).content == "t0"
    assert len(seen) < 40  # and the rest is cancelled
    assert threading.main_thread() not in seen


def test_an_error_that_is_no_sample_s_stops_the_reading(tmp_path):
    class Broken(Texts):
        def read(self, source, suffix=""):
            raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        read(tmp_path, texts(tmp_path, ("a", "b")), Broken())


def test_bytes_are_read_as_files_are(folder):
    records = read_folder(folder)
    files, _ = read(folder, records, IMAGE)
    items = [Unread(record=r, source=(folder / r.file).read_bytes()) for r in records]
    reason = Unread(record=Record(file="x", captions=("c",)), reason="not there")
    empty = Unread(record=Record(file="y", captions=("c",)), source=b"")
    skipped = {}
    found = list(usable_samples([reason, *items, empty], IMAGE, WHOLE, skipped))
    assert [s.digest for s in found[1:-1]] == [s.digest for s in files]
    assert found[1].data == items[0].source == files[0].data
    assert skipped == {"x": "not there", "y": "empty file"}


def test_threads_get_small_things_several_at_a_time_and_large_ones_alone():
    sizes = [SHARE - 1, 1] + [1] * AT_ONCE + [SHARE] * 3 + [SHARE // 2] * 4
    shares = list(samples_module._shares(sizes, lambda size: size))
    assert [len(share) for share in shares] == [2, AT_ONCE, 1, 1, 1, 2, 2]
    assert list(in_threads(str, sizes, lambda size: size)) == [str(size) for size in sizes]


def test_batches_of_at_most_so_many_records():
    made = [
        Sample(record=Record(file=str(i)), source=b"x", content="x", digest=str(i), stamp=(1, 1))
        for i in range(5)
    ]
    found = list(batches([made[0], None, *made[1:], None], 2))
    assert [[sample.digest for sample in batch] for batch in found] == [
        ["0"],
        ["1", "2"],
        ["3", "4"],
    ]
    assert list(batches([None], 2)) == []


def test_a_batch_ends_before_pictures_that_are_too_much_together(monkeypatch):
    monkeypatch.setattr(samples_module, "BATCH_PIXELS", 100)

    def picture(name, side):
        image = Image.new("RGB", (side, side))
        return Sample(
            record=Record(file=name), source=b"x", content=image, digest=name, stamp=(1, 1)
        )

    drawn = [picture("a", 6), None, picture("b", 6), picture("c", 9), picture("d", 12), None]
    drawn += [picture("e", 7), picture("f", 7), picture("g", 2)]
    found = [[s.record.file for s in batch] for batch in batches(drawn, 5)]
    assert found == [["a", "b"], ["c"], ["d"], ["e", "f"], ["g"]]
