"""ImageReward against BLIP written here, in plain tensor operations on a checkpoint of the released
layout: the package image-reward wants releases of timm and transformers from before ours."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import scorers
from scorers.image_reward import MEAN, STD

WIDE, TEXT, SIDE, PATCH, LAYERS = 64, 128, 32, 8, 2  # widths of 64 are a head each, as released
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "apple", "cat", "very"]
PROMPTS = ["a red apple", "cat", "", "very " * 50 + "red", "a cat", "zebra", "a red cat"]


def shapes():
    """Every name in ImageReward.pt and its shape, at this size."""
    linear = lambda name, out, given: {f"{name}.weight": (out, given), f"{name}.bias": (out,)}  # noqa: E731
    norm = lambda name, width: {f"{name}.weight": (width,), f"{name}.bias": (width,)}  # noqa: E731
    see, read = "blip.visual_encoder", "blip.text_encoder"
    found = {
        f"{see}.cls_token": (1, 1, WIDE),
        f"{see}.pos_embed": (1, 1 + (SIDE // PATCH) ** 2, WIDE),
        f"{see}.patch_embed.proj.weight": (WIDE, 3, PATCH, PATCH),
        f"{see}.patch_embed.proj.bias": (WIDE,),
        **norm(f"{see}.norm", WIDE),
        f"{read}.embeddings.position_ids": (1, 40),
        f"{read}.embeddings.word_embeddings.weight": (len(WORDS) + 2, TEXT),
        f"{read}.embeddings.position_embeddings.weight": (40, TEXT),
        **norm(f"{read}.embeddings.LayerNorm", TEXT),
        **linear("blip.vision_proj", 16, WIDE),
        **linear("blip.text_proj", 16, TEXT),
    }
    for layer in range(LAYERS):
        block = f"{see}.blocks.{layer}"
        found |= norm(f"{block}.norm1", WIDE) | norm(f"{block}.norm2", WIDE)
        found |= linear(f"{block}.attn.qkv", 3 * WIDE, WIDE)
        found |= linear(f"{block}.attn.proj", WIDE, WIDE)
        found |= linear(f"{block}.mlp.fc1", 96, WIDE) | linear(f"{block}.mlp.fc2", WIDE, 96)
        block = f"{read}.encoder.layer.{layer}"
        for part, given in (("attention", TEXT), ("crossattention", WIDE)):
            found |= linear(f"{block}.{part}.self.query", TEXT, TEXT)
            found |= linear(f"{block}.{part}.self.key", TEXT, given)
            found |= linear(f"{block}.{part}.self.value", TEXT, given)
            found |= linear(f"{block}.{part}.output.dense", TEXT, TEXT)
            found |= norm(f"{block}.{part}.output.LayerNorm", TEXT)
        found |= linear(f"{block}.intermediate.dense", 160, TEXT)
        found |= linear(f"{block}.output.dense", TEXT, 160)
        found |= norm(f"{block}.output.LayerNorm", TEXT)
    given = TEXT
    for place, out in zip((0, 2, 4, 6, 7), (1024, 128, 64, 16, 1), strict=True):
        found |= linear(f"mlp.layers.{place}", out, given)
        given = out
    return found


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(9)
    found = {}
    for name, shape in shapes().items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("position_ids"):
            found[name] = torch.arange(shape[1])[None]
        elif len(shape) == 1:  # biases, and the gains of norms
            found[name] = 0.3 * noise + ("orm" in name and name.endswith("weight"))
        elif "embed" in name or "token" in name:
            found[name] = noise
        else:
            found[name] = 1.5 * noise * shape[-1] ** -0.5
    found["blip.visual_encoder.patch_embed.proj.weight"] *= 0.1
    return found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = {word: index for index, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=words, do_lower_case=True).save_pretrained(folder)
    return folder


@pytest.fixture
def options(state, tokenizer, tmp_path):
    torch.save(state, tmp_path / "ImageReward.pt")
    return {"model": str(tmp_path), "tokenizer": str(tokenizer), "device": "cpu"}


class Reference:
    """The published computation, one picture and prompt at a time, in float64."""

    def __init__(self, state):
        self.state = {k: v.double() for k, v in state.items()}

    def __call__(self, image, prompt):
        seen = self._see(image)
        x = self._read(prompt, seen)[0]
        for place in (0, 2, 4, 6, 7):
            x = self._linear(x, f"mlp.layers.{place}")
        return float((x[0] - 0.16717362830052426) / 1.0333394966054072)

    def _see(self, image):
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        width, height = image.size
        scale = SIDE / min(width, height)
        wide, high = int(width * scale + 1e-9), int(height * scale + 1e-9)
        image = image.resize((wide, high), Image.BICUBIC)
        left, top = round((wide - SIDE) / 2), round((high - SIDE) / 2)
        array = np.asarray(image, float)[top : top + SIDE, left : left + SIDE] / 255
        pixels = torch.from_numpy((array - mean) / std).permute(2, 0, 1)
        patches = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
        patches = patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        see = "blip.visual_encoder"
        kernel = self.state[f"{see}.patch_embed.proj.weight"].flatten(1)
        x = patches @ kernel.T + self.state[f"{see}.patch_embed.proj.bias"]
        x = torch.cat([self.state[f"{see}.cls_token"][0], x]) + self.state[f"{see}.pos_embed"][0]
        for layer in range(LAYERS):
            block = f"{see}.blocks.{layer}"
            y = self._norm(x, f"{block}.norm1", 1e-6)
            q, k, v = self._linear(y, f"{block}.attn.qkv").chunk(3, dim=1)
            x = x + self._linear(self._attend(q, k, v), f"{block}.attn.proj")
            y = self._linear(self._norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")
            x = x + self._linear(self._gelu(y), f"{block}.mlp.fc2")
        return self._norm(x, f"{see}.norm", 1e-6)

    def _read(self, prompt, seen):
        words = [WORDS.index(w) if w in WORDS else 1 for w in prompt.split()]
        ids = [2, *words[:33], 3]  # 35 in all
        read = "blip.text_encoder"
        x = self.state[f"{read}.embeddings.word_embeddings.weight"][ids]
        x = x + self.state[f"{read}.embeddings.position_embeddings.weight"][: len(ids)]
        x = self._norm(x, f"{read}.embeddings.LayerNorm")
        for layer in range(LAYERS):
            block = f"{read}.encoder.layer.{layer}"
            for part in ("attention", "crossattention"):
                source = x if part == "attention" else seen
                q = self._linear(x, f"{block}.{part}.self.query")
                k = self._linear(source, f"{block}.{part}.self.key")
                v = self._linear(source, f"{block}.{part}.self.value")
                y = self._linear(self._attend(q, k, v), f"{block}.{part}.output.dense")
                x = self._norm(x + y, f"{block}.{part}.output.LayerNorm")
            y = self._gelu(self._linear(x, f"{block}.intermediate.dense"))
            y = self._linear(y, f"{block}.output.dense")
            x = self._norm(x + y, f"{block}.output.LayerNorm")
        return x

    @staticmethod
    def _attend(q, k, v):
        q, k, v = (part.unflatten(1, (-1, 64)).transpose(0, 1) for part in (q, k, v))
        weights = (q @ k.transpose(1, 2) / 8).softmax(-1)
        return (weights @ v).transpose(0, 1).flatten(1)

    @staticmethod
    def _gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    def _linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def _norm(self, x, name, eps=1e-12):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def refused(**options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("image_reward", **options)
    message = str(caught.value)
    assert message.startswith("image_reward: ") and "\n" not in message
    return message


def test_against_blip_written_here(options, state, pictures):
    scorer = scorers.load("image_reward", **options)
    reference = Reference(state)
    wanted = [reference(image, prompt) for image, prompt in zip(pictures, PROMPTS, strict=True)]
    scores = scorer(pictures, PROMPTS)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-4)
    assert (scores.dtype, scores.shape) == (np.float32, (7,)) and np.ptp(scores) > 0.5
    # the picture and the prompt both count
    same_prompt = scorer(pictures, ["a cat"] * 7)
    assert np.ptp(same_prompt) > 0.05 and np.ptp(scorer([pictures[0]] * 7, PROMPTS)) > 0.05


def test_batch_equals_one_by_one_and_repeats(options, pictures):
    scorer = scorers.load("image_reward", batch_size=3, **options)
    together = scorer(pictures, PROMPTS)
    apart = [scorer([p], [q])[0] for p, q in zip(pictures, PROMPTS, strict=True)]
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-4)
    assert np.array_equal(scorer(pictures, PROMPTS), together)


def test_the_released_numbers():
    assert (MEAN, STD) == (0.16717362830052426, 1.0333394966054072)


def test_options_rebuild_the_scorer(options, state, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    scorer = scorers.load("image_reward", **options)
    assert torch.equal(torch.rand(4), expected)
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert (again.fingerprint, again.options) == (scorer.fingerprint, scorer.options)
    assert (scorer.needs_prompts, scorer.compares_within) == (True, "prompt")
    safe = {key: value.contiguous() for key, value in state.items()}
    save_file(safe, tmp_path / "w.safetensors")
    same = scorers.load("image_reward", **{**options, "model": tmp_path / "w.safetensors"})
    assert same.fingerprint == scorer.fingerprint
    safe["mlp.layers.7.bias"] = safe["mlp.layers.7.bias"] + 1
    save_file(safe, tmp_path / "ImageReward.safetensors")  # which comes before the .pt
    assert scorers.load("image_reward", **options).fingerprint != scorer.fingerprint


@pytest.mark.parametrize("lost", ["blip.visual_encoder.norm.bias", "mlp.layers.6.weight"])
def test_a_checkpoint_that_lacks_a_weight_is_refused(options, state, tmp_path, lost):
    kept = {key: value for key, value in state.items() if key != lost}
    torch.save(kept, tmp_path / "ImageReward.pt")
    assert "is no checkpoint of ImageReward" in refused(**options)
    torch.save({"x": torch.zeros(1)}, tmp_path / "ImageReward.pt")
    assert "is no checkpoint of ImageReward" in refused(**options)


def test_bad_options(options):
    assert "tokenizer=" in refused(**{**options, "tokenizer": "no such folder"})
    assert "batch_size=0" in refused(**options, batch_size=0)
    assert "precision=fp16 needs a GPU" in refused(**options, precision="fp16")
    scorer = scorers.load("image_reward", **options)
    with pytest.raises(scorers.ScorerError, match="image_reward: prompts is None"):
        scorer([Image.new("RGB", (8, 8))])
