"""`ric label` of shards, by several processes and by one."""

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


def test_addresses_that_lead_nowhere(ric, tmp_path):
    for address, said in {
        f"{tmp_path}/{{0..3}}.tar": f"{tmp_path}/0.tar: no such file",
        "nowhere://x/0.tar": "nowhere://x/0.tar: cannot be read (Protocol not known: nowhere",
        "memory://gone/0.tar": "memory://gone/0.tar: no such file",
    }.items():
        done = ric("label", address, *SCORERS, "--out", tmp_path / "out")
        assert done.code == 2 and done.err.splitlines()[-1].startswith(f"ric label: {said}")
