"""Samples that are members of tar files: found by their bytes' place, and checked like files."""

import os
import tarfile
from dataclasses import replace

import pytest

from ric_diffusion.data.framing import Framing
from ric_diffusion.data.images import pixel_digest
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import Record, read_folder, read_labelled, write_metadata
from ric_diffusion.data.samples import seen
from ric_diffusion.data.unchanged import STAMPS, check_unchanged
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import full_stamp, stamp, write_json
from ric_diffusion.io.manifest import write_manifest
from ric_diffusion.rewards import RewardSpace


@pytest.fixture
def labelled(tmp_path, picture):
    """A labelled folder with the pictures 0 to 3 in two tar files."""
    folder, records = tmp_path / "labelled", []
    (folder / "shards").mkdir(parents=True)
    for shard in range(2):
        path = folder / "shards" / f"{shard:05d}.tar"
        names = [f"{2 * shard + i}.png" for i in range(2)]
        with tarfile.open(path, "w") as tar:
            for name in names:
                picture(int(name[0])).save(tmp_path / name)
                tar.add(tmp_path / name, arcname=f"sub/{name}")
        with tarfile.open(path) as tar:
            for member, name in zip(tar.getmembers(), names, strict=True):
                number = int(name[0])
                digest = IMAGE.digest(seen(tmp_path / name, IMAGE, Framing()))[:32]
                records.append(
                    Record(
                        file=f"shards/{shard:05d}.tar/{member.name}",
                        captions=(f"picture {number}",),
                        scores={"x": float(number)},
                        extra={"digest": digest},
                        span=(member.offset_data, member.size),
                    )
                )
    write_metadata(folder, records)
    RewardSpace.fit({"x": [0.0, 1.0, 2.0, 3.0]}).save(folder / "reward_space.json")
    write_json(folder / "framing.json", {"rule": "square"})
    write_manifest(folder, ["metadata.parquet", "reward_space.json", "framing.json"])
    tars = [f"shards/{i:05d}.tar" for i in range(2)]
    write_json(folder / STAMPS, {name: stamp(folder / name) for name in tars})
    return folder


def test_members_are_read_from_their_place(labelled, picture):
    records, _ = read_labelled(labelled)
    assert [record.container for record in records] == [f"shards/{i:05d}.tar" for i in (0, 0, 1, 1)]
    for number, record in enumerate(records):
        assert record.captions == (f"picture {number}",) and record.scores == {"x": number}
        assert record.stamp == full_stamp(labelled / record.container)
        image = IMAGE.read(record.source(labelled))
        assert pixel_digest(image) == pixel_digest(picture(number))
    assert read_folder(labelled) == records


def check(labelled, cache):
    check_unchanged(labelled, read_labelled(labelled)[0], IMAGE, cache)


def test_a_tar_file_as_it_was_labelled_is_not_read(labelled, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ric_diffusion.data.unchanged.seen", lambda *args: pytest.fail("read"))
        check(labelled, tmp_path / "cache")
    for path in (labelled / "shards").iterdir():
        os.utime(path, (1, 1))
    check(labelled, tmp_path / "cache")
    assert (tmp_path / "cache" / STAMPS).exists()
    monkeypatch.setattr("ric_diffusion.data.unchanged.seen", lambda *args: pytest.fail("read"))
    check(labelled, tmp_path / "cache")


def test_a_member_that_changed_is_named(labelled, tmp_path):
    first = read_labelled(labelled)[0][2]
    path = labelled / first.container
    data = bytearray(path.read_bytes())
    other = read_labelled(labelled)[0][3]
    a, b = first.span, other.span
    content = bytes(data[b[0] : b[0] + b[1]])
    data[a[0] : a[0] + a[1]] = content[: a[1]].ljust(a[1], b"\0")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"00001\.tar/sub/2\.png: .*; run `ric label` again"):
        check(labelled, tmp_path / "cache")


def test_a_tar_file_that_is_gone_or_cut_short(labelled):
    path = labelled / "shards" / "00001.tar"
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(InputError, match=r"2 of 4 pictures missing, 'shards/00001.tar/sub/2"):
        read_labelled(labelled)
    path.unlink()
    with pytest.raises(InputError, match=r"2 of 4 pictures missing, 'shards/00001.tar/sub/2"):
        read_labelled(labelled)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"span": (-5, 10)}, "tar_offset is -5 and tar_size 10; label again"),
        ({"span": (0, None)}, "tar_offset is 0 and tar_size None; label again"),
        ({"file": "images/x.png"}, "'images/x.png' is in no tar file; label again"),
        ({"file": "../out.tar/x.png"}, "leads out of the folder; refused"),
    ],
)
def test_places_that_cannot_be(labelled, change, said):
    records, _ = read_labelled(labelled)
    write_metadata(labelled, [replace(records[0], **change), *records[1:]])
    write_manifest(labelled, ["metadata.parquet", "reward_space.json"])
    with pytest.raises(InputError, match=said):
        read_labelled(labelled)


def test_a_tar_file_that_leads_out_of_the_folder(labelled, tmp_path):
    path = labelled / "shards" / "00001.tar"
    path.rename(tmp_path / "out.tar")
    path.symlink_to(tmp_path / "out.tar")
    with pytest.raises(InputError, match="leads out of"):
        read_labelled(labelled)
