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


FLUX = {
    "6": {"inputs": {"text": "a red apple", "clip": ["11", 0]}},
    "13": {"inputs": {"noise": ["25", 0], "guider": ["22", 0]}},
    "22": {"inputs": {"model": ["30", 0], "conditioning": ["26", 0]}},
    "26": {"inputs": {"guidance": 3.5, "conditioning": ["5", 0]}},
    "5": {"inputs": {"conditioning_1": ["6", 0], "conditioning_2": ["8", 0]}},
    "8": {"inputs": {"text": "at night"}},
}


def encoding(node=None, **texts):
    """A workflow whose prompt is in these inputs of one node, or of another that it names."""
    graph = {"3": {"positive": ["6", 0]}, "6": texts, "9": node or {}}
    return json.dumps({key: {"inputs": inputs} for key, inputs in graph.items()})


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
        ({"prompt": encoding(text=["9", 0], node={"value": "a red apple"})}, "a red apple"),
        ({"prompt": json.dumps(FLUX)}, "a red apple"),
        ({"prompt": json.dumps({"1": {"inputs": {"positive": ["1", 0]}}})}, None),
        ({"prompt": "{red|green} apple"}, "{red|green} apple"),
        ({"Software": "none"}, None),
    ],
)
def test_the_prompt_in_a_png(tmp_path, texts, expected):
    png(tmp_path / "x.png", **texts)
    assert prompt_in(tmp_path / "x.png") == expected


@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + A1111.encode("utf-16-be"),
        b"UNICODE\0" + A1111.encode("utf-16-le"),
        b"UNICODE\0" + A1111.encode("utf-16"),
        b"UNICODE\0" + (A1111 + "\0\0").encode("utf-16-be"),
        b"ASCII\0\0\0" + A1111.encode() + b"\0",
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_prompt_in_exif(tmp_path, suffix, comment):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
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


def test_a_picture_alone_is_looked_at_alone(tmp_path):
    """What lies elsewhere in its folder may be anything."""
    (tmp_path / "in" / "other").mkdir(parents=True)
    (tmp_path / "in" / "more").symlink_to(tmp_path)
    (tmp_path / "in" / "other" / "metadata.csv").write_text("a,b\n1,2\n")
    for name in ("0", "1", "2"):
        png(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "0.txt").write_text("beside it")
    row = {"file_name": "1.png", "text": "in the metadata"}
    (tmp_path / "in" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    given = [tmp_path / "in" / f"{name}.png" for name in ("1", "0", "2")]
    assert list(api.score(given, [Length()]).prompts) == ["in the metadata", "beside it"]


class Picky(Length):
    """Fails on wide pictures, or with ``broken`` on all."""

    def __init__(self, broken=False):
        super().__init__()
        self.needs_prompts, self.broken = False, broken

    def _score(self, images, prompts):
        if self.broken or any(image.width > image.height for image in images):
            raise OSError("broken data stream")
        return [float(image.width) for image in images]


def test_what_a_scorer_fails_on_is_left_out(tmp_path):
    for i, size in enumerate([(8, 8), (9, 8), (7, 8)]):
        Image.effect_noise(size, 50).convert("RGB").save(tmp_path / f"{i}.png")
    table = api.score(tmp_path, [Picky(), "brightness"])
    assert [path.name for path in table.files] == ["0.png", "2.png"]
    np.testing.assert_array_equal(table.scores[:, 0], [8, 7])
    (reason,) = table.unreadable.values()
    assert list(table.unreadable) == [tmp_path / "1.png"] and "broken data stream" in reason
    with pytest.raises(scorers.ScorerError, match="broken data stream"):
        api.score(tmp_path, [Picky(broken=True)])


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
