"""The log goes on behind the step that a run is resumed from."""

import json

import pytest

from ric_diffusion.training.log import Log


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_scalars_are_lines(tmp_path):
    with Log(tmp_path / "out", 0) as log:
        log(1, loss=0.5, learning_rate=0.1)
        log(2, loss=0.25)
    assert lines(tmp_path / "out") == [
        {"step": 1, "loss": 0.5, "learning_rate": 0.1},
        {"step": 2, "loss": 0.25},
    ]
    assert list((tmp_path / "out" / "tensorboard").iterdir())


def test_what_was_logged_of_later_steps_is_dropped(tmp_path):
    with Log(tmp_path, 0) as log:
        for step in (2, 4, 6):
            log(step, loss=0.1 * step)
    before = (tmp_path / "log.jsonl").read_bytes()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # torn by a kill
    with Log(tmp_path, 4) as log:
        log(6, loss=0.1 * 6)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_line_is_there_before_the_log_is_closed(tmp_path):
    with pytest.raises(KeyboardInterrupt), Log(tmp_path, 0) as log:
        log(1, loss=0.5)
        assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]
        raise KeyboardInterrupt
