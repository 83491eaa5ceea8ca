"""The table of sliders by number of pictures: what is drawn, and what its rows say."""

import json
from pathlib import Path

import pytest

import how_many_pictures
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.io.errors import InputError
from support.scores import base_of, config_of, scores_of


def imagefolder(folder, count):
    lines = []
    for i in range(count):
        (folder / "style").mkdir(parents=True, exist_ok=True)
        (folder / "style" / f"{i}.png").write_bytes(bytes([i]))
        lines.append(json.dumps({"file_name": f"style/{i}.png", "text": f"number {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_more_pictures_hold_the_fewer(tmp_path):
    source = imagefolder(tmp_path / "all", 20)
    found = {}
    for count in (3, 8):
        out = tmp_path / str(count)
        how_many_pictures.subset(source, count, 0, out)
        lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
        found[count] = {line["file_name"] for line in lines}
        assert len(found[count]) == count
        for name in found[count]:
            assert (out / name).read_bytes() == (source / name).read_bytes()
    assert found[3] < found[8]
    with pytest.raises(InputError, match="has 20 pictures; ask for fewer"):
        how_many_pictures.subset(source, 21, 0, tmp_path / "no")


def test_rows():
    config = config_of()
    given = [scores_of(config, f"{n}", gain=n / 10, noise=0, seed=n) for n in (2, 9)]
    given.append(base_of(config))
    result = summarise(given, config, Path("report"), model="m", versions={})
    lines = how_many_pictures.table(result, [60, 500]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:4] for row in cells[:4]] == [
        [count, reward, "1.00", "1.00"]
        for count in ("60", "500")
        for reward in ("compressibility", "colorfulness")
    ]
    assert [cell for cell in cells[4] if cell] == ["none", cells[4][5]]
    asked = {s.reward: s.requested[-1] - s.requested[0] for s in result.methods[0].control}
    assert [float(row[4]) for row in cells[:4]] == pytest.approx(
        [gain * asked[row[1]] for gain, row in zip((0.2, 0.2, 0.9, 0.9), cells[:4], strict=True)],
        abs=0.006,
    )
