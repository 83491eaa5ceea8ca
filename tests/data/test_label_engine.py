"""When several processes of this machine label, unless somebody says how many."""

import pytest

import scorers
from ric_diffusion.data import label_engine
from ric_diffusion.data.label_engine import workers_for
from scorers.parallel import on_cores
from support.shards import write_shards

LIGHT = [scorers.load("compressibility"), scorers.load("colorfulness"), scorers.load("brightness")]


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(label_engine, "cores", lambda: 4)


def test_one_for_each_core_but_not_for_each_input(tmp_path, cores, monkeypatch, make_scorer):
    shards = write_shards(tmp_path / "in", [[0], [1], [2]])
    assert workers_for(shards, LIGHT) == 1  # it takes longer to start another
    monkeypatch.setattr(label_engine, "WORTH", 1)
    assert workers_for(shards, LIGHT) == 3  # shards
    assert workers_for(shards, [*LIGHT, make_scorer()]) == 1  # who knows what that takes
    (tmp_path / "folder").mkdir()
    assert workers_for(tmp_path / "folder", LIGHT) == 1


def test_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(label_engine, "WORTH", 1)
    with on_cores(1):
        assert workers_for(write_shards(tmp_path / "in", [[0], [1]]), LIGHT) == 1
