"""A model responds to prompts: what it is asked, what is written, and how it goes on."""

import json

import pytest
import torch

from ric_diffusion.data.medium import TEXT
from ric_diffusion.data.records import read_folder
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import COST
from ric_diffusion.training.self_sample import self_sample


class Echo:
    """Says its word and the prompt; is interrupted after some batches."""

    medium = TEXT

    def __init__(self, word, batches=99):
        self.word, self.batches, self.asked = word, batches, []
        self.net = torch.nn.Identity()

    def sample(self, prompts, targets, seeds):
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches -= 1
        self.net(torch.zeros(len(prompts), 3))
        assert targets == [{}] * len(prompts)
        self.asked += seeds
        return [f"{self.word} {p} {s}" for p, s in zip(prompts, seeds, strict=True)]

    def network(self):
        return self.net


def sample(out, cold, hot, prompts=("a", "b", "c"), **changes):
    settings = {"per_prompt": 2, "seed": 5, "batch_size": 2, "source": {"by": "echo"}, **changes}
    return self_sample({"cold": cold, "hot": hot}, prompts, out, **settings)


def texts_of(out):
    return [TEXT.read(out / record.file) for record in read_folder(out)]


def contents(folder):
    """Whatever a run left that says nothing of processes and time."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".jsonl" and path.name != COST
    }


def test_every_sampler_responds_to_every_prompt_in_turn(tmp_path):
    assert sample(tmp_path / "out", Echo("c"), Echo("h")) == 12
    records = read_folder(tmp_path / "out")
    assert texts_of(tmp_path / "out")[:6] == ["c a 5", "c b 5", "c c 5", "c a 6", "c b 6", "c c 6"]
    assert [r.captions[0] for r in records] == ["a", "b", "c"] * 4
    assert records[7].extra == {"sampler": "hot", "hint": "", "seed": 5}


def test_hints_are_said_in_turn_and_not_recorded(tmp_path):
    sample(tmp_path / "out", Echo("c"), Echo("h"), hints=["", "Be brief.", "Be sad."])
    records = read_folder(tmp_path / "out")
    assert texts_of(tmp_path / "out")[:4] == [
        "c a 5", "c b Be brief. 5", "c c Be sad. 5", "c a Be brief. 6",
    ]  # fmt: skip
    assert [r.captions[0] for r in records] == ["a", "b", "c"] * 4
    assert [r.extra["hint"] for r in records if r.captions == ("a",)] == [
        "", "Be brief.", "Be sad.", "",
    ]  # fmt: skip


def test_after_an_interruption_it_goes_on_where_it_was(tmp_path):
    sample(tmp_path / "whole", Echo("c"), Echo("h"))
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "out", Echo("c"), Echo("h", batches=1))
    assert not (tmp_path / "out" / "metadata.parquet").exists()
    (journal,) = (tmp_path / "out").glob("responses-*.jsonl")
    with journal.open("a") as file:
        file.write('{"first": 8, "resp')  # torn by the kill
    cold, hot = Echo("c"), Echo("h")
    assert sample(tmp_path / "out", cold, hot) == 12
    assert (cold.asked, hot.asked) == ([], [5, 6, 6, 6])
    costs = [json.loads((tmp_path / run / COST).read_text()) for run in ("whole", "out")]
    assert [cost["forwards"] for cost in costs] == [12, 12] and costs[1]["seconds"] > 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_another_batch_size_draws_nothing_twice(tmp_path):
    sample(tmp_path / "whole", Echo("c"), Echo("h"))
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "out", Echo("c"), Echo("h", batches=1))
    cold, hot = Echo("c"), Echo("h")
    sample(tmp_path / "out", cold, hot, batch_size=3)
    assert (cold.asked, hot.asked) == ([], [5, 6, 6, 6])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 6}, r"seed \(5, now 6\)"),
        ({"source": {"by": "another"}}, r'source\.by \("echo", now "another"\)'),
        ({"prompts": ("a", "b")}, "prompts"),
        ({"hints": ["Be brief."]}, "hints"),
        ({"per_prompt": 3}, r"per_prompt \(2, now 3\)"),
    ],
)
def test_other_responses_are_refused_with_what_differs(tmp_path, change, told):
    sample(tmp_path / "out", Echo("c"), Echo("h"))
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=f"holds a run with other {told}") as error:
        sample(tmp_path / "out", Echo("c"), Echo("h"), **change)
    assert "\n" not in str(error.value) and contents(tmp_path / "out") == before


def test_no_turns_are_refused(tmp_path):
    for number in (-1, 2**63 - 1, 2**70):
        with pytest.raises(InputError, match=r"seed .*: give a whole number from 0 to"):
            sample(tmp_path / "seeds", Echo("c"), Echo("h"), per_prompt=2, seed=number)
        assert not (tmp_path / "seeds").exists()
    with pytest.raises(InputError, match="per_prompt is 0"):
        sample(tmp_path / "out", Echo("c"), Echo("h"), per_prompt=0)
    assert not (tmp_path / "out").exists()
