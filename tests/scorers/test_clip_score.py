import copy
import gc
import json
import weakref

import numpy as np
import open_clip
import PIL
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import scorers
from scorers.clip import DEFAULT_CLIP, DEFAULT_WEIGHTS, load_clip

PROMPTS = [
    "a red apple",
    "",
    "a photo of a very long prompt " * 9,
    "Café, naïve!",
    "cat",
    "dog",
    "a cat",
]


@pytest.fixture
def options(tiny_clip):
    return {"clip": tiny_clip.name, "clip_weights": str(tiny_clip.path), "device": "cpu"}


def refused(name, **options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_against_a_clip_written_here(options, reference, pictures):
    pairs = [(image, prompt) for image in pictures for prompt in PROMPTS]
    scores = scorers.load("clip_score", **options)(*zip(*pairs, strict=True))
    cosines = (reference.images(pictures) @ reference.texts(PROMPTS).T).flatten().numpy()
    assert min((cosines > 0.01).sum(), (cosines < -0.01).sum()) > 5  # both sides of the clamp
    np.testing.assert_allclose(scores, 100 * np.maximum(cosines, 0), atol=1e-3)
    assert (scores.dtype, scores.shape) == (np.float32, (len(pairs),))


def test_features_agree(options, reference, pictures):
    encoder = load_clip("test", options["clip"], options["clip_weights"], "cpu")
    pairs = [
        (encoder.encode_images(pictures, 3), reference.images(pictures)),
        (encoder.encode_texts(PROMPTS, 3), reference.texts(PROMPTS)),
    ]
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() < 1e-5
        assert theirs.std(dim=0).mean() > 1e-3  # the rows differ


def test_batch_equals_one_by_one(options, pictures):
    scorer = scorers.load("clip_score", batch_size=3, **options)
    together = scorer(pictures, PROMPTS)
    apart = [scorer([i], [p])[0] for i, p in zip(pictures, PROMPTS, strict=True)]
    np.testing.assert_allclose(together, apart, atol=1e-3)
    assert np.ptp(together) > 0.1


def test_odd_modes_score_as_what_they_show(options, pictures):
    scorer = scorers.load("clip_score", **options)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pictures[3].transpose(Image.Transpose.ROTATE_90)
    turned.info["exif"] = exif.tobytes()
    clear = Image.new("RGBA", (30, 30), (9, 9, 200, 0))
    white = Image.new("RGB", (30, 30), "white")
    odd, plain = (
        np.array([scorer([image] * len(PROMPTS), PROMPTS) for image in images])
        for images in ([turned, clear], [pictures[3], white])
    )
    np.testing.assert_allclose(odd, plain, atol=1e-4)
    assert np.abs(plain[0] - plain[1]).max() > 0.1


def test_prompts_are_needed(options, pictures):
    scorer = scorers.load("clip_score", **options)
    for prompts in (None, ["a"], [None] * len(pictures)):
        with pytest.raises(scorers.ScorerError, match=r"^clip_score: .*prompt"):
            scorer(pictures, prompts)
    assert scorer([], []).shape == (0,)


def test_options_rebuild_the_scorer(options, pictures):
    scorer = scorers.load("clip_score", batch_size=5, **options)
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert again.fingerprint == scorer.fingerprint
    assert again.options == scorer.options
    np.testing.assert_allclose(again(pictures, PROMPTS), scorer(pictures, PROMPTS), atol=1e-4)


def test_scorers_share_an_encoder_while_they_live(options):
    first = scorers.load("clip_score", **options)
    second = scorers.load("clip_score", batch_size=1, **options)
    assert first._clip is second._clip
    encoder = weakref.ref(first._clip)
    del first
    gc.collect()
    assert encoder() is second._clip
    del second
    gc.collect()
    assert encoder() is None


def test_loading_and_scoring_leave_the_seed_alone(options, pictures):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    scorers.load("clip_score", **options)(pictures, PROMPTS)
    assert torch.equal(torch.rand(4), expected)


def test_fingerprint(options, tiny_clip, tmp_path, monkeypatch):
    def fingerprint(**changed):
        return scorers.load("clip_score", **{**options, **changed}).fingerprint

    default = fingerprint()
    assert default == fingerprint(batch_size=1)
    assert tiny_clip.name in default
    assert f"open_clip-{open_clip.__version__}" in default

    state = load_file(tiny_clip.path)
    save_file(state, tmp_path / "same.safetensors")
    torch.save(state, tmp_path / "same.pt")
    assert default == fingerprint(clip_weights=str(tmp_path / "same.safetensors"))
    assert default == fingerprint(clip_weights=str(tmp_path / "same.pt"))

    state["visual.proj"][0, 0] += 1e-3
    save_file(state, tmp_path / "other.safetensors")
    others = [fingerprint(clip_weights=str(tmp_path / "other.safetensors"))]
    gc.collect()
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "99.1")  # a version alone does nothing
        assert fingerprint() == default
    gc.collect()
    resize = Image.Image.resize
    with monkeypatch.context() as patch:
        patch.setattr(
            Image.Image, "resize", lambda self, size, *_, **__: resize(self, size, Image.BOX)
        )
        others.append(fingerprint())
    gc.collect()
    monkeypatch.setattr(open_clip, "__version__", "99.0")
    others.append(fingerprint())
    assert len({default, *others}) == 4


@pytest.fixture
def tag(tiny_clip, monkeypatch):
    """A pretrained tag of the tiny model, whose config lies on this disk."""

    def add(model=tiny_clip.name, **config):
        table = {"weights": {"file": str(tiny_clip.path), **config}}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model, table)
        return {"clip": model, "clip_weights": "weights", "device": "cpu"}

    return add


def test_a_pretrained_tag_brings_its_preprocessing(tag, options, reference, pictures):
    own = scorers.load("clip_score", **options)
    plain = scorers.load("clip_score", **tag(quick_gelu=True))
    np.testing.assert_allclose(plain(pictures, PROMPTS), own(pictures, PROMPTS), atol=1e-4)
    seen = copy.copy(reference)
    seen.mean, seen.std = (0.1, 0.5, 0.9), (0.5, 0.25, 0.125)
    other = scorers.load("clip_score", **tag(quick_gelu=True, mean=seen.mean, std=seen.std))
    cosines = (seen.images(pictures) * seen.texts(PROMPTS)).sum(1).numpy()
    np.testing.assert_allclose(other(pictures, PROMPTS), 100 * np.maximum(cosines, 0), atol=1e-3)
    assert np.abs(other(pictures, PROMPTS) - own(pictures, PROMPTS)).max() > 0.1
    assert other.fingerprint != plain.fingerprint


def test_a_quickgelu_tag_wins_over_the_models_name(tag, options, tiny_clip, tmp_path, pictures):
    config = {**open_clip.get_model_config(tiny_clip.name), "quick_gelu": False}
    (tmp_path / "tiny-gelu.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-gelu.json")
    own = scorers.load("clip_score", **options)
    table = tag(quick_gelu=True, model="tiny-gelu")
    quick = scorers.load("clip_score", **table)
    np.testing.assert_allclose(quick(pictures, PROMPTS), own(pictures, PROMPTS), atol=1e-4)
    gelu = scorers.load("clip_score", **{**options, "clip": "tiny-gelu"})
    assert np.abs(gelu(pictures, PROMPTS) - own(pictures, PROMPTS)).max() > 0.01
    assert gelu.fingerprint != quick.fingerprint


def test_the_default_is_openais_vit_l_14_with_quickgelu():
    tag = open_clip.get_pretrained_cfg(DEFAULT_CLIP, DEFAULT_WEIGHTS)
    assert tag["quick_gelu"] and "vit_large_patch14_clip_224.openai" in tag["hf_hub"]
    assert open_clip.get_model_config(DEFAULT_CLIP)["quick_gelu"]


@pytest.mark.parametrize("name", ["clip_score", "aesthetic"])
def test_offline_says_how_to_mend_and_a_stand_in_scores_nothing(name, monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused(name, device="cpu")
    assert "cannot fetch" in message
    assert "https://huggingface.co/" in message
    assert ("clip_weights" if name == "clip_score" else "head=") in message
    with pytest.raises(scorers.WeightsError):
        scorers.load(name)
    found = scorers.stand_in(f"{name}:batch_size=2", device="cpu")
    assert (found.name, found.options) == (name, {"batch_size": 2, "device": "cpu"})
    assert found.unit == {"clip_score": "100*cos", "aesthetic": "points"}[name]
    scores = found([Image.new("RGB", (8, 8))] * 3, ["x"] * 3)
    assert scores.dtype == np.float32 and np.isnan(scores).tolist() == [True] * 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"clip": "ViT-L-14-quickgel"}, "did you mean 'ViT-L-14-quickgelu'"),
        ({"clip": "hf-hub:someone/something"}, "not a model of open_clip"),
        ({"clip": 5}, "clip='5'"),
        ({"clip": "ViT-L-14-quickgelu", "clip_weights": "opnai"}, "did you mean 'openai'"),
        ({"clip_weights": None}, "'None'"),
        ({"clip_weights": "nowhere/w.safetensors"}, "no such file"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_options(options, changed, told):
    message = refused("clip_score", **{**options, **changed})
    assert told in message
    assert message.startswith("clip_score: ")


def test_weights_of_another_model_are_refused(options, tmp_path):
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    message = refused("clip_score", **{**options, "clip_weights": str(tmp_path / "w.safetensors")})
    assert f"no set of weights for clip={options['clip']}" in message


def test_malicious_clip_weights_are_refused(options, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    torch.save({"visual.proj": Evil()}, tmp_path / "evil.pt")
    message = refused("clip_score", **{**options, "clip_weights": str(tmp_path / "evil.pt")})
    assert "evil.pt" in message
    assert not (tmp_path / "trap").exists()


def test_no_linear_layer_gets_a_transposed_input(options, monkeypatch):
    """Which bfloat16 on a CPU takes a hundred times as long for; see scorers.clip."""
    network = scorers.load("clip_score", **options)._clip._model
    seen, usual = [], torch.nn.functional.linear

    def linear(inputs, *rest):
        seen.append(inputs.is_contiguous())
        return usual(inputs, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network.encode_image(torch.zeros(2, 3, 28, 28))
    assert len(seen) >= 2 and all(seen)
