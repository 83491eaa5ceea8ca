"""What `score` takes for a picture's prompt: its own file's, a text beside it, or metadata."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import scorers
from ric_diffusion import api
from ric_diffusion.data.embedded import prompt_in
from ric_diffusion.io.errors import InputError

A1111 = "a red apple,\nripe\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1"
COMFYUI = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["5", 0], "text": "no"}},
    "5": {"class_type": "ConditioningCombine", "inputs": {"conditioning": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
    "8": {"class_type": "PrimitiveString", "inputs": {"string": "a red apple"}},
}


def encoding(**texts):
    """A workflow whose prompt is in these inputs of one node."""
    return json.dumps({"3": {"inputs": {"positive": ["6", 0]}}, "6": {"inputs": texts}})


class Length(scorers.BaseScorer):
    """How long the prompt is."""

    name, unit, needs_prompts = "length_of_prompt", "letters", True

    def __init__(self):
        self.options, self.fingerprint, self.seen = {}, "length", []

    def _score(self, images, prompts):
        self.seen += prompts
        return [len(prompt) for prompt in prompts]


def png(path, **texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    Image.effect_noise((8, 8), 50).convert("RGB").save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"prompt": "a red apple"}, "a red apple"),
        ({"parameters": A1111}, "a red apple,\nripe"),
        ({"parameters": "a red apple\nSteps: 3, Seed: 1"}, "a red apple"),
        ({"parameters": "a red apple"}, "a red apple"),
        ({"prompt": json.dumps(COMFYUI), "workflow": "{}"}, "a red apple"),
        ({"prompt": "\n " + json.dumps(COMFYUI)}, "a red apple"),
        ({"prompt": encoding(text_g="a red apple", text_l="red")}, "a red apple"),  # SDXL
        ({"prompt": encoding(text_g="", text_l="a red apple")}, "a red apple"),
        ({"prompt": json.dumps({"1": {"inputs": {"positive": ["1", 0]}}})}, None),
        ({"prompt": "{red|green} apple"}, "{red|green} apple"),
        ({"Software": "none"}, None),
    ],
)
def test_the_prompt_in_a_png(tmp_path, texts, expected):
    png(tmp_path / "x.png", **texts)
    assert prompt_in(tmp_path / "x.png") == expected


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_prompt_in_exif(tmp_path, suffix):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / f"x.{suffix}", exif=exif)
    assert prompt_in(tmp_path / f"x.{suffix}") == "a red apple,\nripe"
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1")
    assert prompt_in(tmp_path / "broken.jpg") is None


def test_order_of_what_is_asked(tmp_path):
    png(tmp_path / "0.png", prompt="in the file")
    png(tmp_path / "1.png")
    png(tmp_path / "2.png")
    png(tmp_path / "3.png")
    for name in ("0", "1"):
        (tmp_path / f"{name}.txt").write_text("beside it")
    row = {"file_name": "2.png", "text": "in the metadata"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    scorer = Length()
    table = api.score(tmp_path, [scorer, "brightness"])
    expected = ["in the file", "beside it", "in the metadata"]
    assert scorer.seen == expected and list(table.prompts) == expected
    np.testing.assert_array_equal(table.scores[:, 0], [len(text) for text in expected])
    left_out = {tmp_path / "3.png": "no prompt, which length_of_prompt needs"}
    assert table.unreadable == left_out
    assert table.rows()[0]["prompt"] == "in the file"
    assert list(api.score(tmp_path / "1.png", [scorer]).prompts) == ["beside it"]


def test_no_prompt_at_all(tmp_path):
    png(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"length_of_prompt needs prompts, and no picture has one"):
        api.score(tmp_path, [Length()])
    table = api.score(tmp_path, ["brightness"])
    assert len(table.files) == 1 and "prompt" not in table.rows()[0]


def test_what_we_generate_is_scored_against_its_prompt(tmp_path):
    api.generate("emoji-64", "red apple", out=tmp_path, sampling={"num_inference_steps": 1})
    scorer = Length()
    api.score(tmp_path, [scorer])
    assert scorer.seen == ["red apple"]
