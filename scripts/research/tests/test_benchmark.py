"""What benchmark.py does for both benchmarks."""

import argparse

import pytest

from benchmark import run_benchmark
from ric_diffusion.io.errors import CollapseError, InputError
from scorers import ScorerError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("steps: 0"), 2),
        (ScorerError("clip_score: no weights"), 2),
        (CollapseError("round 2: prompt R-precision fell"), 1),
        (FloatingPointError("iteration 3: the loss is NaN"), 1),
        (OSError("disk full"), 1),
    ],
)
def test_what_a_run_ends_with_is_one_line(error, code, capsys):
    def run():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_benchmark(argparse.ArgumentParser("benchmark_alignment.py"), run)
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"benchmark_alignment.py: {error}\n"


def test_a_bug_is_a_traceback():
    def run():
        raise KeyError("points")

    with pytest.raises(KeyError):
        run_benchmark(argparse.ArgumentParser(), run)
