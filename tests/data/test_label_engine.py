"""Who labels which shard: when several processes do, and what they are told."""

import json
import os
from pathlib import Path

import pytest

import scorers
from ric_diffusion.data import label_engine
from ric_diffusion.data.framing import Framing
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.label_engine import SHARDS, score_on, workers_for
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
    light = make_scorer()
    light.light = True
    assert workers_for(shards, [light, *LIGHT]) == 3
    (tmp_path / "folder").mkdir()
    assert workers_for(tmp_path / "folder", LIGHT) == 1


def test_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(label_engine, "WORTH", 1)
    with on_cores(1):
        assert workers_for(write_shards(tmp_path / "in", [[0], [1]]), LIGHT) == 1


class Here:
    """An engine whose workers are this process."""

    workers = 2

    def __init__(self):
        self.called, self.loaded = [], None

    def map(self, task, items, *, here, elsewhere, called):
        self.loaded = elsewhere
        for item in items:
            self.called.append(called(item))
            yield task(here, json.loads(json.dumps(item)))


@pytest.mark.parametrize("sharded", [False, True])
def test_shards_are_told_as_plain_data_and_merged_to_what_one_call_makes(
    tmp_path, folder, monkeypatch, make_scorer, sharded
):
    if sharded:
        folder = write_shards(tmp_path / "in", [[0, 1, 2], [3, 4], [5]])
    framing = Framing(rule="whole", max_aspect=3.0)
    label_folder(folder, tmp_path / "alone", [make_scorer()], framing=framing, progress=False)
    monkeypatch.chdir(tmp_path)
    engine, scorer, out = Here(), make_scorer(), Path("shared")
    asked = {"framing": framing, "captions": "whole"}
    source = os.path.relpath(folder)
    scored = score_on(engine, source, out, [scorer], ["colorfulness"], **asked)
    count = 3 if sharded else SHARDS * engine.workers
    assert engine.called == [f"shard {number}/{count}" for number in range(count)]
    assert scored == {"brightness": 6 if sharded else 10}
    assert [one.name for one in engine.loaded()] == ["colorfulness"]
    report = label_folder(source, out, [scorer], framing=framing, progress=False)
    assert not sum(report.scored.values())
    names = ("metadata.parquet", "reward_space.json", "framing.json")
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
