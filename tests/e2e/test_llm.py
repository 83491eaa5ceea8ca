"""A language model through the verbs: respond, label, train, evaluate, online, generate."""

import json
import re
import shlex
import shutil
from html import escape

import numpy as np
import pytest
import torch
import yaml

from ric_diffusion.adapters.adapter import ABOUT_FILE, Adapter
from ric_diffusion.api import samples
from ric_diffusion.cli import main
from ric_diffusion.data.records import read_folder, read_labelled
from ric_diffusion.data.responses import write_responses
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from support.lm import write_classifier, write_lm
from support.numbered import sample_file
from support.processes import HOME

SCORERS = ["positivity", "brevity"]
ASKS = ["how do i bake a cake?", "why is the sky blue?", "two tips"]
WORDS = ["good", "bad", "happy", "terrible", "sea", "cake", "the", "sky"]


def rows():
    rng = np.random.default_rng(0)
    for i in range(18):
        count = 1 + i % 6
        yield ASKS[i % 3], " ".join(rng.choice(WORDS, count)) + "."


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """model/, said/, labelled/ and an adapter of each mode, made by the command line."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("llm")
    write_lm(home / "model")
    write_responses(rows(), home / "said")
    label = ["label", str(home / "said"), "--out", str(home / "labelled")]
    assert main([*label, "--scorers", *SCORERS]) == 0
    for mode in ("embedding", "text"):
        (home / f"{mode}.yaml").write_text(yaml.safe_dump(config(home, mode)))
        assert main(["train", str(home / f"{mode}.yaml"), "--out", str(home / mode)]) == 0
    return home


def config(home, mode, **changes):
    return {
        "model": str(home / "model"),
        "data": str(home / "labelled"),
        "llm": {
            "mode": mode,
            "lora": {"rank": 4, "alpha": 8},
            "sampling": {"temperature": 1.0, "response_tokens": 12},
        },
        "loop": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 0.01,
            "log_every": 1,
            "validate_every": 3,
            "precision": "fp32",
        },
        "prompts": ASKS[:2],
        **changes,
    }


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_train(home, mode):
    out = home / mode
    adapter = Adapter.load(out / "adapter")
    _, space = read_labelled(home / "labelled")
    assert adapter.space == space and adapter.conditioner.mode == mode
    assert adapter.training["steps"] == 6
    sheet = (out / "sheets" / "brevity-6.txt").read_text()
    assert sheet.count("brevity +") + sheet.count("brevity -") == 10
    assert all(ask in sheet for ask in ASKS[:2])
    assert json.loads((out / "cost.json").read_text())["forwards"] > 0


def test_imported_dialogues_that_training_would_cut_are_left_out(home, script, tmp_path):
    pytest.importorskip("datasets")
    path = HOME / "scripts" / "import_responses.py"
    short = "\n\nHuman: why?\n\nAssistant:"
    long = "\n\nHuman: tell me about the sea." + " the sea." * 60 + "\n\nAssistant: no." + short
    rows = [{"chosen": f"{asked} yes", "rejected": f"{asked} no"} for asked in (short, long)]
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [path, tmp_path / "hh.jsonl", "--format", "dialogue", "--out"]
    code, out, err = script(*asked, tmp_path / "all")
    assert code == 0 and "4 responses" in out, err
    limited = ["--model", home / "model", "--prompt-tokens", 100]
    code, out, err = script(*asked, tmp_path / "some", *limited)
    assert code == 0 and "2 responses, 2 to longer prompts left out" in out, err
    assert {r.captions for r in read_folder(tmp_path / "some")} == {(short.strip(),)}
    code, _, err = script(*asked, tmp_path / "none", "--model", "nowhere")
    assert code == 2 and "--model nowhere: no such folder" in err.splitlines()[-1]


def test_two_reward_models_together(home, ric, tmp_path):
    """Harmless × helpful, from labelling to a response: each keeps its name and its model."""
    specs = [
        f"reward_model:called={name},model={write_classifier(tmp_path / name, seed=seed)}"
        for seed, name in enumerate(["harmless", "helpful"])
    ]
    labelled = tmp_path / "labelled"
    done = ric("label", home / "said", "--scorers", *specs, "--out", labelled)
    assert done.code == 0, done.err
    records, space = read_labelled(labelled)
    assert space.names == ("harmless", "helpful")
    assert {reward.scorer["name"] for reward in space.rewards} == {"reward_model"}
    again = load_scorers(space)
    assert [scorer.name for scorer in again] == ["harmless", "helpful"]
    texts = [(labelled / record.file).read_text() for record in records]
    scores = scores_of(texts, [record.captions[0] for record in records], again)
    expected = [[record.scores[name] for name in space.names] for record in records]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.abs(scores[:, 0] - scores[:, 1]).min() > 1e-3
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config(home, "text", data=str(labelled), prompts=[])))
    assert ric("train", path, "--out", tmp_path / "run").code == 0
    done = ric("generate", "--model", home / "model", "--adapter", tmp_path / "run" / "adapter",
               "--prompt", "why?", "--targets", "helpful=1", "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    metadata = json.loads(sample_file(tmp_path / "out", 0, ".json").read_text())
    assert metadata["targets"] == {"helpful": 1}
    assert set(metadata["scores"]) == {"harmless", "helpful"}


def test_reward_models_without_names_of_their_own(home, ric, tmp_path):
    spec = f"reward_model:model={write_classifier(tmp_path / 'model')}"
    done = ric("label", home / "said", "--scorers", spec, spec, "--out", tmp_path / "labelled")
    assert (done.code, done.out) == (2, "") and "called=NAME" in done.err
    assert len(done.err.splitlines()) == 1


def test_training_goes_on_where_it_was(home, ric, files, tmp_path):
    short = config(home, "text", prompts=[])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(short))
    assert ric("train", path, "--out", tmp_path / "whole").code == 0
    assert ric("train", path, "--out", tmp_path / "whole").code == 2
    again = ric("train", path, "--out", tmp_path / "whole", "--resume")
    assert again.code == 0, again.err
    other = config(home, "text", prompts=[], llm={**short["llm"], "mode": "embedding"})
    path.write_text(yaml.safe_dump(other))
    done = ric("train", path, "--out", tmp_path / "whole", "--resume")
    assert done.code == 2 and "holds a run with other llm." in done.err


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_generate(home, ric, tmp_path, mode):
    asked = ["--model", home / "model", "--adapter", home / mode / "adapter", "--prompt", "why?"]
    done = ric(
        "generate", *asked, "--targets", "brevity=1.23", "--count", 2, "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0001-why-seed0.json", "0001-why-seed0.txt", "0002-why-seed1.json", "0002-why-seed1.txt",
    ]  # fmt: skip
    metadata = json.loads(sample_file(tmp_path / "out", 0, ".json").read_text())
    response = sample_file(tmp_path / "out", 0, ".txt").read_bytes().decode()
    assert metadata["targets"] == {"brevity": 1.23 if mode == "embedding" else 1.2}
    assert metadata["scores"]["brevity"] == -len(response.split())
    assert f"brevity={metadata['obtained']['brevity']:+.2f}" in done.out
    assert all(line in done.out for line in response.splitlines())
    again = ric("generate", *asked, "--targets", "brevity=1.23", "--out", tmp_path / "again")
    assert again.code == 0
    assert sample_file(tmp_path / "again", 0, ".txt").read_bytes().decode() == response
    liked = ric("generate", *asked, "--preference", "brevity=1", "--out", tmp_path / "liked")
    assert liked.code == 0
    metadata = json.loads(sample_file(tmp_path / "liked", 0, ".json").read_text())
    assert set(metadata["targets"]) == set(SCORERS)


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_guidance_scale(home, ric, tmp_path, mode):
    """None of it, and rewards move nothing; more of it, and they move responses further."""
    asked = ["--model", home / "model", "--adapter", home / mode / "adapter", "--prompt", "why?"]
    said = {}
    for name, *more in (
        ("auto",),
        ("none", "--targets", "brevity=1.2", "--guidance-scale", 0),
        ("plain", "--targets", "brevity=1.2"),
        ("more", "--targets", "brevity=1.2", "--guidance-scale", 4),
        ("most", "--targets", "brevity=1.2", "--guidance-scale", 4, "--contrast", 1),
    ):
        done = ric("generate", *asked, *more, "--out", tmp_path / name)
        assert done.code == 0, done.err
        said[name] = sample_file(tmp_path / name, 0, ".txt").read_text()
    assert said["none"] == said["auto"] and len(set(said.values())) == 4
    done = ric("generate", *asked, "--contrast", 1, "--out", tmp_path / "off")
    assert (done.code, done.out) == (2, "")
    assert "contrast: give guidance_scale above 1, not 1" in done.err


def test_refine(home, ric, tmp_path):
    asked = ["--model", home / "model", "--adapter", home / "embedding" / "adapter"]
    asked += ["--prompt", "why?", "--targets", "brevity=0.4", "--count", 2]
    once = ric("generate", *asked, "--out", tmp_path / "once")
    done = ric("generate", *asked, "--refine", 2, "--out", tmp_path / "out")
    assert once.code == done.code == 0, done.err
    for seed in "01":
        first, found = (
            json.loads(sample_file(tmp_path / out, int(seed), ".json").read_text())
            for out in ("once", "out")
        )
        assert found["refinement"]["passes"] <= 2
        distance = found["refinement"]["distance"]
        assert distance == pytest.approx(abs(found["obtained"]["brevity"] - 0.4))
        assert distance <= abs(first["obtained"]["brevity"] - 0.4)


def test_a_response_without_a_score(home, ric, tmp_path, monkeypatch):
    """Nothing is lost over it, the other responses least of all."""
    monkeypatch.setattr(samples, "scores_of", lambda samples, *_: np.array([[np.nan, -3.0]]))
    done = ric("generate", "--model", home / "model", "--adapter", home / "text" / "adapter",
               "--prompt", "why?", "--count", 2, "--out", tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    for seed in "01":
        metadata = json.loads(sample_file(tmp_path, seed, ".json").read_text())
        assert metadata["scores"] == {"positivity": None, "brevity": -3.0}
        assert metadata["obtained"]["positivity"] is None
    assert done.out.count("positivity=none brevity=") == 2


def test_what_cannot_be_reached_is_told(home, ric, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(home / "text" / "adapter", adapter)
    about = json.loads((adapter / ABOUT_FILE).read_text())
    about["calibration"] = {"brevity": {"requested": [-1.0, 1.0], "obtained": [-0.5, 0.5]}}
    (adapter / ABOUT_FILE).write_text(json.dumps(about))
    (adapter / "manifest.json").unlink()
    done = ric("generate", "--model", home / "model", "--adapter", adapter, "--prompt", "why?",
               "--targets", "brevity=2", "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    assert "brevity" in done.err and len(done.err.splitlines()) == 1
    assert json.loads(sample_file(tmp_path / "out", 0, ".json").read_text())["targets"] == {
        "brevity": 0.5
    }


@pytest.mark.parametrize("prompt", ["why?", "tell me about the sea. " * 60])
def test_prompt(home, ric, prompt):
    done = ric("prompt", "--adapter", home / "text" / "adapter", "--prompt", prompt,
               "--targets", "brevity=1.23")  # fmt: skip
    assert done.code == 0, done.err
    text = done.out[:-1]
    assert text.endswith(" <brevity> 1.2") and (text.split(" <")[0] == prompt) == (prompt == "why?")
    assert ("the prompt was cut; 256 tokens" in done.err) == (prompt != "why?")
    lm = RiCCausalLM.from_pretrained(str(home / "model"))
    lm.load_adapter(home / "text" / "adapter")
    [read] = lm.contexts([prompt], [{"brevity": 1.23}], LlmSampler(lm).settings.prompt_tokens)
    turn = lm.tokenizer(text, add_special_tokens=False).input_ids
    assert torch.equal(read, lm.embed([*lm.chat.before, *turn, *lm.chat.after]))


def test_prompt_of_tokens_is_refused(home, ric):
    done = ric("prompt", "--adapter", home / "embedding" / "adapter", "--prompt", "why?")
    assert (done.code, done.out) == (2, "") and "which no text can say" in done.err


def test_the_examples_of_its_card_work(home, ric, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for mode in ("embedding", "text"):
        card = (home / mode / "adapter" / "README.md").read_text()
        card = card.replace("this/folder", str(home / mode / "adapter"))
        [python], [shell] = (
            re.findall(rf"```{language}\n(.*?)```", card, flags=re.DOTALL)
            for language in ("python", "bash")
        )
        exec(python, {})
        assert capsys.readouterr().out
        assert ric(*shlex.split(shell)[1:]).code == 0
        assert ("ric prompt" in card) == (mode == "text")


def test_generate_without_an_adapter(home, ric, tmp_path):
    model = ["generate", "--model", home / "model", "--prompt", "why?", "--out", tmp_path / "out"]
    done = ric(*model)
    assert done.code == 0, done.err
    metadata = json.loads(sample_file(tmp_path / "out", 0, ".json").read_text())
    assert "scores" not in metadata and metadata["targets"] == {}
    for wrong, said in (
        (["--targets", "brevity=1"], "has no adapter of its own"),
        (["--steps", "5"], "--steps: causal language models have no such setting"),
        (["--guidance-scale", "101"], "guidance_scale is 101"),
        (["--negative-prompt", "x"], "--negative-prompt: language models are not guided"),
    ):
        done = ric(*model, *wrong)
        assert (done.code, done.out) == (2, "") and said in done.err
        assert len(done.err.splitlines()) == 1


def test_evaluate(home, ric, tmp_path):
    (tmp_path / "asks.txt").write_text("\n".join(ASKS[:2]))
    asked = ["evaluate", "--model", home / "model", "--prompts", tmp_path / "asks.txt"]
    asked += ["--points", 3, "--seeds", 2, "--scorers", "length", "--out", tmp_path / "report"]
    done = ric(*asked, "--adapter", home / "embedding" / "adapter", "none")
    assert done.code == 0, done.err
    report = tmp_path / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    assert [model["name"] for model in metrics["methods"]] == ["embedding", "no adapter"]
    assert {"torch", "transformers"} <= metrics["versions"].keys()
    assert [scorer["name"] for scorer in metrics["held_out"]] == ["length", "fluency"]
    for model in metrics["methods"]:
        values = [point["held_out"]["fluency"]["value"] for point in model["points"]]
        assert all(value < 0 for value in values)
    for model in metrics["methods"]:
        assert model["hypervolume"]["value"] >= 0 and model["cost"]["forwards"] > 0
        for point in model["points"]:
            for files in point["files"]:
                assert (
                    all((report / file).read_bytes().decode().strip() for file in files)
                    or (model["rejected"])
                )
    assert (report / "index.html").exists() and (report / "front.png").exists()
    assert not (report / "grid.png").exists()
    page = (report / "index.html").read_text()
    shown = metrics["methods"][0]["points"][0]["files"][0][0]
    assert escape((report / shown).read_bytes().decode()) in page
    assert f"embedding: {ASKS[0]}" in page and "positivity 100 %" in page
    assert ric(*asked, "--adapter", home / "text" / "adapter").code == 0


def test_calibrate(home, ric, tmp_path):
    (tmp_path / "asks.txt").write_text("\n".join(ASKS[:2]))
    done = ric(
        "evaluate", "--model", home / "model", "--prompts", tmp_path / "asks.txt", "--calibrate",
        "--points", 3, "--seeds", 2, "--adapter", home / "embedding" / "adapter",
        "--out", tmp_path / "report",
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    curves = metrics["calibration"]["rewards"]
    assert len(curves) + len(metrics["calibration"]["uncalibrated"]) == 2
    if curves:
        calibrated = Adapter.load(tmp_path / "report" / "adapter")
        assert set(calibrated.calibration) == {curve["reward"] for curve in curves}


@pytest.fixture
def online(home, ric, tmp_path):
    def run(*args, **changes):
        data = config(home, "embedding")
        loop = data["loop"] | {"steps": 3, "schedule": "constant"}
        guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
        rounds = {"rounds": 2, "samples": 10, "batch_size": 4, "loop": loop, "guard": guard}
        kept = {key: data[key] for key in ("model", "data", "llm")}
        adapter = str(home / "embedding" / "adapter")
        path = tmp_path / "online.yaml"
        path.write_text(yaml.safe_dump({**kept, "adapter": adapter, "online": rounds, **changes}))
        return ric("online", path, "--out", tmp_path / "out", *args)

    return run


def test_online(online, home, tmp_path):
    done = online()
    assert done.code == 0, done.err
    out = tmp_path / "out"
    for number in (1, 2):
        result = json.loads((out / f"round-{number}" / "round.json").read_text())
        assert result["samples"] == 10 and result["selected"] + result["replay"] > 0
        assert len(list((out / f"round-{number}" / "samples").glob("*.txt"))) == 10
    before, after = Adapter.load(home / "embedding" / "adapter"), Adapter.load(out / "adapter")
    assert after.space.rewards == before.space.rewards and after.training["rounds"] == 2
    assert online().code == 2
    assert online("--resume").code == 0


def test_a_diffusion_adapter_is_no_adapter_for_it(home, ric, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ric_adapter.json").write_text('{"format_version": 99}')
    done = ric("generate", "--model", home / "model", "--adapter", tmp_path / "other",
               "--prompt", "why?", "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 2 and "format_version" in done.err


def test_verbs_of_pictures_say_so(home, ric, tmp_path):
    done = ric("sweep", "--model", home / "model", "--prompt", "why?", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert "a language model; this needs one that makes pictures" in done.err


def test_labelling_texts_with_scorers_of_pictures(home, ric, tmp_path):
    said = home / "said"
    done = ric("label", said, "--scorers", "colorfulness", "--out", tmp_path / "out")
    assert done.code == 2 and "18 skipped" in done.err
    done = ric("label", said, "--scorers", "length", "brightness", "--out", tmp_path / "two")
    assert done.code == 2 and "length texts, brightness images" in done.err
