"""Scorers on one encoder take one pass between them, and none of them scores another number."""

import gc

import numpy as np
import pytest
import torch
from PIL import ImageDraw
from safetensors.torch import save_file

import scorers
from scorers import hardware
from scorers.clip import load_clip
from scorers.encoder import Encoder, in_batches
from scorers.head import Head

PROMPTS = ["cat", "a cat", "dog", "cat", "", "cat!", "a cat"]
HEAD = Head(name="layers", width=768, places=(0, 2, 4, 6, 7))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = HEAD.build().state_dict()
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file({key: 3 * value for key, value in state.items()}, path)
    return path


@pytest.fixture
def passes(monkeypatch):
    """The sizes of the passes that encoders took since: of pictures, of prompts."""
    sizes = {"_images": [], "_texts": []}
    kept = []

    def watch(encoder):
        kept.append(encoder)
        for name, found in sizes.items():
            function = getattr(encoder, name)

            def counted(batch, function=function, found=found):
                found.append(len(batch))
                return function(batch)

            monkeypatch.setattr(encoder, name, counted)
        return sizes

    return watch


@pytest.fixture(params=["open_clip", "transformers"])
def clip(request, tiny_clip, tiny_hub_clip):
    gc.collect()  # no encoder of another test
    if request.param == "transformers":
        return {"clip": str(tiny_hub_clip), "device": "cpu"}
    return {"clip": tiny_clip.name, "clip_weights": str(tiny_clip.path), "device": "cpu"}


def loaded(clip, head, **options):
    names = {"aesthetic": {"head": str(head)}, "clip_score": {}, "clip_iqa": {}}
    found = [scorers.load(name, **clip, **own, **options) for name, own in names.items()]
    if "clip_weights" not in clip:
        found.append(scorers.load("pickscore", model=clip["clip"], device="cpu", **options))
    return found


def test_one_pass_for_all(clip, head, passes, pictures):
    together, alone = loaded(clip, head), []
    (encoder,) = {scorer._clip for scorer in together}
    for scorer in together:
        encoder._seen = encoder._read = None
        alone.append(scorer(pictures, PROMPTS))
    encoder._seen = encoder._read = None
    sizes = passes(encoder)
    found = [scorer(list(pictures), list(PROMPTS)) for scorer in together]
    assert sizes["_images"] == [7]
    assert sizes["_texts"] == [5]  # distinct prompts, once
    for mine, theirs in zip(found, alone, strict=True):
        assert np.array_equal(mine, theirs)  # to the last bit
        assert np.ptp(mine) > 0


def test_a_pass_is_shared_as_a_whole_or_not_at_all(clip, head, passes, pictures):
    aesthetic, clip_score, *_ = loaded(clip, head)
    small = scorers.load("aesthetic", head=str(head), batch_size=2, **clip)
    sizes = passes(aesthetic._clip)["_images"]
    wanted = aesthetic(pictures)
    assert sizes == [7]
    aesthetic(pictures[:3])  # some of them, and one of another batch, are a pass of their own
    assert sizes == [7, 3]
    aesthetic(pictures[::-1])
    assert sizes == [7, 3, 7]
    small(pictures[::-1])
    assert sizes == [7, 3, 7, 2, 2, 2, 1]
    copies = [picture.copy() for picture in pictures]
    assert np.array_equal(aesthetic(copies), wanted)  # whatever was scored before
    clip_score([picture.convert("RGBA") for picture in pictures], PROMPTS)  # they look the same
    assert sizes == [7, 3, 7, 2, 2, 2, 1, 7]


def test_a_picture_that_was_painted_over_is_seen_anew(clip, head, pictures):
    aesthetic, _, clip_iqa, *_ = loaded(clip, head)
    before = aesthetic(pictures), clip_iqa(pictures)
    ImageDraw.Draw(pictures[2]).rectangle((0, 0, 20, 20), fill=(250, 5, 5))
    after = aesthetic(pictures), clip_iqa(pictures)
    for old, new in zip(before, after, strict=True):
        assert np.flatnonzero(np.abs(old - new) > 1e-3).tolist() == [2]


def test_what_does_not_fit_is_seen_in_halves_from_then_on(clip, head, monkeypatch, pictures):
    aesthetic = loaded(clip, head)[0]
    wanted = aesthetic(pictures)
    asked = []
    see = aesthetic._clip._images

    def small(pixels):
        asked.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError
        return see(pixels)

    monkeypatch.setattr(aesthetic._clip, "_images", small)
    pictures = pictures[::-1]
    np.testing.assert_allclose(aesthetic(pictures), wanted[::-1], rtol=0, atol=1e-4)
    assert asked == [7, 3, 3, 1]
    aesthetic(pictures[1:])
    assert asked == [7, 3, 3, 1, 3, 3]


def test_half_precision_is_another_encoder_and_says_so(clip, head, monkeypatch, pictures):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: True)
    full, half = loaded(clip, head), loaded(clip, head, precision="bf16")
    for one, other in zip(full, half, strict=True):
        assert one._clip is not other._clip
        assert one.fingerprint.endswith(" fp32") and other.fingerprint.endswith(" bf16")
        assert one.fingerprint[:-4] == other.fingerprint[:-4]
    points = [scorer(pictures) for scorer in (full[0], half[0])]
    assert 1e-4 < np.abs(points[0] - points[1]).max() < 0.1 * np.ptp(points[0])


class Mean(Encoder):
    """A network that is the mean of each channel."""

    def __init__(self):
        super().__init__(hardware.Compute(device=torch.device("cpu"), precision="fp32"))

    def _pixels(self, image):
        return torch.from_numpy(np.array(image.resize((4, 4)), np.float32)).permute(2, 0, 1)

    def _images(self, pixels):
        return pixels.mean(dim=(2, 3))

    def _texts(self, prompts):
        return torch.tensor([[len(p), 1.0] for p in prompts])


def test_an_encoder_gives_unit_vectors_in_the_order_asked(pictures):
    encoder = Mean()
    images = [pictures[i] for i in (0, 1, 1, 3, 0)]
    rows = encoder.encode_images(images, 2)
    assert rows.shape == (5, 3)
    assert torch.equal(rows[0], rows[4]) and torch.equal(rows[1], rows[2])
    means = np.stack([np.asarray(i.resize((4, 4)), float).mean(axis=(0, 1)) for i in images])
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.numpy(), wanted, rtol=0, atol=1e-5)
    texts = encoder.encode_texts(["aa", "a", "aa", "aaa"], 2)
    assert torch.allclose(texts[:, 0] / texts[:, 1], torch.tensor([2.0, 1, 2, 3]))


def test_a_picture_in_the_list_twice_is_prepared_by_one_thread(pictures):
    prepared, parts = [], []

    def prepare(image):
        prepared.append(image)
        return torch.zeros(1)

    def see(part, pixels):
        assert not torch.is_grad_enabled() and pixels.shape == (len(part), 1)
        parts.append(list(part))

    in_batches(see, [pictures[0]] * 3 + [pictures[1]], prepare, 3)
    assert parts == [[0, 1, 2], [3]]
    assert sorted(map(id, prepared)) == sorted(map(id, pictures[:2]))


def test_an_error_in_a_thread_ends_the_call(pictures):
    def prepare(image):
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        in_batches(lambda part, pixels: None, pictures, prepare, 2)


def test_the_same_call_repeats_bit_for_bit(clip, pictures):
    given = {"clip_weights": "openai", **clip}
    found = []
    for _ in range(2):
        encoder = load_clip("test", given["clip"], given["clip_weights"], "cpu")
        found.append(encoder.encode_images(pictures, 3))
        del encoder
        gc.collect()
    assert torch.equal(*found) and found[0] is not found[1]
