"""scripts/research/benchmark_control.py on the tiny model: every figure, once."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import benchmark_control

POINTS, NAMES = 3, 2
BARS = {  # of each reward, then of the whole
    "Spearman, requested against mean obtained",
    "the same per picture, median",
    "span of the mean, z",
}


def colours(images, batch_size=64):
    """Instead of a classifier's features: mean colours, as directions."""
    means = np.array([np.asarray(image.convert("RGB"), float).mean((0, 1)) for image in images])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_every_figure_is_measured_and_compared_with_its_bar(root, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\npizza\n")
    monkeypatch.setattr(benchmark_control, "PROMPTS", prompts)
    monkeypatch.setattr(benchmark_control, "SEEDS", [1001])
    monkeypatch.setattr(benchmark_control, "POINTS", POINTS)
    monkeypatch.setattr(benchmark_control, "RETRIEVED_NAMES", NAMES)
    monkeypatch.setattr(benchmark_control, "efficientnet_features", colours)
    for name, value in {"STEPS": 3, "HALVED": 1, "PASSES": 1, "ASKED": 2}.items():
        monkeypatch.setattr(benchmark_control.accuracy, name, value)
    out = tmp_path / "report"
    given = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    given += ["--data", root / "pictures", "--out", out]
    given = ["benchmark_control.py", *map(str, given)]
    monkeypatch.setattr(sys, "argv", given)
    benchmark_control.main()

    parts = benchmark_control.PARTS
    figures = {name: json.loads((out / f"{name}.json").read_text()) for name in parts}
    rewards = [found["name"] for found in figures["control"]]
    assert rewards == ["compressibility", "colorfulness"]
    for found in figures["control"]:
        assert len(found["requested"]) == len(found["means"]) == POINTS
        assert found["requested"] == sorted(found["requested"])
        assert -1 <= found["of_means"] <= 1 and math.isfinite(found["span"])
    assert figures["tradeoff"]["mapping"] == "front" and len(figures["tradeoff"]["means"]) == POINTS
    assert set(figures["retrieval"]) == {"base", "sliders"}
    assert all(ratio > 0 for ratio in figures["overhead"].values())

    # Nothing that the tiny model was asked for rises, unless by chance.
    for found in figures["accuracy"]:
        assert found["name"] in [*rewards, "both"] and 0 <= found["inside"] <= 1
        methods = ["open loop", "calibrated on average", "calibrated for the prompt", "refine=1"]
        assert list(found["errors"]) == list(found["outside"]) == methods
    calibrated = [found["name"] for found in figures["accuracy"]]

    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    rows = [line[2:-2].split(" | ") for line in lines][2:]
    assert {f"{name}: {bar}" for name in rewards for bar in BARS} <= {row[0] for row in rows}
    assert len(rows) == 2 * len(BARS) + 2 * 2 + 2 + 2 + 8 * len(calibrated)
    sheets = ["samples", "preference", "retrieval-base", "retrieval-sliders"]
    for name in [*sheets, *(f"control-{name}" for name in rewards)]:
        with Image.open(out / f"{name}.png") as image:
            image.load()

    monkeypatch.delattr(benchmark_control, "run_sweep")  # what was measured is not measured again
    monkeypatch.delattr(benchmark_control, "retrieval_rate")
    benchmark_control.main()
    assert capsys.readouterr().out == printed
    monkeypatch.setattr(sys, "argv", [*given, "--only", "tradeoff", "overhead"])
    benchmark_control.main()
    some = [row for row in rows if row[0].startswith(("preference sweep", "time"))]
    assert capsys.readouterr().out.splitlines()[2:] == [f"| {' | '.join(row)} |" for row in some]
    few = tmp_path / "few"
    few.mkdir()
    Image.new("RGB", (64, 64), "red").save(few / "a.png")
    (few / "a.txt").write_text("red apple")
    bare = tmp_path / "bare"
    shutil.copytree(few, bare)
    Image.new("RGB", (64, 64), "blue").save(bare / "b.png")
    for more, said in (
        (["--mapping", "linear"], 'mapping ("front", now "linear")'),
        (["--model", "smollm2"], "--model smollm2: makes texts; name one that makes pictures"),
        (["--data", few], "few: has 1 different captions; retrieval takes"),
        (["--data", bare], "bare: b.png has no caption; give each picture one"),
    ):
        monkeypatch.setattr(sys, "argv", [*given, *map(str, more)])
        with pytest.raises(SystemExit) as caught:
            benchmark_control.main()
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*given[:3], *given[5:]])  # without --adapter
    with pytest.raises(SystemExit):
        benchmark_control.main()
    assert "comes without an adapter; give --adapter" in capsys.readouterr().err
