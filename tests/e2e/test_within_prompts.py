"""Rewards compared within a prompt, from drawn pictures to a report, through the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ric_diffusion import api
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.standard import records_groups, records_z
from ric_diffusion.evaluation import metrics
from ric_diffusion.models.adapted import AdaptedBackend
from ric_diffusion.rewards import RewardSpace

PROMPTS = ["red apple", "cat face", "rocket", "pizza"]


@pytest.fixture(scope="module")
def made(root, tiny, tmp_path_factory):
    """drawn/, labelled/, run/ and prompts.txt of the tiny model."""
    folder = tmp_path_factory.mktemp("within")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    drawn = ["sample-prompts", "--model", root / "model", "--prompts", folder / "prompts.txt"]
    commands = [
        [*drawn, "-k", 4, "--steps", 2, "--out", folder / "drawn"],
        ["label", folder / "drawn", "--scorers", *tiny.SCORERS, "--centre-by", "prompt",
         "--out", folder / "labelled"],
        ["train", folder / "c.yaml", "--out", folder / "run"],
    ]  # fmt: skip
    loop = {"steps": 2, "batch_size": 4, "precision": "fp32"}
    tiny.write_config(
        folder / "c.yaml",
        tiny.config(root, "embedding", data=str(folder / "labelled"), loop=loop, prompts=[]),
    )
    for command in commands:
        assert tiny.main([str(word) for word in command]) == 0
    return folder


def test_pictures_are_drawn_and_compared_within_their_prompts(made):
    records, space = read_labelled(made / "labelled")
    assert len(records) == 16 and {r.captions[0] for r in records} == set(PROMPTS)
    assert space.centred == space.names
    z = records_z(records, space)
    assert z.std(axis=0) == pytest.approx([1, 1])
    raw = np.array([[r.scores[n] for n in space.names] for r in records])
    for prompt in PROMPTS:
        rows = [i for i, r in enumerate(records) if r.captions[0] == prompt]
        for column in range(2):  # in a prompt, z rises with the score
            order = np.argsort(raw[rows, column])
            assert (np.diff(z[rows, column][order]) >= 0).all()


def test_the_adapter_and_its_card_say_so(made):
    adapter = made / "run" / "adapter"
    labelled = RewardSpace.load(made / "labelled" / "reward_space.json")
    assert Adapter.load(adapter).space == labelled
    assert (adapter / "ric_adapter.json").stat().st_size < 20_000
    card = (adapter / "README.md").read_text()
    assert "| compressibility | kB, within its prompt |" in card
    assert "compared within its prompt with the others of it" in card


def test_training_compares_with_all_records_also_those_it_leaves_out(made, tmp_path):
    records, space = read_labelled(made / "labelled")
    backend = AdaptedBackend()
    backend.adopt(SimpleNamespace(adapter=Adapter.load(made / "run" / "adapter")))
    some = records[:3]
    backend.set_records(some, tmp_path, records_groups(records, space))
    assert backend.z == pytest.approx(records_z(records, space)[:3])
    backend.set_records(some, tmp_path)
    assert backend.z == pytest.approx(records_z(some, space))
    assert not np.allclose(backend.z, records_z(records, space)[:3])


def test_a_report_and_a_sweep_compare_their_own_samples(made, root, ric, tmp_path, monkeypatch):
    resamples = metrics.resamples  # a thousand draws of tiny data would take most of the time
    monkeypatch.setattr(metrics, "resamples", lambda shape, n, seed: resamples(shape, 20, seed))
    report = tmp_path / "report"
    model = ["--model", root / "model", "--adapter", made / "run" / "adapter"]
    done = ric("evaluate", *model, "none", "--prompts", made / "prompts.txt", "--points", 2,
               "--seeds", 2, "--steps", 1, "--out", report)  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads((report / "metrics.json").read_text())
    assert [r["unit"] for r in told["rewards"]] == [
        "kB, within its prompt",
        "M3, within its prompt",
    ]
    obtained = [
        [point["obtained"][name]["value"] for point in method["points"]]
        for method in told["methods"]
        for name in ("compressibility", "colorfulness")
    ]
    assert np.isfinite(np.concatenate(obtained)).all()
    drawn = api.sweep(root / "model", "pizza", adapter=made / "run" / "adapter", points=3,
                      sampling={"steps": 1})  # fmt: skip
    scores = np.array([[*point.scores.values()] for point in drawn.points])
    space = RewardSpace.load(made / "labelled" / "reward_space.json")
    z = [[*point.obtained.values()] for point in drawn.points]
    assert np.array(z) == pytest.approx(space.normalize(scores, ["pizza"] * 3))


def test_one_picture_has_scores_and_none_to_compare_with(made, root):
    [found] = api.generate(
        root / "model", "pizza", adapter=made / "run" / "adapter", sampling={"steps": 1}
    )
    assert found.obtained == {"compressibility": None, "colorfulness": None}
    assert all(np.isfinite(score) for score in found.scores.values())


def test_adapters_that_compare_differently_are_not_compared(made, root, refused):
    refused(
        "compressibility was compared among all samples, in {run} within its prompt".replace(
            "{run}", str(made / "run" / "adapter")
        ),
        "evaluate", "--model", "{root}/model", "--adapter", made / "run" / "adapter",
        "{root}/embedding/adapter", "--prompts", made / "prompts.txt", "--out", "report",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ("--model no-such: no such", ["--model", "no-such", "--prompts", "a_file", "--out", "o"]),
        ("no such file", ["--model", "{root}/model", "--prompts", "nothing.txt", "--out", "o"]),
        ("--shard: '2/2'", ["--prompts", "a_file", "--out", "o", "--shard", "2/2"]),
        ("-k/--count: '0'", ["--prompts", "a_file", "--out", "o", "-k", "0"]),
        ("--out a_file", ["--prompts", "a_file", "--out", "a_file"]),
    ],
)
def test_bad_input(refused, root, said, args):
    refused(said, "sample-prompts", *args)
