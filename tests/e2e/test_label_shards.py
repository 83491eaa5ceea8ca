"""`ric label` of shards, by several processes and by one."""

import numpy as np
from safetensors.numpy import load_file

from support.shards import write_shards, write_tar

SCORERS = ["--scorers", "compressibility:resize=none", "colorfulness"]


def test_two_parts_and_the_merge(ric, files, tmp_path):
    shards, out = write_shards(tmp_path / "in", [[0, 1, 2], [3, 1]]), tmp_path / "out"
    write_tar(shards / "00002.tar", []).write_bytes(b"no tar")
    for part, said in (("0/2", "3 pictures of part 0/2 done, 1"), ("1/2", "2 pictures of part")):
        done = ric("label", shards, *SCORERS, "--out", out, "--shard", part)
        assert done.code == 0 and said in done.out
    done = ric("label", f"{shards}/{{00000..00002}}.tar", *SCORERS, "--out", out)
    assert done.code == 0 and f"{out}: 4 pictures labelled, 2 skipped" in done.out
    assert "  1 same as an earlier one\n" in done.out
    alone = tmp_path / "alone"
    assert ric("label", shards, *SCORERS, "--out", alone).code == 0
    assert files(out) == files(alone)
    shared = tmp_path / "shared"
    done = ric("label", shards, *SCORERS, "--out", shared, "--workers", 2)
    assert done.code == 0 and f"{shared}: 4 pictures labelled, 2 skipped" in done.out
    assert files(shared) == files(alone)
    done = ric("label", shards, *SCORERS, "--out", shared, "--workers", 2, "--shard", "0/2")
    assert done.code == 2 and "shard: the engine shares the work itself" in done.err


def test_addresses_that_lead_nowhere(ric, tmp_path):
    for address, said in {
        f"{tmp_path}/{{0..3}}.tar": f"{tmp_path}/0.tar: no such file",
        "nowhere://x/0.tar": "nowhere://x/0.tar: cannot be read (Protocol not known: nowhere",
        "memory://gone/0.tar": "memory://gone/0.tar: no such file",
    }.items():
        done = ric("label", address, *SCORERS, "--out", tmp_path / "out")
        assert done.code == 2 and done.err.splitlines()[-1].startswith(f"ric label: {said}")


def test_training_on_shards_is_training_on_the_same_pictures(ric, root, tiny, tmp_path):
    tiny.write_pictures(tmp_path / "pictures")
    files = sorted((tmp_path / "pictures").glob("*.png"))
    for path in files:
        path.with_suffix(".txt").write_text(f"a picture of {path.stem}")
    (tmp_path / "pictures" / "metadata.jsonl").unlink(missing_ok=True)
    members = [
        (member.name, member.read_bytes())
        for path in files
        for member in (path, path.with_suffix(".txt"))
    ]
    for number, some in enumerate((members[:8], members[8:])):
        write_tar(tmp_path / "tars" / f"{number:05}.tar", some)
    weights = []
    for source in ("pictures", "tars"):
        out, run = tmp_path / f"{source}-labelled", tmp_path / f"{source}-run"
        assert ric("label", tmp_path / source, "--scorers", *tiny.SCORERS, "--out", out).code == 0
        settings = tiny.config(root, "embedding", data=str(out), prompts=[], where={})
        path = tiny.write_config(tmp_path / f"{source}.yaml", settings)
        assert ric("train", path, "--out", run).code == 0
        weights.append(load_file(run / "adapter" / "pytorch_lora_weights.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        np.testing.assert_array_equal(tensor, weights[1][name], err_msg=name)
    # What was labelled is what is trained on: a tar that changed since is refused by its member.
    tar = tmp_path / "tars-labelled" / "shards" / "00001.tar"
    data = bytearray(tar.read_bytes())
    data[600:700] = bytes(100)
    tar.write_bytes(data)
    done = ric("train", path, "--out", tmp_path / "again")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "00001.tar/" in done.err and done.err.endswith("run `ric label` again\n")
