import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import scorers
from scorers import aesthetic
from scorers.clip import DEFAULT_CLIP

# The shapes in LAION's sac+logos+ava1-l14-linearMSE.pth.
LAION_SHAPES = {
    "layers.0.weight": (1024, 768),
    "layers.0.bias": (1024,),
    "layers.2.weight": (128, 1024),
    "layers.2.bias": (128,),
    "layers.4.weight": (64, 128),
    "layers.4.bias": (64,),
    "layers.6.weight": (16, 64),
    "layers.6.bias": (16,),
    "layers.7.weight": (1, 16),
    "layers.7.bias": (1,),
}


@pytest.fixture(scope="module")
def head_state():
    """Random layers that keep the size of what goes through, so that scores spread over points."""
    generator = torch.Generator().manual_seed(11)
    state = {
        key: torch.randn(shape, generator=generator) * (1.5 * shape[-1] ** -0.5)
        for key, shape in LAION_SHAPES.items()
    }
    state["layers.0.weight"] *= 30  # the features are unit vectors
    return state


@pytest.fixture(scope="module")
def head(head_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(head_state, path)
    return path


@pytest.fixture
def options(tiny_clip, head):
    return {
        "clip": tiny_clip.name,
        "clip_weights": str(tiny_clip.path),
        "head": str(head),
        "device": "cpu",
    }


def laion_points(state, features):
    """The head without any module: five affine maps, one after the other."""
    x = features
    for layer in (0, 2, 4, 6, 7):
        x = x @ state[f"layers.{layer}.weight"].double().T + state[f"layers.{layer}.bias"].double()
    return x[:, 0]


def refused(**options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("aesthetic", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("aesthetic: ")
    return message


def test_agrees_with_an_implementation_written_here(options, reference, head_state, pictures):
    scorer = scorers.load("aesthetic", **options)
    expected = laion_points(head_state, reference.images(pictures)).numpy()
    assert expected.std() > 0.3
    scores = scorer(pictures, None)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    assert (scores.dtype, scores.shape) == (np.float32, (len(pictures),))
    assert scorer([]).shape == (0,)


def test_batch_equals_one_by_one(options, pictures):
    scorer = scorers.load("aesthetic", batch_size=2, **options)
    apart = np.concatenate([scorer([image]) for image in pictures])
    np.testing.assert_allclose(scorer(pictures), apart, rtol=0, atol=1e-4)


def test_odd_modes_score_as_what_they_show(options, pictures):
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = pictures[2].transpose(Image.Transpose.ROTATE_270)
    turned.info["exif"] = exif.tobytes()
    shown = [pictures[2], turned, pictures[2].convert("RGBA"), pictures[4]]
    scores = scorers.load("aesthetic", **options)(shown)
    np.testing.assert_allclose(scores[1:3], scores[0], rtol=0, atol=1e-4)
    assert abs(scores[3] - scores[0]) > 0.01


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_laions_legacy_file_is_the_same_scorer(options, head_state, tmp_path, suffix, pictures):
    path = tmp_path / f"head.{suffix}"
    save_file(head_state, path) if suffix == "safetensors" else torch.save(head_state, path)
    scorer, again = (scorers.load("aesthetic", **{**options, "head": h}) for h in (path, str(path)))
    original = scorers.load("aesthetic", **options)
    assert scorer.fingerprint == again.fingerprint == original.fingerprint
    np.testing.assert_allclose(scorer(pictures), original(pictures), rtol=0, atol=1e-5)


def test_the_head_has_laions_keys_and_shapes():
    shapes = {key: tuple(value.shape) for key, value in aesthetic.HEAD.build().state_dict().items()}
    assert shapes == LAION_SHAPES


def test_the_real_vit_l_14_gives_what_the_head_reads():
    with torch.device("meta"):
        model = open_clip.create_model(DEFAULT_CLIP, device="meta")
        features = model.encode_image(torch.empty(2, 3, 224, 224))
        assert aesthetic.HEAD.build()(features).shape == (2, 1)
    assert features.shape == (2, aesthetic.HEAD.width) == (2, 768)
    tower = {key: value.shape for key, value in model.visual.state_dict().items()}
    assert tower["conv1.weight"] == (1024, 3, 14, 14)
    assert tower["positional_embedding"] == (257, 1024)
    assert "transformer.resblocks.23.mlp.c_fc.weight" in tower
    assert "transformer.resblocks.24.mlp.c_fc.weight" not in tower
    # its activation is OpenAI's QuickGELU
    fed = model.visual.transformer.resblocks[0].mlp.gelu
    assert fed(torch.tensor(1.0)).item() == pytest.approx(1 / (1 + np.exp(-1.702)), abs=1e-6)


def test_the_default_head_comes_from_the_hub_at_a_pinned_revision(options, head, monkeypatch):
    import huggingface_hub

    asked = []

    def hf_hub_download(repo, filename, *, revision):
        asked.append((repo, filename, revision))
        return str(head)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    scorer = scorers.load("aesthetic", **{**options, "head": None})
    assert asked == [(aesthetic.HUB_REPO, "model.safetensors", aesthetic.HUB_REVISION)]
    assert len(aesthetic.HUB_REVISION) == 40
    assert scorer.options["head"] is None
    assert scorer.fingerprint == scorers.load("aesthetic", **options).fingerprint


def test_options_rebuild_the_scorer(options, pictures):
    scorer = scorers.load("aesthetic", batch_size=4, **options)
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert (again.fingerprint, again.options) == (scorer.fingerprint, scorer.options)
    np.testing.assert_allclose(again(pictures), scorer(pictures), rtol=0, atol=1e-5)


def test_loading_the_head_leaves_the_seed_alone(head):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    aesthetic.load_head(head)
    assert torch.equal(torch.rand(4), expected)


def test_fingerprint_depends_on_the_head(options, head_state, tmp_path):
    changed = {**head_state, "layers.7.bias": head_state["layers.7.bias"] + 1}
    save_file(changed, tmp_path / "changed.safetensors")
    other = scorers.load("aesthetic", **{**options, "head": str(tmp_path / "changed.safetensors")})
    default = scorers.load("aesthetic", **options)
    assert other.fingerprint != default.fingerprint
    clip = [text[text.index("clip=") :] for text in (other.fingerprint, default.fingerprint)]
    assert clip[0] == clip[1]


def test_aesthetic_and_clip_score_share_one_clip(options):
    first = scorers.load("aesthetic", **options)
    second = scorers.load("clip_score", **{k: v for k, v in options.items() if k != "head"})
    assert first._clip is second._clip


def test_a_malicious_head_is_refused_and_not_run(options, head_state, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    torch.save({**head_state, "layers.7.bias": Evil()}, tmp_path / "evil.pth")
    assert "evil.pth" in refused(**{**options, "head": str(tmp_path / "evil.pth")})
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "not tensors"])
def test_a_head_that_is_none(options, head_state, tmp_path, change):
    state = dict(head_state)
    if change == "missing":
        del state["layers.6.bias"]
    elif change == "extra":
        state["layers.9.bias"] = torch.zeros(1)
    elif change == "shape":
        state["layers.0.weight"] = torch.zeros(1024, 512)
    path = tmp_path / "odd.pth"
    torch.save([1, 2] if change == "not tensors" else state, path)
    assert "LAION's five layers" in refused(**{**options, "head": str(path)})


def test_a_clip_of_another_width_is_refused_at_once(options, tiny_clip, tmp_path):
    config = open_clip.get_model_config(tiny_clip.name)
    config["embed_dim"] = 512
    (tmp_path / "tiny-narrow.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-narrow.json")
    save_file(open_clip.create_model("tiny-narrow").state_dict(), tmp_path / "n.safetensors")
    narrow = {"clip": "tiny-narrow", "clip_weights": str(tmp_path / "n.safetensors")}
    message = refused(**{**options, **narrow})
    assert "512" in message and "768" in message and DEFAULT_CLIP in message
