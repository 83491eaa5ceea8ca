"""The sizing table: what it multiplies, and that a picture's bytes are those that are written."""

import sizing


def test_the_table_multiplies():
    rates = sizing.Rates(score=0.036, merge=0.0018, metadata=250, copy=80_000)
    lines = sizing.table(rates, [1, 10], rewards=2).splitlines()
    assert lines[0].startswith("| pictures | score, 1 core | score, 10 cores | merge, 1 core |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| 1e{n}" for n in range(4, 10)]
    assert lines[4] == "| 1e6 | 10.0 h | 1.0 h | 30.0 min | 56 MB | 250 MB | 80 GB |"
    assert lines[7] == "| 1e9 | 10,000.0 h | 1,000.0 h | 500.0 h | 56 GB | 250 GB | 80 TB |"


def test_a_picture_is_measured(tmp_path):
    rates = sizing.measure(tmp_path, ["colorfulness"], 6, 32)
    tars = [(tmp_path / "large" / str(n) / "out/shards/00000.tar").stat().st_size for n in (6, 12)]
    assert rates.copy == (tars[1] - tars[0]) / 6
    assert 50 < rates.metadata < 2000
