"""How sharded input is named and found."""

import uuid

import pytest

from ric_diffusion.data.input_shards import InputShard, find_shards
from ric_diffusion.io.errors import InputError
from support.shards import sample, write_tar


def names(source):
    return [shard.name for shard in find_shards(source)]


def touch(folder, *files):
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_a_folder_of_tars_with_tables_beside_them(tmp_path):
    folder = touch(tmp_path, "00001.tar", "00000.tar", "00000.parquet", ".x.tar", "_stats.json")
    found = find_shards(folder)
    assert [(shard.name, shard.file) for shard in found] == [
        ("00000", "00000.tar"),
        ("00001", "00001.tar"),
    ]
    assert found[0].is_tar and found[0].address == f"{tmp_path}/00000.tar"
    assert found[0].beside(".parquet").stamp() == [1, (folder / "00000.parquet").stat().st_mtime_ns]
    assert found[1].beside(".parquet").stamp() is None


def test_parquet_of_the_hub_and_a_labelled_folder(tmp_path):
    hub = touch(tmp_path / "hub", "README.md", "data/b-00001.parquet", "data/a-00000.parquet")
    assert names(hub) == ["a-00000", "b-00001"]
    assert not find_shards(hub)[0].is_tar
    assert names(touch(tmp_path / "flat", "x.parquet")) == ["x"]
    labelled = touch(
        tmp_path / "labelled",
        *("metadata.parquet", "reward_space.json", "shards/0.tar", "shards/0.parquet"),
    )
    assert names(labelled) == ["0"]


def test_folders_of_files_have_none(tmp_path):
    assert find_shards(touch(tmp_path / "a", "1.png", "backup.tar")) == []
    assert find_shards(touch(tmp_path / "b", "metadata.jsonl", "x.tar", "d/1.png")) == []
    assert find_shards(touch(tmp_path / "c", "metadata.parquet", "d/1.png")) == []
    assert find_shards(tmp_path / "gone") == []


def test_patterns(tmp_path):
    touch(tmp_path, "a/00.tar", "a/01.tar", "b/00.tar", "b/01.tar", "c.parquet")
    assert names(f"{tmp_path}/a/{{00..01}}.tar") == ["00", "01"]
    assert names(f"{tmp_path}/{{b,a}}/{{00..01}}.tar") == ["b-00", "b-01", "a-00", "a-01"]
    assert names(f"{tmp_path}/*/01.tar") == ["a-01", "b-01"]
    assert names(tmp_path / "c.parquet") == ["c"]
    touch(tmp_path, "set [v2]/0?.tar", "set [v2]/01.tar", "set v/03.tar")
    assert names(f"{tmp_path}/set [v2]/*.tar") == ["01", "0?"]
    assert names(f"{tmp_path}/set [v2]/0?*.tar") == ["0?"]
    for pattern, said in {
        "a/{00..02}.tar": f"{tmp_path}/a/02.tar: no such file",
        "gone.tar": "gone.tar: no such file",
        "gone*.tar": "no such files",
        "a/{01..00}.tar": "counts down",
        "a/{00,00}.tar": "00.tar: named twice",
    }.items():
        with pytest.raises(InputError, match=said.replace("*", r"\*")):
            find_shards(f"{tmp_path}/{pattern}")


def test_addresses(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory, root = fsspec.filesystem("memory"), uuid.uuid4().hex
    data = write_tar(tmp_path / "0.tar", sample("a", 0)).read_bytes()
    memory.pipe({f"/{root}/{i}.tar": data for i in range(2)})
    memory.pipe(f"/{root}/0.parquet", b"x")
    for source in (f"memory://{root}", f"memory://{root}/*.tar", f"memory://{root}/{{0..1}}.tar"):
        found = find_shards(source)
        assert [shard.name for shard in found] == ["0", "1"]
        with found[0].open() as file:
            assert file.read() == data
    assert found[0].stamp() == found[0].stamp() != found[1].stamp()
    assert found[0].beside(".parquet").stamp() and not found[1].beside(".parquet").stamp()
    assert found[0].changed_ns == 0
    assert names(f"file://{tmp_path}/0.tar") == ["0"]
    for address, said in {
        "nowhere://x": "Protocol not known: nowhere",
        f"memory://{root}/gone": "neither a folder with .tar or .parquet",
    }.items():
        with pytest.raises(InputError, match=said):
            find_shards(address)
    memory.mkdir(f"/{root}/empty")
    with pytest.raises(InputError, match=r"no \.tar or \.parquet files in it"):
        find_shards(f"memory://{root}/empty")
    gone = InputShard(name="x", address=f"memory://{root}/x.tar")
    assert gone.stamp() is None
    with pytest.raises(InputError, match="no such file"):
        gone.open()
