"""ric prompt."""

import json
import shutil
from dataclasses import replace

import pytest

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.adapters.adapter import AVERAGE, Adapter
from ric_diffusion.rewards import Curve
from support.prompts import knowing

LONG = "red apple " * 40


@pytest.fixture
def asked(root):
    return ["prompt", "--adapter", root / "text" / "adapter", "--prompt"]


@pytest.fixture
def seen(root, monkeypatch):
    """seen(folder, prompt, **asked): the texts that the pipeline encodes, positive first."""

    def run(folder, prompt, **asked):
        pipe = RiCStableDiffusionPipeline.from_pretrained(root / "model")
        pipe.set_progress_bar_config(disable=True)
        pipe.load_adapter(folder)
        texts = []
        encode = pipe.encode_prompt

        def listen(given, *args, **kwargs):
            texts.extend(given or ())  # the stock call has the states already
            return encode(given, *args, **kwargs)

        monkeypatch.setattr(pipe, "encode_prompt", listen)
        pipe(prompt, num_inference_steps=1, output_type="latent", **asked)
        return texts

    return run


def test_it_is_the_text(ric, asked):
    done = ric(*asked, "red apple", "--targets", "colorfulness=0.26", "compressibility=-1.5")
    assert (done.code, done.err) == (0, "")
    assert done.out == "red apple <compressibility> -1.5 <colorfulness> 0.3\n"
    assert ric(*asked, "red apple").out == "red apple\n"  # all on auto


@pytest.mark.parametrize("prompt", ["red apple", LONG, "forged <colorfulness> 3.0"])
@pytest.mark.parametrize(
    "args, asked",
    [
        (["--targets", "colorfulness=9"], {"targets": {"colorfulness": 9.0}}),
        (["--preference", "colorfulness=0.7", "compressibility=0.3"],
         {"preference": {"colorfulness": 0.7, "compressibility": 0.3}}),
        (["--preference", "colorfulness=1", "--mapping", "l2"],
         {"preference": {"colorfulness": 1}, "mapping": "l2"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("calibrated", [False, True])
def test_it_is_what_the_pipeline_reads(ric, root, seen, tmp_path, prompt, args, asked, calibrated):
    folder = root / "text" / "adapter"
    if calibrated:
        folder = shutil.copytree(folder, tmp_path / "calibrated")
        curve = Curve(requested=(-2.0, 1.0, 2.5), obtained=(-0.5, 0.4, 0.6))
        about = replace(Adapter.load(folder), calibration={"colorfulness": curve}).about()
        (folder / "ric_adapter.json").write_text(json.dumps(about))
        (folder / "manifest.json").unlink()
    done = ric("prompt", "--adapter", folder, "--prompt", prompt, *args)
    assert done.code == 0, done.err
    assert done.out == seen(folder, prompt, **asked)[0] + "\n"
    if calibrated and "targets" in asked:
        assert "<colorfulness> 2.5" in done.out  # where the curve ends
    said = "colorfulness: 9.00 z is beyond the reachable range; 0.60 is used" in done.err
    assert said == (calibrated and "targets" in asked)
    assert ("the prompt was cut; 64 tokens" in done.err) == (prompt is LONG)


def test_without_the_model_a_prompt_counts_as_an_average_one(ric, root, tmp_path):
    folder = shutil.copytree(root / "text" / "adapter", tmp_path / "calibrated")
    curve = Curve(requested=(-2.0, 2.0), obtained=(-0.5, 0.5))
    known = knowing(curve, [[0.0] * 8, [1.0] * 8], offset=0.5)
    about = replace(Adapter.load(folder), calibration={"colorfulness": known}).about()
    (folder / "ric_adapter.json").write_text(json.dumps(about))
    (folder / "manifest.json").unlink()
    done = ric("prompt", "--adapter", folder, "--prompt", "car", "--targets", "colorfulness=0.25")
    assert (done.code, done.out) == (0, "car <colorfulness> 1.0\n")
    assert AVERAGE in done.err


def test_a_negative_prompt_can_be_written_too(ric, asked, root, seen):
    done = ric(*asked, "", "--targets", "colorfulness=-1.5")
    negative = {"negative_targets": {"colorfulness": -1.5}}
    assert done.out == seen(root / "text" / "adapter", "red apple", **negative)[1] + "\n"


def test_another_model_lends_its_tokenizer(ric, asked, root, tmp_path):
    copied = shutil.copytree(root / "model", tmp_path / "model")
    config = copied / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 32}))
    own, other = (ric(*asked, LONG, *more) for more in ([], ["--model", copied]))
    assert other.code == 0 and len(other.out) < len(own.out) and "32 tokens" in other.err


@pytest.mark.parametrize(
    "said, args",
    [
        ("reads rewards as learned tokens, which no text can say; use `ric generate`",
         ["--adapter", "{root}/embedding/adapter"]),
        ("not an adapter folder, it has no ric_adapter.json", ["--adapter", "empty"]),
        ("./gone: no such folder", ["--adapter", "./gone"]),
        ("--model ./gone: no such file or folder",
         ["--adapter", "{root}/text/adapter", "--model", "./gone"]),
        ("did you mean 'emoji-64'?", ["--adapter", "{root}/text/adapter", "--model", "emoji64"]),
        ("--mapping: 'nope' is none of its choices",
         ["--adapter", "{root}/text/adapter", "--mapping", "nope"]),
        ("unknown reward 'colours'",
         ["--adapter", "{root}/text/adapter", "--targets", "colours=1"]),
        ("every weight is 0",
         ["--adapter", "{root}/text/adapter", "--preference", "colorfulness=0"]),
        ("given twice", ["--adapter", "{root}/text/adapter", "--targets", "colorfulness=1",
                         "colorfulness=2"]),
        ("not allowed with", ["--adapter", "x", "--targets", "a=1", "--preference", "a=1"]),
    ],
)  # fmt: skip
def test_bad_input(refused, said, args):
    refused(said, "prompt", "--prompt", "red apple", *args)
