"""Sliders for a model that others fine-tuned: pictures are those of the words written by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from ric_diffusion import RewardSpace, RiCPipeline, adopt, api
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.grammar import Grammar
from scorers import WeightsError, aesthetic
from scratch import clip_bpe, clip_tokenizer
from support.lm import write_lm
from support.tuned import REWARDS, STATISTICS, write_tuned

PROMPT = "a red apple"
TARGETS = {"colorfulness": 1.24, "compressibility": -0.36}
BY_HAND = "a red apple<rm1> 1.2<rm2> -0.4"
SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}
UPSTREAM = {"grammar": "upstream", "statistics": STATISTICS, "sampling": SAMPLING}


@pytest.fixture(scope="module")
def tuned(root, tmp_path_factory):
    return write_tuned(root / "model", tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def adapter(tuned):
    return adopt(tuned / "model", REWARDS, tuned / "adapter", **UPSTREAM).adapter


@pytest.fixture(scope="module")
def stock(tuned):
    return quiet(StableDiffusionPipeline.from_pretrained(tuned / "model", use_safetensors=True))


@pytest.fixture
def pipe(tuned, adapter):
    pipe = quiet(RiCPipeline.from_pretrained(tuned / "model"))
    pipe.load_adapter(adapter)
    return pipe


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, prompt=PROMPT, **asked):
    """Latents, which tell pictures apart to the last bit."""
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, generator=generator, output_type="latent", **asked).images


def test_pictures_are_those_of_the_words_written_by_hand(pipe, stock):
    expected = drawn(stock, BY_HAND, **SAMPLING)
    assert torch.equal(drawn(pipe, targets=TARGETS), expected)
    assert not torch.equal(drawn(pipe, targets={**TARGETS, "colorfulness": 1.3}), expected)
    some = drawn(pipe, targets={"compressibility": 1.0})
    assert torch.equal(some, drawn(stock, "a red apple<rm2> 1.0", **SAMPLING))
    assert torch.equal(drawn(pipe), drawn(stock, **SAMPLING))  # all on auto
    pipe.unload_adapter()
    assert torch.equal(drawn(pipe, BY_HAND, **SAMPLING), expected)


def test_a_denoiser_becomes_a_model_with_sliders(tuned, root, stock, adapter, tmp_path):
    expected, out = drawn(stock, BY_HAND, **SAMPLING), tmp_path / "whole"
    given = {**UPSTREAM, "denoiser": tuned / "checkpoint"}
    found = adopt(root / "model", REWARDS, out, **given)
    assert (found.adapter, found.model) == (out / "ric_adapter", str(out))
    assert found.size == sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) > 1e5
    ours = quiet(RiCPipeline.from_pretrained(out))
    assert torch.equal(drawn(ours, targets=TARGETS), expected)
    assert torch.equal(
        drawn(quiet(StableDiffusionPipeline.from_pretrained(out)), BY_HAND, **SAMPLING), expected
    )
    assert f"with the denoiser of `{tuned / 'checkpoint'}`" in (
        found.adapter / "README.md"
    ).read_text("utf-8")

    # The same from parts, and half as large.
    unet = UNet2DConditionModel.from_pretrained(tuned / "checkpoint" / "unet")
    ours = quiet(RiCPipeline.from_pretrained(root / "model", unet=unet))
    ours.load_adapter(adapter)
    assert torch.equal(drawn(ours, targets=TARGETS), expected)
    given["denoiser"] = tuned / "checkpoint" / "unet"
    half = adopt(root / "model", REWARDS, tmp_path / "half", **given, dtype="float16")
    assert half.size < 0.7 * found.size


def test_prompts_are_escaped_and_cut_but_never_the_words(adapter, pipe, stock):
    def text(prompt, **targets):
        return api.prompt_text(adapter, prompt, targets=targets).text

    assert text(PROMPT, **TARGETS) == BY_HAND
    assert text("x", colorfulness=-0.04, compressibility=0.25) == "x<rm1> 0.0<rm2> 0.2"
    assert text("a <rm2> 9.9", colorfulness=1) == "a <_rm2> 9.9<rm1> 1.0"
    long = "red apple " * 60
    assert text(long, **TARGETS).endswith("red<rm1> 1.2<rm2> -0.4")
    low, high = ({"colorfulness": z} for z in (-1.0, 1.0))
    assert not torch.equal(drawn(pipe, long, targets=low), drawn(pipe, long, targets=high))
    lost = [drawn(stock, f"{long}<rm1> {z}", **SAMPLING) for z in (-1.0, 1.0)]
    assert torch.equal(*lost)


def test_statistics_alone_are_those_of_independent_normal_rewards(adapter, tmp_path, caplog):
    space = Adapter.load(adapter).space
    assert space.count is None and space.names == tuple(STATISTICS)
    assert (space.units, space.rewards[1].scorer["options"]["resize"]) == (("M3", "kB"), None)
    np.testing.assert_allclose([space.lows, space.highs], [[-2.3263] * 2, [2.3263] * 2], atol=1e-4)
    assert space.quantile("colorfulness", 0.5) == 0
    assert space.denormalize([[1, 1]]).tolist() == [[60, -3.5]]
    front = np.array(space.front)
    assert len(front) > 5 and np.abs(front[front[:, 0].argmax()] - [1.4, -0.5]).max() < 0.2
    card = (adapter / "README.md").read_text("utf-8")
    assert "the ranges are those of normally distributed rewards" in card and "lora" not in card
    assert "no samples, taken to be normal" in str(space)
    # As RiC's image code has it: the larger weight gets the top, the other the quantile at 2·w.
    found = Adapter.load(adapter)
    targets = found.targets_for(preference={"colorfulness": 3, "compressibility": 1})
    assert targets == pytest.approx({"colorfulness": 2.3263, "compressibility": 0}, abs=1e-4)
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(STATISTICS))
    with caplog.at_level("INFO", logger="ric_diffusion"):
        again = adopt(
            found.base_model, REWARDS, tmp_path / "out", **{**UPSTREAM, "statistics": path}
        )
    assert again.space == space
    assert "those of independent, normally distributed rewards" in caplog.text


def test_a_labelled_folder_is_exact_and_in_the_order_of_the_words(tuned, root, tmp_path):
    names = ["colorfulness", "compressibility"]
    given = {"labelled": root / "labelled", "sampling": {"steps": 3}}
    folder = adopt(
        tuned / "model", names, tmp_path / "a", labels=["c", "k"], separator=", ", **given
    ).adapter
    found = Adapter.load(folder)
    assert found.space == RewardSpace.load(root / "labelled" / "reward_space.json").subset(names)
    assert found.sampling == {"guidance_scale": 7.5, "num_inference_steps": 3}
    assert found.mapping == "quantile" and not found.calibration
    asked = {"compressibility": 1, "colorfulness": 2}
    assert api.prompt_text(folder, "x", targets=asked).text == "x, <c> 2.0, <k> 1.0"
    labelled_with = ["colorfulness", "compressibility:resize=none"]
    space = adopt(tuned / "model", labelled_with, tmp_path / "c", grammar="words", **given)
    assert Adapter.load(space.adapter).space == found.space
    with pytest.raises(api.InputError, match=r"compressibility was scored with .*; give compr"):
        adopt(tuned / "model", ["compressibility:quality=20"], tmp_path / "d", **given)
    words = adopt(tuned / "model", names[:1], tmp_path / "b", grammar="words", **given)
    assert api.prompt_text(words.adapter, "x", targets={names[0]: 1}).text == "x <colorfulness> 1.0"


def test_it_is_saved_as_it_was(pipe, adapter, tmp_path, files):
    assert {path.name for path in adapter.iterdir()} == {
        "ric_adapter.json",
        "manifest.json",
        "README.md",
    }
    assert json.loads((adapter / "ric_adapter.json").read_text())["lora"] is False
    pipe.save_adapter(tmp_path / "adapter")
    assert files(tmp_path / "adapter") == files(adapter)
    pipe.save_pretrained(tmp_path / "model")
    ours = quiet(RiCPipeline.from_pretrained(tmp_path / "model"))
    assert ours.adapter == replace(pipe.adapter, conditioner=ours.adapter.conditioner)
    assert torch.equal(drawn(ours, targets=TARGETS), drawn(pipe, targets=TARGETS))
    ours.to(torch.bfloat16)
    ours.unload_adapter()  # nothing was merged, so nothing can have changed
    assert ours.adapter is None


def test_a_lost_lora_is_still_refused(root, tmp_path, pipe):
    (tmp_path / "ric_adapter.json").write_bytes(
        (root / "text" / "adapter" / "ric_adapter.json").read_bytes()
    )
    with pytest.raises(api.InputError, match="not a LoRA file of an adapter"):
        pipe.load_adapter(tmp_path)
    about = json.loads((tmp_path / "ric_adapter.json").read_text())
    (tmp_path / "ric_adapter.json").write_text(json.dumps({**about, "lora": None}))
    with pytest.raises(api.InputError, match="lora: None is not true or false"):
        pipe.load_adapter(tmp_path)


def test_sliders_work_without_the_scorers_weights(tuned, tmp_path, monkeypatch, caplog):
    def offline():
        raise WeightsError("aesthetic: cannot fetch model.safetensors")

    monkeypatch.setattr(aesthetic, "fetch_head", offline)
    given = {**UPSTREAM, "statistics": {**STATISTICS, "aesthetic": {"mean": 5, "std": 0.5}}}
    found = adopt(tuned / "model", ["aesthetic", REWARDS[1]], tmp_path / "adapter", **given)
    assert (found.space.units, found.space.rewards[0].fingerprint) == (("points", "kB"), "")
    assert "cannot fetch model.safetensors; sliders work" in caplog.text
    [sample] = api.generate(
        tuned / "model", PROMPT, adapter=found.adapter, targets={"aesthetic": 1.0}
    )
    assert sample.obtained["aesthetic"] is None and sample.obtained["compressibility"] is not None
    swept = api.sweep(tuned / "model", PROMPT, adapter=found.adapter, points=2)
    assert [point.scores["aesthetic"] for point in swept.points] == [None, None]
    assert isinstance(swept.sheet, Image.Image)
    with pytest.raises(WeightsError):  # where scores are what it is about
        api.evaluate(tuned / "model", [PROMPT], tmp_path / "report", adapters=[found.adapter])


def test_a_language_model(tmp_path):
    write_lm(tmp_path / "model")
    statistics = {"brevity": {"mean": -20, "std": 5}}
    given = {"grammar": "words", "statistics": statistics}
    found = adopt(tmp_path / "model", ["brevity"], tmp_path / "adapter", **given)
    lm = api.load(tmp_path / "model", found.adapter)
    [response] = api.generate(lm, "sea", targets={"brevity": 1}, sampling={"response_tokens": 3})
    assert response.targets == {"brevity": 1}
    lm.save_adapter(tmp_path / "again")
    assert Adapter.load(tmp_path / "again").about() == Adapter.load(found.adapter).about()
    lm.unload_adapter()
    with pytest.raises(api.InputError, match="rewards: brevity scores texts, which Stable Diff"):
        adopt("emoji-64", ["brevity"], tmp_path / "x", **given)
    with pytest.raises(api.InputError, match="a language model; this needs one that makes"):
        adopt(tmp_path / "model", ["brevity"], tmp_path / "x", **given, denoiser=tmp_path)


def test_with_spaces_the_words_are_those_that_the_authors_trained_on():
    """Their training reads each part as the tokenizer has it, joined by spaces; their sampling
    appends the words without (YangRui2015/RiC, ric_txt2img/multi_obj_dataset.py)."""
    tokenizer = clip_tokenizer(*clip_bpe(), 77)

    def ids(text):
        return tokenizer(text).input_ids

    sampled = Grammar.upstream(tuple(STATISTICS))
    spaced = replace(sampled, separator=" ")
    for prompt, same in (("a red apple", True), ("a red apple.", False)):
        parts = (prompt, "<rm1> 1.2", "<rm2> -0.4")
        trained = ids(" ".join(tokenizer.decode(ids(part)[1:-1]) for part in parts))
        assert ids(spaced.format(prompt, TARGETS)) == trained
        assert (ids(sampled.format(prompt, TARGETS)) == trained) is same
