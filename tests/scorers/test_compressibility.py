import io
import json
import re
import time
from importlib import resources

import numpy as np
import PIL
import pytest
from PIL import Image, features
from safetensors import safe_open

import scorers
from scorers import compressibility


def jpeg_kilobytes(image, quality, side=None):
    if side is not None:
        image = image.resize((side, side), resample=Image.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return len(file.getvalue()) / 1000


def test_the_papers_setting_is_the_default(pictures):
    scores = scorers.load("compressibility")(pictures, None)
    assert scores.dtype == np.float32
    assert scores.shape == (len(pictures),)
    expected = [-jpeg_kilobytes(image, 95, 512) for image in pictures]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scorers.load("compressibility").options == {"quality": 95, "resize": 512}


@pytest.mark.parametrize(("quality", "side"), [(95, None), (40, 64), (100, 1)])
def test_options(pictures, quality, side):
    scorer = scorers.load("compressibility", quality=quality, resize=side)
    expected = [-jpeg_kilobytes(image, quality, side) for image in pictures]
    np.testing.assert_allclose(scorer(pictures), expected, rtol=1e-6)


def test_incompressibility_is_the_negative(pictures):
    spec = "compressibility:quality=80,resize=none"
    scorer = scorers.load(f"in{spec}")
    assert np.array_equal(scorer(pictures), -scorers.load(spec)(pictures))
    assert (scorer.name, scorer.unit) == ("incompressibility", "kB")


def test_flat_pictures_score_higher_than_noise(rng):
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    flat, noisy = scorers.load("compressibility:resize=none")([Image.new("RGB", (64, 64)), noise])
    assert flat > noisy + 3


def test_threads_keep_the_order(pictures):
    scorer = scorers.load("compressibility:resize=none")
    many = pictures * 20
    order = np.random.default_rng(1).permutation(len(many))
    one_by_one = np.concatenate([scorer([many[index]]) for index in order])
    assert len(set(one_by_one.tolist())) == len(pictures)
    assert np.array_equal(scorer([many[index] for index in order]), one_by_one)


def test_turned_by_exif_scores_as_upright(pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = pictures[-1]
    ignored = upright.transpose(Image.Transpose.ROTATE_90)
    turned = ignored.copy()
    turned.info["exif"] = exif.tobytes()
    for resize in (None, 100):
        scorer = scorers.load("compressibility", resize=resize)
        assert scorer([turned]) == scorer([upright])
        assert scorer([ignored]) != scorer([upright])


def test_comments_and_profiles_do_not_weigh(pictures):
    scorer = scorers.load("compressibility:resize=none")
    plain = scorer([pictures[0]])
    pictures[0].info.update(comment=b"x" * 5000, icc_profile=b"y" * 5000, xmp=b"z" * 5000)
    assert scorer([pictures[0]]) == plain


def test_transparent_scores_as_white():
    clear = Image.new("RGBA", (32, 32), (200, 10, 10, 0))
    scorer = scorers.load("compressibility")
    assert scorer([clear]) == scorer([Image.new("RGB", (32, 32), "white")])


@pytest.fixture
def encoder(monkeypatch):
    """Sets how an encoder of another build writes files: what it does to the size in bytes."""
    usual = compressibility.count_bytes

    def use(change):
        monkeypatch.setattr(
            compressibility, "count_bytes", lambda rgb, *options: change(usual(rgb, *options))
        )
        compressibility.encoder_digest.cache_clear()

    yield use
    monkeypatch.undo()
    compressibility.encoder_digest.cache_clear()


SPECS = ["compressibility", "compressibility:resize=none", "incompressibility:quality=80"]


@pytest.mark.parametrize("spec", SPECS)
def test_an_encoder_that_gives_other_sizes_has_another_fingerprint(spec, encoder):
    usual = scorers.load(spec).fingerprint
    found = {usual}
    for change in (lambda size: size + 1, lambda size: size - size // 1000, lambda size: size // 2):
        encoder(change)
        found.add(scorers.load(spec).fingerprint)
    assert len(found) == 4


@pytest.mark.parametrize("spec", SPECS)
def test_a_version_alone_is_not_in_the_fingerprint(spec, encoder, monkeypatch):
    usual = scorers.load(spec).fingerprint
    monkeypatch.setattr(PIL, "__version__", "99.1")
    monkeypatch.setattr(features, "version_feature", lambda feature: "9.9.9")
    monkeypatch.setattr(features, "version_codec", lambda codec: "9.9.9")
    encoder(lambda size: size)
    assert scorers.load(spec).fingerprint == usual


def test_options_are_in_the_fingerprint():
    default = scorers.load("compressibility").fingerprint
    assert default == scorers.load("compressibility:quality=95,resize=512").fingerprint
    others = [
        scorers.load("compressibility:quality=94").fingerprint,
        scorers.load("compressibility:resize=256").fingerprint,
        scorers.load("compressibility:resize=none").fingerprint,
        scorers.load("incompressibility").fingerprint,
    ]
    assert len({default, *others}) == len(others) + 1
    assert not any(re.search(r"\n|None", text) for text in (default, *others))


def test_the_fingerprint_waits_until_it_is_read_and_is_quick(encoder):
    encoded = []
    encoder(lambda size: encoded.append(size) or size)
    scorer = scorers.load("compressibility:resize=65500")  # never probed at that size
    assert not encoded
    start = time.process_time()
    first, count = scorer.fingerprint, len(encoded)
    assert time.process_time() - start < 0.2  # a few milliseconds on an idle machine
    assert scorer.fingerprint == first and len(encoded) == count <= 10


def test_the_bundled_adapter_was_scored_as_this_machine_scores():
    root = resources.files("ric_diffusion") / "assets" / "emoji-64" / "ric_adapter"
    about = json.loads((root / "ric_adapter.json").read_text(encoding="utf-8"))
    for reward in about["reward_space"]["rewards"]:
        scorer = scorers.load(reward["scorer"]["name"], **reward["scorer"]["options"])
        assert scorer.fingerprint == reward["fingerprint"]
    with safe_open(str(root / "pytorch_lora_weights.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["ric_adapter"]) == about


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 0},
        {"quality": 101},
        {"quality": 95.0},
        {"quality": True},
        {"quality": None},
        {"quality": "high"},
        {"resize": 0},
        {"resize": 65501},
        {"resize": "512"},
    ],
)
def test_bad_values_are_named(options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("compressibility", **options)
    option, value = next(iter(options.items()))
    message = str(caught.value)
    assert "compressibility" in message
    assert option in message
    assert repr(value) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["compressibility", "incompressibility"])
def test_options_rebuild_the_scorer(name, pictures):
    scorer = scorers.load(f"{name}:quality=70,resize=none")
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert again.fingerprint == scorer.fingerprint
    assert np.array_equal(again(pictures), scorer(pictures))
