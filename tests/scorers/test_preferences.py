"""Learned scorers of pictures against what their own packages compute, on the same small random
weights: transformers' CLIP and SigLIP themselves, and CLIP as written in conftest.py. hpsv2 and
aesthetic-predictor-v2-5 do not install beside our dependencies: their few lines are redone here."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torchvision import transforms

import scorers
from scorers import aesthetic_v2_5, hps, pickscore

PROMPTS = ["cat", "a cat", "", "cat " * 30, "Naïve!", "dog", "a dog"]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A folder as of SigLIP on the hub, its vision tower alone."""
    folder = tmp_path_factory.mktemp("siglip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = transformers.SiglipVisionConfig(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
        model = transformers.SiglipVisionModel(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def v2_5_head(tmp_path_factory):
    """The author's file has these names; his features are 1152 wide."""
    generator = torch.Generator().manual_seed(5)
    state, inputs = {}, 48
    for place, outputs in zip((0, 2, 4, 6, 8), (1024, 128, 64, 16, 1), strict=True):
        weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
        state[f"scoring_head.{place}.weight"] = 3 * weight if place == 0 else weight
        state[f"scoring_head.{place}.bias"] = torch.randn(outputs, generator=generator)
        inputs = outputs
    path = tmp_path_factory.mktemp("head") / "aesthetic_predictor_v2_5.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def hps_weights(tiny_clip, tmp_path):
    """As the authors store them: a pickle of a dict with the state dict, in half precision."""
    state = {key: value.half() for key, value in load_file(tiny_clip.path).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "HPS_v2.1_compressed.pt")
    return tmp_path / "HPS_v2.1_compressed.pt"


@pytest.fixture
def options(tiny_clip, tiny_hub_clip, siglip, v2_5_head, hps_weights):
    clip = {"clip": tiny_clip.name, "clip_weights": str(tiny_clip.path)}
    return {
        "aesthetic_v2_5": {"encoder": str(siglip), "head": str(v2_5_head), "device": "cpu"},
        "clip_iqa": {**clip, "device": "cpu"},
        "hps": {"weights": str(hps_weights), "clip": tiny_clip.name, "device": "cpu"},
        "pickscore": {"model": str(tiny_hub_clip), "device": "cpu"},
    }


SAME_PROMPT = ("hps", "image_reward", "pickscore")
NAMES = ("aesthetic_v2_5", "clip_iqa", "hps", "pickscore")


def refused(name, **options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load(name, **options)
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and "\n" not in message
    return message


def test_pickscore_against_transformers(options, tiny_hub_clip, pictures):
    """The model card's computation is a CLIP's own logits."""
    model = transformers.CLIPModel.from_pretrained(tiny_hub_clip)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tiny_hub_clip)
    processor = transformers.CLIPImageProcessor.from_pretrained(tiny_hub_clip)
    tokens = tokenizer(PROMPTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, **processor(images=pictures, return_tensors="pt")).logits_per_image
    scores = scorers.load("pickscore", **options["pickscore"])(pictures, PROMPTS)
    np.testing.assert_allclose(scores, logits.diagonal().numpy(), rtol=0, atol=1e-4)
    assert np.ptp(scores) > 0.5 and model.logit_scale.exp() > 10


def test_clip_score_on_transformers_clip(tiny_hub_clip, pictures):
    clip_score = scorers.load("clip_score", clip=str(tiny_hub_clip), device="cpu")
    pick = scorers.load("pickscore", model=str(tiny_hub_clip), device="cpu")
    wanted = np.maximum(pick(pictures, PROMPTS) * 100 / pick._clip.scale, 0)
    np.testing.assert_allclose(clip_score(pictures, PROMPTS), wanted, rtol=0, atol=1e-4)
    assert np.ptp(wanted) > 1


def test_hps_against_its_packages_computation(options, reference, pictures):
    see = transforms.Compose(
        [
            transforms.ToTensor(),  # first: hpsv2 resizes floats
            transforms.Resize(28, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(28),
            transforms.Normalize(reference.mean, reference.std),
        ]
    )
    half = type(reference)(reference.tiny, {k: v.half() for k, v in reference.state.items()})
    shown = torch.stack([half._unit(half._see(see(p).double())) for p in pictures])
    wanted = (shown * half.texts(PROMPTS)).sum(1).numpy()
    scores = scorers.load("hps", **options["hps"])(pictures, PROMPTS)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-4)
    assert np.ptp(wanted) > 0.05
    rounded = (half.images(pictures) * half.texts(PROMPTS)).sum(1).numpy()
    assert np.abs(rounded - wanted).max() > 2e-4  # as open_clip sees them, it is another score


def test_clip_iqa_against_its_formula(options, reference, pictures):
    for pair in (("Good photo.", "Bad photo."), ("Sharp photo.", "Blurry photo.")):
        own = {"positive": pair[0], "negative": pair[1]}
        scores = scorers.load("clip_iqa", **options["clip_iqa"], **own)(pictures)
        good, bad = (100 * reference.images(pictures) @ reference.texts(list(pair)).T).T
        wanted = (1 / (1 + (bad - good).exp())).numpy()
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-4)
        assert np.ptp(wanted) > 0.01


def test_aesthetic_v2_5_against_transformers_siglip(options, siglip, v2_5_head, pictures):
    model = transformers.SiglipVisionModel.from_pretrained(siglip)
    processor = transformers.SiglipImageProcessor.from_pretrained(siglip)
    with torch.no_grad():
        x = model(**processor(images=pictures, return_tensors="pt")).pooler_output.double()
    x = x / x.norm(dim=-1, keepdim=True)
    state = torch.load(v2_5_head, weights_only=True)
    for place in (0, 2, 4, 6, 8):
        weight, bias = (state[f"scoring_head.{place}.{part}"] for part in ("weight", "bias"))
        x = x @ weight.double().T + bias.double()
    scores = scorers.load("aesthetic_v2_5", **options["aesthetic_v2_5"])(pictures)
    np.testing.assert_allclose(scores, x[:, 0].numpy(), rtol=0, atol=1e-4)
    assert np.ptp(scores) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_what_every_scorer_keeps(options, pictures, name):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    scorer = scorers.load(name, batch_size=3, **options[name])
    prompts = PROMPTS if scorer.needs_prompts else None
    together = scorer(pictures, prompts)
    assert torch.equal(torch.rand(4), expected)  # the user's seed is left alone
    apart = [scorer([p], [q])[0] for p, q in zip(pictures, PROMPTS, strict=True)]
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-4)
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert (again.fingerprint, again.options) == (scorer.fingerprint, scorer.options)
    assert scorer.fingerprint.startswith(f"{name} ") and "\n" not in scorer.fingerprint
    assert scorer.compares_within == ("prompt" if name in SAME_PROMPT else None)
    assert "batch_size=0" in refused(name, **options[name], batch_size=0)
    assert "precision=fp16 needs a GPU" in refused(name, **options[name], precision="fp16")


def test_the_fingerprint_names_weights_prompts_and_preprocessing(
    options, tiny_hub_clip, tmp_path, monkeypatch
):
    given = options["clip_iqa"]
    sharp = scorers.load("clip_iqa", **given, positive="Sharp photo.")
    assert sharp.fingerprint != scorers.load("clip_iqa", **given).fingerprint
    first = scorers.load("pickscore", **options["pickscore"]).fingerprint
    assert f"transformers-{transformers.__version__}" in first and first.endswith(" fp32")
    model = transformers.CLIPModel.from_pretrained(tiny_hub_clip)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tiny_hub_clip)
    processor = transformers.CLIPImageProcessor.from_pretrained(tiny_hub_clip)

    def stored(name):
        for part in (model, tokenizer, processor):
            part.save_pretrained(tmp_path / name)
        return scorers.load("pickscore", model=tmp_path / name, device="cpu").fingerprint

    assert stored("same") == first
    shutil.copytree(tmp_path / "same", tmp_path / "words")
    words = tmp_path / "words" / "tokenizer.json"
    stored_words = json.loads(words.read_text())
    vocabulary = stored_words["model"]["vocab"]
    vocabulary["e"], vocabulary["o"] = vocabulary["o"], vocabulary["e"]
    words.write_text(json.dumps(stored_words))
    tokens = scorers.load("pickscore", model=tmp_path / "words", device="cpu").fingerprint
    processor.image_mean = [0.5, 0.5, 0.5]
    other = stored("pixels")
    model.config.vision_config.hidden_act = "gelu"
    activation = stored("activation")
    model.visual_projection.weight.data[0, 0] += 1e-3
    assert len({first, tokens, other, activation, stored("weights")}) == 5


def test_hps_takes_a_folder_and_its_safetensors_first(options, tiny_clip, hps_weights, pictures):
    given = {**options["hps"], "weights": hps_weights.parent}
    legacy = scorers.load("hps", **given)
    assert legacy.fingerprint == scorers.load("hps", **options["hps"]).fingerprint
    save_file(load_file(tiny_clip.path), hps_weights.with_suffix(".safetensors"))
    full = scorers.load("hps", **given)
    assert full.fingerprint != legacy.fingerprint
    hps_weights.with_suffix(".safetensors").unlink()
    hps_weights.unlink()
    assert "has no HPS_v2.1_compressed.safetensors or HPS" in refused("hps", **given)


def test_nothing_is_unpickled(options, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    for name, option in (("hps", "weights"), ("aesthetic_v2_5", "head")):
        torch.save({"state_dict": {"x": Evil()}}, tmp_path / "evil.pt")
        message = refused(name, **{**options[name], option: str(tmp_path / "evil.pt")})
        assert "refused or unreadable" in message
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        ("clip_iqa", {"positive": " "}, "positive=' ' is no prompt; give a text"),
        ("clip_iqa", {"clip": "nobody/nothing"}, "leave clip_weights out"),
        ("pickscore", {"model": "no such folder"}, "cannot be loaded"),
        ("hps", {"weights": "nowhere/w.pt"}, "no such file"),
        ("aesthetic_v2_5", {"head": "nowhere.pth"}, "no such file"),
    ],
)
def test_bad_options(options, name, changed, told):
    assert told in refused(name, **{**options[name], **changed})


def test_a_folder_that_lacks_weights_is_refused(tiny_hub_clip, tmp_path, options):
    folder = shutil.copytree(tiny_hub_clip, tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = refused("pickscore", model=folder)
    assert "lacks the weights of visual_projection.weight; it is no CLIPModel" in message
    given = {**options["aesthetic_v2_5"], "encoder": tiny_hub_clip}
    assert "aesthetic_v2_5: encoder=" in refused("aesthetic_v2_5", **given)


def test_a_head_of_another_width_is_refused(options, tmp_path):
    torch.save({"scoring_head.0.weight": torch.zeros(1024, 9)}, tmp_path / "h.pth")
    message = refused("aesthetic_v2_5", **{**options["aesthetic_v2_5"], "head": tmp_path / "h.pth"})
    assert "five layers on 48 features" in message


@pytest.mark.parametrize(
    ("name", "address", "mend"),
    [
        ("pickscore", f"https://huggingface.co/{pickscore.DEFAULT_MODEL}", "path of a copy"),
        ("hps", f"https://huggingface.co/{hps.DEFAULT_WEIGHTS}", "weights=PATH"),
        ("image_reward", "https://huggingface.co/THUDM/ImageReward", "model=PATH"),
        ("aesthetic_v2_5", aesthetic_v2_5.HEAD_URL, "head=PATH"),
        ("clip_iqa", "https://huggingface.co/", "clip_weights"),
    ],
)
def test_offline_says_where_the_weights_are_and_how_to_mend(
    name, address, mend, monkeypatch, tmp_path
):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    message = refused(name, device="cpu")
    assert "cannot fetch" in message and address in message and mend in message
    with pytest.raises(scorers.WeightsError):
        scorers.load(name)
    stand_in = scorers.stand_in(name)
    assert stand_in.unit
    assert stand_in.compares_within == ("prompt" if name in SAME_PROMPT else None)
