"""scripts/gpu_report.py measures passes, not what an encoder remembers."""

import sys

import pytest

from gpu_report import PARTS, encoding_rate, main


class Remembering:
    """As an Encoder: what was asked for last costs nothing the second time."""

    def __init__(self):
        self.last, self.passes = None, []

    def encode_images(self, images, batch_size):
        if images != self.last:
            self.passes.append((tuple(images), batch_size))
        self.last = images


def test_every_measured_call_is_a_pass():
    encoder = Remembering()
    assert encoding_rate(encoder, [1, 2, 3, 4], 2) > 0
    assert encoder.passes == [((1, 3), 2), ((2, 4), 2), ((1, 3), 2)]


def test_what_has_no_time_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--small", "--minutes", "0.1"])
    monkeypatch.chdir(tmp_path)
    main()
    report = (tmp_path / "gpu-report" / "gpu_report.md").read_text()
    assert "`python scripts/gpu_report.py --small --minutes 0.1`" in report
    assert "no time was left of 0.1 minutes" in report


@pytest.mark.parametrize(
    ("option", "number", "line"),
    [
        *(("--minutes", minutes, "is not above 0") for minutes in ("0.0", "-1.0", "nan")),
        *(("--part", part, f"is not 0 to {len(PARTS) - 1}") for part in ("-1", "99")),
    ],
)
def test_bad_numbers(monkeypatch, tmp_path, capsys, option, number, line):
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", option, number])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"{option}: {number} {line}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
