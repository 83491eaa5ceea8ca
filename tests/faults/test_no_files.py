"""Pipes and devices in the place of files: nobody waits for them, and they are named."""

import os
import shutil

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
SAID = "cannot be read (not a regular file)"


@pytest.fixture
def pipe(tmp_path):
    """pipe(name): one of that name in a folder of its own."""

    def make(name):
        path = tmp_path / "pipes" / name
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
        return path

    return make


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet", "0.tar"])
def test_label(ric, pipe, tmp_path, name):
    path = pipe(name)
    done = ric("label", path.parent, "--scorers", "colorfulness", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == f"ric label: {path}: {SAID}"  # of shards after a bar


def test_label_of_a_shard_with_a_table_beside_it(ric, pipe, tmp_path):
    path = pipe("0.parquet")
    path.with_suffix(".tar").write_bytes(bytes(10240))
    args = ["--scorers", "colorfulness", "--out", tmp_path / "out"]
    done = ric("label", path.with_suffix(".tar"), *args)
    assert done.code == 2 and done.err.endswith(f"{path}: {SAID}\n")


def test_score(ric, pipe):
    done = ric("score", pipe("a.png"), "--scorers", "clip_score:clip=emoji-clip")
    assert done.code == 2 and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--prompts", "config"])
def test_files_that_are_named(ric, pipe, model, tmp_path, option):
    path = pipe("file")
    if option == "config":
        done = ric("train", path, "--out", tmp_path / "out")
    else:
        done = ric("evaluate", *model, option, path, "--out", tmp_path / "out")
    assert done.code == 2 and f"{path}: {SAID}" in done.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metadata.parquet", "is missing; `ric label`"),
        ("manifest.json", SAID),
        ("framing.json", "is missing"),
    ],
)
def test_a_labelled_folder(root, tiny, ric, tmp_path, name, said):
    data = shutil.copytree(root / "labelled", tmp_path / "labelled")
    (data / name).unlink()
    os.mkfifo(data / name)
    config = tiny.config(root, "embedding") | {"data": str(data)}
    path = tiny.write_config(tmp_path / "config.yaml", config)
    done = ric("train", path, "--out", tmp_path / "out")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert name in done.err and said in done.err
