"""Several samples of every prompt: the same bytes however they came about."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import read_folder
from ric_diffusion.io.errors import InputError
from ric_diffusion.training import prompt_samples
from ric_diffusion.training.prompt_samples import batches_of, draw_samples, seed_of

PROMPTS = ["red apple", "cat", "a pizza, grün", "rocket", "crow"]
SOURCE = {"model": "painter", "weights": "w"}


class Painter:
    """A picture is a function of prompt and seed, and of how many are drawn beside it, as rounding
    errors are. Of ``blank`` (prompt, n-th call for it) nothing is seen."""

    medium = IMAGE

    def __init__(self, stop_after=None, blank=()):
        self.calls, self.stop_after, self.blank = [], stop_after, blank

    def sample(self, prompts, targets, seeds):
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        assert targets == [{}] * len(prompts)
        self.calls.append(list(zip(prompts, seeds, strict=True)))
        return [self.draw(*one, len(prompts)) for one in self.calls[-1]]

    def draw(self, prompt, seed, beside):
        if (prompt, seed) in self.blank:
            return Image.new("RGB", (4, 4))
        digest = hashlib.sha256(f"{prompt} {seed} {beside}".encode()).digest()
        return Image.fromarray(np.frombuffer(digest + digest[:16], np.uint8).reshape(4, 4, 3))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(prompt_samples, "BATCH_SIZE", 4)


def draw(out, painter=None, prompts=PROMPTS, count=2, seed=0, shard=None, source=SOURCE):
    painter = painter or Painter()
    return draw_samples(painter, prompts, out, count=count, seed=seed, shard=shard, source=source)


def content(folder):
    """All but the journals and their names."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("drawn-")
    }


def test_the_folder_is_one_to_label(tmp_path):
    result = draw(tmp_path)
    assert (result.prompts, result.count, result.drawn, result.rejected) == (5, 10, 10, ())
    records = read_folder(tmp_path)
    assert [r.captions for r in records] == [(p,) for p in PROMPTS for _ in range(2)]
    assert [r.extra["number"] for r in records] == [0, 1] * 5
    for record in records:
        seed = record.extra["seed"]
        assert seed == seed_of(0, record.captions[0], record.extra["number"])
        with Image.open(tmp_path / record.file) as picture:
            expected = Painter().draw(
                record.captions[0], seed, 2 if "crow" in record.captions else 4
            )
            assert picture.tobytes() == expected.tobytes()
            told = {"prompt": record.captions[0], "seed": str(seed), "model": "painter"}
            assert picture.text == told
    assert json.loads((tmp_path / "rejected.json").read_text()) == []


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, stop_after):
    draw(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "out", Painter(stop_after))
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    again = Painter()
    assert draw(tmp_path / "out", again).drawn == 10 - 4 * stop_after
    assert len(again.calls) == 3 - stop_after
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_shards_draw_their_batches_and_the_last_call_makes_the_folder_whole(tmp_path):
    draw(tmp_path / "whole")
    first = draw(tmp_path / "out", shard=(1, 2))
    assert (first.count, first.prompts) == (4, 2)
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    assert draw(tmp_path / "out", shard=(0, 2)).drawn == 6
    last = Painter()
    assert draw(tmp_path / "out", last).count == 10 and not last.calls
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_prompts_and_samples_of_each_may_be_added(tmp_path):
    draw(tmp_path, prompts=PROMPTS[:3])
    before = content(tmp_path)
    more = Painter()
    assert draw(tmp_path, more, count=3).drawn == 9
    asked = sorted(call for calls in more.calls for call in calls)
    wanted = [(p, 2) for p in PROMPTS] + [(p, n) for p in PROMPTS[3:] for n in (0, 1)]
    assert asked == sorted((p, seed_of(0, p, n)) for p, n in wanted)
    after = content(tmp_path)
    assert all(after[name] == before[name] for name in before if name.suffix == ".png")
    assert [r.captions[0] for r in read_folder(tmp_path)] == [p for p in PROMPTS for _ in range(3)]
    # Fewer of them take nothing away.
    assert draw(tmp_path, prompts=PROMPTS[4:], count=1).count == 15
    assert len(read_folder(tmp_path)) == 15


def test_seeds_are_of_prompt_and_number_alone():
    seeds = {seed_of(s, p, n) for s in (0, 1) for p in PROMPTS for n in range(50)}
    assert len(seeds) == 500 and all(0 <= one < 2**48 for one in seeds)
    assert seed_of(0, "red apple", 0) == 47114573162800  # what folders were drawn with


def test_a_batch_holds_whole_prompts_or_a_part_of_one():
    assert [[n for _, n in batch] for batch in batches_of(["a", "b", "c"], 3, 7)] == [
        [0, 1, 2, 0, 1, 2],
        [0, 1, 2],
    ]
    assert [len(batch) for batch in batches_of(["a", "b"], 5, 4)] == [4, 1, 4, 1]


def test_blank_pictures_are_listed_and_not_written(tmp_path):
    blank = [("cat", seed_of(0, "cat", n)) for n in (0, 1)] + [("crow", seed_of(0, "crow", 1))]
    result = draw(tmp_path, Painter(blank=blank))
    assert (result.count, result.prompts) == (7, 5)
    assert [(r.prompt, r.number) for r in result.rejected] == [("cat", 0), ("cat", 1), ("crow", 1)]
    listed = json.loads((tmp_path / "rejected.json").read_text())
    assert listed[0] == {
        "prompt": "cat", "number": 0, "seed": blank[0][1], "reject_reason": "blank",
    }  # fmt: skip
    assert len(list((tmp_path / "images").iterdir())) == len(read_folder(tmp_path)) == 7
    again = Painter()
    assert draw(tmp_path, again).rejected == result.rejected and not again.calls


def test_a_model_that_draws_nothing_is_told_of(tmp_path):
    blank = [(p, seed_of(0, p, n)) for p in PROMPTS for n in (0, 1)]
    with pytest.raises(InputError, match="all of 10 samples rejected, the first as blank"):
        draw(tmp_path, Painter(blank=blank))


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"source": SOURCE | {"weights": "v"}}], ids=["seed", "weights"]
)
def test_other_settings_are_another_run(tmp_path, changes):
    draw(tmp_path)
    with pytest.raises(InputError, match="holds a run with other"):
        draw(tmp_path, **changes)


def test_a_picture_that_was_deleted_is_drawn_again(tmp_path):
    draw(tmp_path)
    lost = next((tmp_path / "images").iterdir())
    lost.unlink()
    assert draw(tmp_path).drawn == 1 and lost.exists()
