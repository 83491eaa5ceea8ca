"""The verbs from Python: typed results, progress, and errors that name the argument."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import ric_diffusion
import scorers
from ric_diffusion import api
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.api import LoopConfig, OnlineConfig, OnlineRun, TrainConfig
from ric_diffusion.cli.arguments import as_option
from ric_diffusion.cli.parser import build_parser
from ric_diffusion.data.framing import Framing
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.diffusion.families.sd import StableDiffusion
from ric_diffusion.training.guard import GuardConfig
from support.numbered import sample_file

VERBS = ["label", "train", "online", "evaluate", "calibrate", "generate", "sweep", "score"]
VERBS += ["adopt", "export"]
SCORERS = ["compressibility:resize=none", "colorfulness"]


class Seen(list):
    """A progress callback that keeps what it was told."""

    def __call__(self, progress):
        self.append(progress)

    def of(self, stage):
        return [(one.done, one.total) for one in self if one.stage == stage]


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def adapter(root):
    return root / "embedding" / "adapter"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_public(verb):
    assert getattr(ric_diffusion, verb) is getattr(api, verb)
    assert verb in ric_diffusion.__all__ and verb in api.__all__


def test_every_name_of_the_api_is_there():
    for name in api.__all__:
        assert getattr(api, name).__doc__ or name == "ProgressCallback"
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        api.paint  # noqa: B018


def test_five_lines_train(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    program = f"""
from ric_diffusion.api import LoopConfig, TrainConfig, generate, train
loop = LoopConfig(steps=2, batch_size=2)
result = train(TrainConfig(model="model", data="labelled", loop=loop), out={str(tmp_path)!r})
[found] = generate("model", "red apple", adapter=result.adapter, targets={{"colorfulness": 1}},
                   sampling={{"steps": 1}})
"""
    names = {}
    exec(program, names)
    assert names["found"].sample.size == (64, 64)
    assert Adapter.load(tmp_path / "adapter").training["steps"] == 2


def test_train(root, tmp_path, tiny, seen, files):
    settings = TrainConfig(
        model=str(root / "model"), data=root / "labelled", loop=LoopConfig(steps=3, batch_size=2)
    )
    result = api.train(settings, out=tmp_path / "run", progress=seen)
    assert (result.adapter, result.out) == (tmp_path / "run" / "adapter", tmp_path / "run")
    assert (result.steps, result.records, result.url) == (3, tiny.COUNT, None)
    assert result.cost.forwards == 3 * 3 * 2  # a backward pass counts two more
    assert seen.of("train") == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with pytest.raises(api.InputError, match="holds a run already"):
        api.train(settings, out=tmp_path / "run")
    before = files(result.adapter)
    again = api.train(settings, out=str(tmp_path / "run"), resume=True)
    assert replace(again, cost=result.cost) == result and files(result.adapter) == before
    with pytest.raises(api.InputError, match="holds a run of ric train"):
        RunFolder(tmp_path / "run", "online").check_free(resume=True)
    with pytest.raises(api.InputError, match=r"^out is missing"):
        api.train(settings)


@pytest.mark.parametrize("verb", ["score", "label", "generate", "sweep", "evaluate"])
def test_a_callback_takes_the_place_of_bars(root, adapter, seen, capsys, tmp_path, verb):
    model = root / "model"
    call = {
        "score": lambda **more: api.score(root / "pictures", SCORERS, **more),
        "label": lambda **more: api.label(root / "pictures", tmp_path, SCORERS, **more),
        "evaluate": lambda **more: api.evaluate(
            model, ["x"], tmp_path, adapters=[adapter], points=2, seeds=1, **more
        ),
        "generate": lambda **more: api.generate(model, "x", adapter=adapter, **more),
        "sweep": lambda **more: api.sweep(model, "x", adapter=adapter, points=2, **more),
    }[verb]
    capsys.readouterr()
    call(progress=seen)
    assert "%|" not in capsys.readouterr().err
    assert seen and seen[-1].done == seen[-1].total
    call()
    assert "%|" in capsys.readouterr().err


def test_an_exception_of_the_callback_stops_the_work(root, tmp_path):
    class Enough(Exception):
        pass

    def stop(progress):
        if progress.stage == "train" and progress.done == 1:
            raise Enough

    settings = TrainConfig(
        model=str(root / "model"), data=root / "labelled", loop=LoopConfig(steps=3, batch_size=2)
    )
    with pytest.raises(Enough):
        api.train(settings, out=tmp_path, progress=stop)
    assert api.train(settings, out=tmp_path, resume=True).steps == 3


def test_online(root, tmp_path, adapter, tiny, seen):
    training = tiny.config(root, "embedding")
    rounds = OnlineConfig(
        rounds=1,
        samples=8,
        batch_size=4,
        guard=GuardConfig(samples=8, diversity=0.0, prompt_r_precision=0.0),
        loop=LoopConfig(steps=2, batch_size=2),
    )
    settings = OnlineRun(
        model=str(root / "model"),
        adapter=str(adapter),
        data=root / "labelled",
        diffusion=api.DiffusionConfig(
            sampling=training["diffusion"]["sampling"],
            lora=api.LoraConfig(rank=4, alpha=4, targets=("attention", "convolution")),
        ),
        online=rounds,
    )
    result = api.online(settings, out=tmp_path / "run", progress=seen)
    assert result.adapter == tmp_path / "run" / "adapter" and result.rounds == 1
    assert Adapter.load(result.adapter).space == result.space
    assert result.cost.scored >= 8 and result.cost.forwards > 0
    assert seen.of("train")[-1] == (2, 2)


@pytest.mark.parametrize("verb", ["train", "online"])
def test_only_rounds_use_what_their_model_draws(root, tmp_path, adapter, monkeypatch, verb):
    asked = []

    def create(self, *args, sampled=False, **options):
        asked.append(sampled)
        raise api.InputError("enough")

    monkeypatch.setattr(StableDiffusion, "create_backend", create)
    given = {"model": root / "model", "data": root / "labelled", "out": tmp_path / "run"}
    loop = LoopConfig(steps=1, batch_size=2)
    settings = {
        "train": lambda: TrainConfig(**given, loop=loop),
        "online": lambda: OnlineRun(**given, adapter=str(adapter), online=OnlineConfig(loop=loop)),
    }
    with pytest.raises(api.InputError, match="enough"):
        getattr(api, verb)(settings[verb]())
    assert asked == [verb == "online"]


def test_label(root, tmp_path, tiny, seen):
    using = [scorers.load(SCORERS[0]), SCORERS[1]]
    report = api.label(root / "pictures", str(tmp_path / "out"), using, progress=seen)
    assert (report.count, report.medium, report.skipped) == (tiny.COUNT, "image", {})
    assert report.space.names == tuple(tiny.REWARDS)
    assert [warning.partition(":")[0] for warning in report.warnings] == ["14 pictures are few"]
    assert seen.of("label")[-1] == (tiny.COUNT, tiny.COUNT)


def test_framing_of_labels(root, tmp_path):
    def framing(**options):
        api.label(root / "pictures", tmp_path / str(options), SCORERS, **options)
        return Framing.read(tmp_path / str(options))

    assert framing() == Framing()
    assert framing(framing="whole") == Framing(rule="whole")
    assert framing(framing="bucket") == Framing(rule="bucket")
    bucket = Framing(rule="bucket", resolution=512)
    assert framing(framing="bucket", resolution=512) == bucket


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"framing": "squares"}, "framing: 'squares' is unknown; did you mean 'square'?"),
        ({"resolution": 512}, "resolution: framing 'square' has none; give it with bucket only"),
        ({"framing": "bucket", "resolution": 9}, "resolution is 9; give 64 or more"),
        ({"captions": "line"}, "captions: 'line' is unknown; did you mean 'lines'?"),
    ],
)
def test_framings_that_there_are_not(root, tmp_path, options, problem):
    with pytest.raises(InputError) as error:
        api.label(root / "pictures", tmp_path / "out", SCORERS, **options)
    assert str(error.value) == problem
    assert not (tmp_path / "out").exists()


def test_labelling_in_shards(ric, root, tmp_path, tiny, files):
    """Each scores its part and publishes nothing; what the last call writes is the same."""
    for k in range(2):
        report = api.label(root / "pictures", tmp_path / "out", SCORERS, shard=(k, 2))
        assert report.space is None
        assert report.count == (0 if k else tiny.COUNT)  # of one block, which the first takes
        assert not (tmp_path / "out" / "metadata.parquet").exists()
    more = ["label", root / "pictures", "--scorers", *SCORERS, "--out", tmp_path / "out"]
    done = ric(*more, "--shard", "1/2")
    assert done.out == f"{tmp_path / 'out'}: 0 pictures of part 1/2 done, 0 skipped\n"
    done = ric(*more)
    assert done.out.endswith(f"{tmp_path / 'out'}: 14 pictures labelled, 0 skipped\n")
    published = ("metadata.parquet", "reward_space.json")
    for name in published:
        assert (tmp_path / "out" / name).read_bytes() == (root / "labelled" / name).read_bytes()


def test_score(root, tiny, tmp_path, seen):
    table = api.score(root / "pictures", SCORERS, progress=seen)
    assert table.names == ("compressibility", "colorfulness") and table.units == ("kB", "M3")
    assert table.scores.shape == (tiny.COUNT, 2) and len(table.files) == tiny.COUNT
    with Image.open(table.files[3]) as image:
        assert table.scores[3, 1] == pytest.approx(scorers.load("colorfulness")([image])[0])
    assert table.rows()[3]["colorfulness"] == table.scores[3, 1]
    assert seen.of("score") == [(done, tiny.COUNT) for done in range(tiny.COUNT + 1)]
    (tmp_path / "torn.png").write_bytes(b"")
    found = api.score([table.files[0], tmp_path], SCORERS[1:])
    assert found.files == table.files[:1]
    assert found.unreadable == {tmp_path / "torn.png": "empty file"}


def test_generate(root, adapter, seen):
    found = api.generate(
        root / "model", "red apple", adapter=adapter, count=2, seed=7, progress=seen
    )
    assert [sample.seed for sample in found] == [7, 8]
    assert all(sample.path is None and sample.prompt == "red apple" for sample in found)
    assert found[0].scores.keys() == found[0].obtained.keys() == {"compressibility", "colorfulness"}
    assert seen.of("generate") == [(0, 2), (1, 2), (2, 2)]
    [bare] = api.generate(root / "model", "red apple", sampling={"steps": 1})
    assert bare.scores == bare.targets == {} and "scores" not in bare.metadata


@pytest.fixture
def steered(root, adapter, monkeypatch):
    """The tiny model with pictures that get redder the more colorfulness it reads: it was trained
    too shortly to know."""
    pipe = api.load(root / "model", adapter)
    call = type(pipe).__call__

    def redder(self, *args, **given):
        output = call(self, *args, **given)
        for i, targets in enumerate(output.targets):
            more = round(60 + 20 * self.adapter.model_targets(targets).get("colorfulness", 0.0))
            pixels = np.array(output.images[i]).astype(int)
            pixels[..., 0] += more
            output.images[i] = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        return output

    monkeypatch.setattr(type(pipe), "__call__", redder)
    return pipe


def test_refine(steered, tmp_path, seen, caplog):
    one = {"seed": 7, "sampling": {"steps": 1}}
    [plain] = api.generate(steered, "red apple", targets={"colorfulness": 0.0}, **one)
    asked = plain.obtained["colorfulness"] + 0.3
    targets = {"colorfulness": asked}
    found = api.generate(
        steered, "red apple", targets=targets, count=2, refine=9, out=tmp_path, progress=seen, **one
    )
    how = found[0].refinement
    assert plain.refinement is None
    assert how.reached and how.passes >= 1 and found[0].targets == targets
    assert found[0].obtained["colorfulness"] == pytest.approx(asked, abs=0.05)
    assert how.distance == pytest.approx(abs(found[0].obtained["colorfulness"] - asked))
    with Image.open(sample_file(tmp_path, 7)) as image:
        assert json.loads(image.text["refinement"]) == {
            "passes": how.passes,
            "distance": how.distance,
            "reached": True,
            "model_targets": dict(how.model_targets),
        }
    assert seen.of("generate")[-1] == (2, 2) and not seen.of("refine")  # one bar, over pictures
    # What the model read for it draws the same picture, and so does the seed alone.
    [again] = api.generate(steered, "red apple", targets=how.model_targets, **one)
    [alone] = api.generate(steered, "red apple", targets=targets, refine=9, **one)
    assert np.array_equal(np.array(again.sample), np.array(found[0].sample))
    assert alone.metadata == found[0].metadata and not caplog.text


def test_refine_tells_what_it_cannot_reach(steered, caplog):
    one = {"sampling": {"steps": 1}}
    asked = {"targets": {"colorfulness": 9.0}, "negative_targets": {"colorfulness": -1.0}}
    [found] = api.generate(steered, "red apple", refine=2, seed=3, **asked, **one)
    assert not found.refinement.reached and found.refinement.distance > 1
    said = "seed 3: 1 of 1 picture not within 0.05 z of what was asked; the farthest is "
    assert said in caplog.text
    caplog.clear()
    result = api.sweep(steered, "pizza", points=3, along="colorfulness", refine=1, **one)
    assert len(result.points) == 3 and "of 3 pictures not within 0.05 z" in caplog.text


def test_sweep(root, adapter, tmp_path, seen):
    result = api.sweep(
        root / "model", "red apple", adapter=adapter, points=3, seed=2, out=tmp_path, progress=seen
    )
    assert len(result.points) == 3 and result.units["colorfulness"] == "M3"
    assert result.points[0].preference == {"compressibility": 1.0, "colorfulness": 0.0}
    assert json.loads((tmp_path / "sweep.json").read_text()) == result.to_dict()
    with Image.open(tmp_path / "grid.png") as sheet:
        assert np.array_equal(np.array(sheet), np.array(result.sheet))
    assert seen.of("sweep")[-1] == (3, 3)
    alone = api.sweep(root / "model", "pizza", adapter=adapter, points=2, along="colorfulness")
    assert [point.preference for point in alone.points] == [None, None]
    assert [list(point.targets) for point in alone.points] == [["colorfulness"]] * 2


def test_evaluate_and_calibrate(root, adapter, tmp_path):
    asked = {"points": 3, "seeds": 1, "sampling": {"steps": 1}}
    result = api.evaluate(
        root / "model",
        ["red apple", "pizza"],
        tmp_path / "report",
        adapters=[adapter, "none"],
        refine=1,
        **asked,
    )
    names = ["embedding", "embedding, refine 1", "no adapter"]
    assert [method.name for method in result.methods] == names
    plain, refined, _ = result.methods
    assert refined.about["refine"] == 1 and "refine" not in plain.about
    assert plain.cost.forwards < refined.cost.forwards <= 2 * plain.cost.forwards
    assert refined.cost.scored > 0 and plain.cost.scored == 0
    assert result == api.EvaluationResult.load(tmp_path / "report" / "metrics.json")
    assert (tmp_path / "report" / "index.html").exists()
    (tmp_path / "prompts.txt").write_text("red apple\npizza\n")
    again = api.evaluate(
        root / "model", tmp_path / "prompts.txt", tmp_path / "report", adapters=[adapter, "none"],
        refine=1, **asked,
    )  # fmt: skip
    assert again == result  # nothing was drawn anew
    found = api.calibrate(root / "model", ["pizza"], tmp_path / "more", adapter=adapter, **asked)
    assert set(found.calibration.uncalibrated) <= {"compressibility", "colorfulness"}
    assert (tmp_path / "more" / "calibration").is_dir()
    assert (tmp_path / "more" / "index.html").exists()


def test_export_and_prompt_text(root, adapter, tmp_path):
    assert api.export(adapter, tmp_path / "x.safetensors") == tmp_path / "x.safetensors"
    found = api.prompt_text(root / "text" / "adapter", "red apple", targets={"colorfulness": 1.2})
    assert found.text.startswith("red apple") and "1.2" in found.text and found.notes == ()
    with pytest.raises(api.InputError, match="format 'a1111'"):
        api.export(adapter, tmp_path / "y.safetensors", "a1111")


@pytest.mark.parametrize(
    "said, call",
    [
        ("model emoji_64: no such folder or bundled", lambda m, a: api.generate("emoji_64", "x")),
        ("mapping nope: unknown", lambda m, a: api.generate(m, "x", adapter=a, mapping="nope")),
        ("count 0: give a whole number from 1", lambda m, a: api.generate(m, "x", count=0)),
        ("has no adapter of its own", lambda m, a: api.generate(m, "x", targets={"a": 1})),
        ("has no adapter of its own", lambda m, a: api.generate(m, "x", refine=3)),
        ("refine 21: give 1 to 20", lambda m, a: api.generate(m, "x", refine=21)),
        ("refine 0: give 1 to 20", lambda m, a: api.sweep(m, "x", refine=0)),
        ("refine 2.5: give 1 to 20", lambda m, a: api.generate(m, "x", refine=2.5)),
        ("refine '3': give 1 to 20", lambda m, a: api.sweep(m, "x", refine="3")),
        ("refine True: give 1 to 20", lambda m, a: api.generate(m, "x", refine=True)),
        ("device meta: not here", lambda m, a: api.generate(m, "x", device="meta")),
        ("prompts: none there", lambda m, a: api.evaluate(m, [], m / "o", adapters=[a])),
        ("scorers: length scores texts", lambda m, a: api.evaluate(
            m, ["x"], m / "o", adapters=[a], scorers=["length"])),
        ("sampling.contrast -1: give a number", lambda m, a: api.evaluate(
            m, ["x"], m / "o", adapters=[a], sampling={"contrast": -1})),
        ("prompt_guidance 99: give a number", lambda m, a: api.evaluate(
            m, ["x"], m / "o", adapters=[a], sampling={"prompt_guidance": 99})),
        ("clip_skip: stock pipelines", lambda m, a: api.generate(
            m, "x", sampling={"clip_skip": 1})),
        ("negative_prompt: give guidance_scale above 1", lambda m, a: api.generate(
            m, "x", adapter=a, negative_prompt="y", sampling={"guidance_scale": 1, "steps": 1})),
        ("refine: nothing is asked for", lambda m, a: api.generate(m, "x", adapter=a, refine=3)),
        ("unknown reward 'a'", lambda m, a: api.generate(m, "x", adapter=a, targets={"a": 1})),
        (
            "sampling: unknown field 'guidance'; did you mean 'guidance_scale'",
            lambda m, a: api.generate(m, "x", adapter=a, sampling={"guidance": 2.0}),
        ),
        (
            "adapter .*: the model is loaded already; call its load_adapter",
            lambda m, a: api.generate(api.load(m), "x", adapter=a),
        ),
        ("out .*model_index.json is a file", lambda m, a: api.sweep(
            m, "x", adapter=a, out=m / "model_index.json")),
        ("has no adapter of its own", lambda m, a: api.sweep(m, "x")),
        ("points 1: give a whole", lambda m, a: api.sweep(m, "x", adapter=a, points=1)),
        ("scorers: colorfulness is given twice", lambda m, a: api.score(a, SCORERS[1:] * 2)),
        ("no pictures in it", lambda m, a: api.score(a, SCORERS)),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(root, adapter, said, call):
    with pytest.raises(api.InputError, match=said) as caught:
        call(root / "model", adapter)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_the_command_line_names_the_option():
    parser = build_parser().parse_args(["evaluate", "--prompts", "x"]).parser
    assert as_option("guidance_scale 1: too low", parser) == "--guidance-scale 1: too low"
    assert as_option("scorers: none given", parser) == "--scorers: none given"
    assert as_option("./model: no such folder", parser) == "./model: no such folder"
    assert as_option("", parser) == "" and as_option("rank 3", parser) == "rank 3"


def test_a_loaded_model_is_told_by_where_it_came_from(root, adapter):
    [found] = api.generate(api.load(root / "model", adapter), "x", sampling={"steps": 1})
    assert found.model == str(root / "model")
    [found] = api.generate(api.load("emoji-64"), "x", sampling={"steps": 1})
    assert found.model == "emoji-64"
