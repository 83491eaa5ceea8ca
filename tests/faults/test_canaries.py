"""What would write a file if it were run, planted wherever a file is loaded from: it never is, and
the refusal is one line."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file

import scorers
from ric_diffusion.api.picture_settings import TEXT, read_metadata
from ric_diffusion.cli import main
from ric_diffusion.data.embedded import prompt_in
from ric_diffusion.io.config import load_yaml
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.manifest import write_manifest
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.family import load_model
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from scorers.remote_schema import Answer, Description, parse
from support import sd, strangers
from support.lm import write_lm

FORBIDDEN = "weights_only=False", "trust_remote_code=True", "\x1b"


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """What the canary writes; also somebody who says yes to everything."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.syspath_prepend(str(tmp_path / "importable"))
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


class Canary:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def planted(mark):
    """Bytes that run when they are unpickled, plain or as torch writes them, which really do."""
    plain, buffer = pickle.dumps(Canary(mark)), io.BytesIO()
    torch.save({"weight": Canary(mark)}, buffer)
    pickle.loads(plain)
    assert mark.exists()
    mark.unlink()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert mark.exists()
    mark.unlink()
    return {"plain": plain, "torch": buffer.getvalue()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sd.write(tmp_path_factory.mktemp("model") / "sd")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return write_lm(tmp_path_factory.mktemp("model") / "lm")


def refused(call, *args, said="", **kwargs):
    """One line, which tells nobody how to have it run."""
    with pytest.raises((InputError, scorers.ScorerError)) as caught:
        call(*args, **kwargs)
    line = str(caught.value)
    assert said in line and "\n" not in line and len(line) <= 300
    assert not any(word in line for word in FORBIDDEN)


KINDS = pytest.mark.parametrize("kind", ["plain", "torch"])
LORA, ENCODER = strangers.DIFFUSERS, strangers.ENCODER


@KINDS
@pytest.mark.parametrize("file", [LORA, ENCODER, strangers.ABOUT, "manifest.json"])
@pytest.mark.parametrize("listed", [True, False])
def test_adapters(planted, tmp_path, kind, file, listed):
    folder = strangers.write(tmp_path / "adapter")
    (folder / file).write_bytes(planted[kind])
    if not listed:
        (folder / "manifest.json").unlink()
    elif file != "manifest.json":
        write_manifest(folder, [strangers.ABOUT, LORA, ENCODER])
    if file == "manifest.json" and not listed:
        strangers.family().read_adapter(folder)  # as before: nothing is left of it
    else:
        refused(strangers.family().read_adapter, folder, said=file)


@KINDS
def test_adapters_of_language_models(planted, tmp_path, kind):
    folder = strangers.write(tmp_path / "adapter", "text", of="causal-lm")
    weights = (folder / strangers.PEFT).rename(folder / "adapter_model.bin")
    weights.write_bytes(planted[kind])  # the name that peft itself would read
    (folder / "manifest.json").unlink()
    refused(strangers.family("causal-lm").read_adapter, folder, said="holds no LoRA")


@KINDS
@pytest.mark.parametrize("file", [checkpoint.TENSORS, checkpoint.NUMBERS])
def test_checkpoints_and_the_state_of_optimizers(planted, toy, tmp_path, kind, file):
    """Both are in one file of tensors and one of JSON, whose digests are as they are found."""
    loop = LoopConfig(steps=4, batch_size=4, precision="fp32")

    def train(resume):
        Trainer(toy.Toy(), toy.COUNT, loop, tmp_path, digest="toy", resume=resume).run()

    train(resume=False)
    for folder in checkpoint.checkpoints(tmp_path / "checkpoints"):
        (folder / file).write_bytes(planted[kind])
        write_manifest(folder, [checkpoint.TENSORS, checkpoint.NUMBERS])
    refused(train, resume=True, said=file)


@KINDS
def test_parts_of_a_model(planted, model, tmp_path, kind):
    folder = shutil.copytree(model, tmp_path / "model")
    [weights] = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(planted[kind])
    refused(load_model, str(folder), said="cannot be loaded")
    weights.rename(weights.with_suffix(".bin"))
    refused(load_model, str(folder), said="cannot be loaded")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("shard", ["shard.bin", "../shard.safetensors", "/shard.safetensors"])
def test_lists_of_shards(planted, model, tmp_path, part, shard):
    folder = shutil.copytree(model, tmp_path / "model")
    [weights] = (folder / part).glob("*.safetensors")
    names = dict.fromkeys(load_file(weights), shard)
    index = weights.with_name(f"{weights.name}.index.json")
    weights.rename(weights.with_name("kept"))
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / part / "shard.bin").write_bytes(planted["torch"])
    refused(load_model, str(folder), said=f"{index.name}: names {shard}")


def test_lists_of_shards_of_language_models(planted, lm, tmp_path):
    folder = shutil.copytree(lm, tmp_path / "lm")
    names = dict.fromkeys(load_file(folder / "model.safetensors"), "shard.bin")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "shard.bin").write_bytes(planted["torch"])
    said = "names shard.bin"
    refused(RiCCausalLM.from_pretrained, str(folder), said=said)
    refused(scorers.load, "reward_model", model=str(folder), said=said)
    refused(scorers.load, "relevance", encoder=str(folder), said=said)
    refused(scorers.load, "pickscore", model=str(folder), said=said)
    refused(scorers.load, "vlm_judge", model=str(folder), question="good?", said=said)
    index.write_text("[")
    refused(RiCCausalLM.from_pretrained, str(folder), said="lists no files of weights")


def evil_module(mark, tmp_path):
    source = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Evil: pass\n"
    for folder in (tmp_path / "importable", tmp_path / "model", tmp_path / "model" / "unet"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(source)


@pytest.mark.parametrize("entry", [["evil", "Evil"], ["unet.evil", "Evil"], ["os", "system"]])
def test_parts_of_a_model_that_are_modules(mark, model, tmp_path, entry):
    folder = shutil.copytree(model, tmp_path / "model")
    evil_module(mark, tmp_path)
    strangers.change_json(folder / "model_index.json", "unet", to=entry)
    refused(load_model, str(folder), said="cannot be loaded")


def test_pipelines_of_a_model_s_own(mark, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    evil_module(mark, tmp_path)
    strangers.change_json(folder / "model_index.json", "_class_name", to=["evil", "Evil"])
    refused(load_model, str(folder), said="is of no model family")


def test_classes_that_a_model_maps_to_its_own(mark, lm, tmp_path):
    folder = shutil.copytree(lm, tmp_path / "model")
    evil_module(mark, tmp_path)
    own = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    stored = json.loads((folder / "config.json").read_text()) | {"model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(stored | {"auto_map": own}))
    refused(load_model, str(folder), said="cannot be loaded")


@KINDS
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_weights_of_scorers(planted, tmp_path, kind, suffix):
    path = tmp_path / f"head{suffix}"
    path.write_bytes(planted[kind])
    refused(scorers.load, "aesthetic", head=str(path), said="refused or unreadable")


@KINDS
def test_datasets(planted, tmp_path, kind, capsys):
    """Beside pictures, in a table, in a shard: labelled as far as they are pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.linear_gradient("L").convert("RGB").rotate(len(color) * 30).save(
            folder / f"{name}.png"
        )
        (folder / f"{name}.txt").write_text(color)
    (folder / "b.txt").write_bytes(planted[kind])
    (folder / "d.png").write_bytes(planted[kind])
    (folder / "a.pkl").write_bytes(planted[kind])
    (folder / "a.json").write_bytes(planted[kind])
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name in ("a.png", "a.pkl", "a.pyd", "a.pth", "c.png", "c.txt", "d.png"):
            shard.add(folder / ("a.pkl" if name.startswith("a.p") else name), name)
    for source in (folder, tmp_path / "shard.tar"):
        out = tmp_path / f"out-{source.name}"
        code = main(["label", str(source), "--scorers", "brightness", "--out", str(out)])
        assert code in (0, 2) and "Traceback" not in capsys.readouterr().err
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "metadata.parquet").write_bytes(planted[kind])
    shutil.copy(folder / "c.png", tmp_path / "table")
    args = ["--scorers", "brightness", "--out", str(tmp_path / "out-table")]
    assert main(["label", str(tmp_path / "table"), *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "metadata.parquet: not a readable parquet file" in line


@KINDS
@pytest.mark.parametrize("message", [Answer, Description])
def test_answers_of_remote_scorers(planted, kind, message):
    refused(parse, message, planted[kind], said="no JSON")


def test_pictures_with_graphs_and_settings(planted, tmp_path):
    """Of ComfyUI, and of our own."""
    text = planted["plain"].decode("latin-1")
    graph = {"1": {"class_type": "evil", "inputs": {"positive": ["2", 0]}}}
    graph |= {"2": {"class_type": "__import__('os')", "inputs": {"text": text}}}
    for name, value in (
        ("prompt", json.dumps(graph)),
        ("workflow", text),
        (TEXT, text),
        (TEXT, "!!python/object/apply:os.system [x]"),
    ):
        info, path = PngInfo(), tmp_path / f"{name}.png"
        info.add_text(name, value)
        Image.new("RGB", (8, 8)).save(path, pnginfo=info)
        prompt_in(path)
        refused(read_metadata, path)


@pytest.mark.parametrize("tag", ["object/apply:pathlib.Path.touch", "name:os.system", "module:os"])
def test_configs_with_tags_of_python(mark, tmp_path, tag):
    path = tmp_path / "config.yaml"
    path.write_text(f"steps: !!python/{tag} [{mark}]\n")
    refused(load_yaml, path, LoopConfig, said="not valid YAML")
