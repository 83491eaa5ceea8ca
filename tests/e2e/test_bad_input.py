"""Whatever is wrong with the input is one line, exit code 2, and nothing is written."""

import os
import shutil

import pytest
import yaml

MODEL = ["--model", "{root}/model"]
ADAPTER = ["--adapter", "{root}/embedding/adapter"]
BOTH = [*MODEL, *ADAPTER]


@pytest.mark.parametrize("verb", ["generate", "sweep"])
@pytest.mark.parametrize(
    "said, args",
    [
        ("no such folder or bundled model; did you mean 'emoji-64'?", ["--model", "emoji64"]),
        ("--model ./gone: no such file or folder", ["--model", "./gone"]),
        ("--model /gone/too: no such file or folder", ["--model", "/gone/too"]),
        (
            "--model some/hub-id: no such folder, and the hub cannot be reached",
            ["--model", "some/hub-id"],
        ),
        ("--model ./a_file: holds no model_index.json", ["--model", "./a_file"]),
        ("model_index.json", ["--model", "empty"]),
        ("--model ./bogus: SomePipeline is of no model family known here", ["--model", "./bogus"]),
        ("./gone: no such folder", [*MODEL, "--adapter", "./gone"]),
        ("a_file: no such folder", [*MODEL, "--adapter", "./a_file"]),
        ("not an adapter folder, it has no ric_adapter.json", [*MODEL, "--adapter", "empty"]),
        ("not an adapter folder", [*MODEL, "--adapter", "{root}/model"]),
        ("not valid JSON", [*MODEL, "--adapter", "torn"]),
        ("reads format_version 1", [*MODEL, "--adapter", "future"]),
        ("--mapping: 'nope' is none of its choices; one of: linear", [*BOTH, "--mapping", "nope"]),
        ("--out a_file: ", [*BOTH, "--out", "a_file"]),
        ("--out a_file/sub: ", [*BOTH, "--out", "a_file/sub"]),
        ("'-1': give a whole number from 0", [*BOTH, "--seed", "-1"]),
        ("'x': give a whole number from 0", [*BOTH, "--seed", "x"]),
        ("'0': give a whole number above 0", [*BOTH, "--steps", "0"]),
        ("'nan': give a number", [*BOTH, "--guidance-scale", "nan"]),
        ("'0': give a whole number above 0", [*BOTH, "--refine", "0"]),
        ("--refine 21: give 1 to 20", [*BOTH, "--refine", "21"]),
        ("'much': give a number", [*BOTH, "--guidance-scale", "much"]),
        (
            "sampling.guidance_scale is 1e+30; give 1000 at most",
            [*BOTH, "--guidance-scale", "1e30"],
        ),
        ("sampling.num_inference_steps is 1001; give 1000 at most", [*BOTH, "--steps", "1001"]),
        ("--prompt: holds a character that is no text", [*BOTH, "--prompt", "caf\udce9"]),
    ],
)
def test_model_and_options(refused, verb, said, args):
    refused(said, verb, "--prompt", "red apple", *args)


@pytest.mark.parametrize(
    "said, args",
    [
        ("not allowed with", ["--preference", "colorfulness=1", "--targets", "colorfulness=1"]),
        ("--mapping: makes targets of a pref", ["--targets", "colorfulness=1", "--mapping", "l2"]),
        ("'colorfulness': write name=number", ["--targets", "colorfulness"]),
        ("'colorfulness=high': write name=number", ["--preference", "colorfulness=high"]),
        ("colorfulness must be finite, not nan", ["--targets", "colorfulness=nan"]),
        ("colorfulness must be finite, not inf", ["--targets", "colorfulness=inf"]),
        ("colorfulness must be finite", ["--negative-targets", "colorfulness=-inf"]),
        ("unknown reward 'colours'", ["--targets", "colours=1"]),
        ("did you mean 'colorfulness'?", ["--preference", "colourfulness=1"]),
        ("unknown reward ''", ["--targets", "=1"]),
        ("colorfulness must be 0 or above", ["--preference", "colorfulness=-0.1"]),
        ("every weight is 0", ["--preference", "colorfulness=0"]),
        ("given twice", ["--targets", "colorfulness=1", "--targets", "colorfulness=2"]),
        ("--negative-targets: colorfulness is given twice",
         ["--negative-targets", "colorfulness=1", "colorfulness=1"]),
        ("contrast -2.0: give a number from 0 to 1000", ["--contrast", "-2"]),
        ("guidance_scale above 1",
         ["--negative-targets", "colorfulness=1", "--guidance-scale", "1"]),
        ("--true-cfg-scale: Stable Diffusion 1.x and 2.x have no such setting",
         ["--true-cfg-scale", "2"]),
        ("'0': give a whole number above 0", ["--count", "0"]),
        ("--count 1000000000000: give a whole number from 1 to 100000", ["--count", 10**12]),
        ("--seed 9223372036854775807: give a whole number from 0 to 92233720368547758",
         ["--seed", 2**63 - 1, "--count", 2]),
        ("--refine: nothing is asked for; give targets or a preference", ["--refine", "3"]),
    ],
)  # fmt: skip
def test_rewards(refused, said, args):
    refused(said, "generate", "--prompt", "red apple", *BOTH, *args)


@pytest.mark.parametrize("option", ["--targets", "--preference", "--negative-targets"])
def test_rewards_without_an_adapter(refused, option):
    said = "/model: has no adapter of its own; give one"
    refused(said, "generate", "--prompt", "red apple", *MODEL, option, "colorfulness=1")


@pytest.mark.parametrize(
    "said, args",
    [
        ("points 1: give a whole number from 2", [*BOTH, "--points", "1"]),
        ("'0': give a whole number above 0", [*BOTH, "--points", "0"]),
        ("--points 1000000000: give a whole number from 2 to 1001", [*BOTH, "--points", 10**9]),
        ("points 1", [*BOTH, "--points", "1", "--along", "colorfulness"]),
        ("did you mean 'colorfulness'?", [*BOTH, "--along", "colourfulness"]),
        ("has no adapter of its own", MODEL),
    ],
)
def test_sweep(refused, said, args):
    refused(said, "sweep", "--prompt", "red apple", *args)


@pytest.mark.parametrize("verb", ["generate", "sweep"])
def test_prompt_is_needed(refused, verb):
    refused("--prompt", verb, *BOTH)


def test_adapter_of_another_architecture(refused, root, place):
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.copytree(root / "text" / "adapter", place / "wide")
    path = place / "wide" / "pytorch_lora_weights.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if ".attn2.to_k.lora_A" in name:
            tensors[name] = tensor.repeat(1, 2).contiguous()
    save_file(tensors, path, metadata=metadata)
    (place / "wide" / "manifest.json").unlink()
    args = ["--prompt", "red apple", *MODEL, "--adapter", "wide"]
    refused("trained on another architecture", "generate", *args)


def test_half_a_model(refused, root, place):
    shutil.copytree(root / "model", place / "half")
    weights = next((place / "half" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    refused("cannot be loaded", "generate", "--prompt", "x", "--model", "./half")
    weights.unlink()
    refused("cannot be loaded", "generate", "--prompt", "x", "--model", "./half")


EXPORT = ["--format", "kohya", "--out"]


@pytest.mark.parametrize(
    "said, args",
    [
        ("must end in .safetensors", [*ADAPTER, *EXPORT, "x.bin"]),
        ("--out empty: a folder", [*ADAPTER, *EXPORT, "empty"]),
        ("is a file; name a folder", [*ADAPTER, *EXPORT, "a_file/x.safetensors"]),
        ("not an adapter folder", ["--adapter", "{root}/model", *EXPORT, "x.safetensors"]),
        ("no such folder", ["--adapter", "./gone", *EXPORT, "x.safetensors"]),
        (
            "'a1111' is none of its choices; one of: kohya",
            [*ADAPTER, "--format", "a1111", "--out", "x.safetensors"],
        ),
    ],
)
def test_export(refused, said, args):
    refused(said, "export", *args)


LABEL = ["--scorers", "colorfulness", "--out"]


@pytest.mark.parametrize(
    "said, args",
    [
        ("gone: no such file or folder", ["gone", *LABEL, "new"]),
        ("no pictures", ["empty", *LABEL, "new"]),
        ("is a file", ["{root}/pictures", *LABEL, "a_file"]),
        ("already holds", ["{root}/pictures", *LABEL, "bogus"]),
        ("one is inside the other", ["{root}/pictures", *LABEL, "{root}/pictures/new"]),
        ("did you mean", ["{root}/pictures", "--scorers", "colourfulness", "--out", "new"]),
        ("'size'", ["{root}/pictures", "--scorers", "colorfulness:size=2", "--out", "new"]),
        ("given twice", ["{root}/pictures", *LABEL, "new", "--scorers", "colorfulness",
                         "colorfulness"]),
    ],
)  # fmt: skip
def test_label(refused, said, args):
    refused(said, "label", *args)


def changed(data, path, value):
    """The config with one field, named with dots, set to ``value``; None takes it away."""
    *parents, last = path.split(".")
    inner = data
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return data


@pytest.mark.parametrize(
    "said, path, value",
    [
        ("lop: unknown field; did you mean 'loop'?", "lop", 1),
        ("loop.learning_rat: unknown field; did you mean 'learning_rate'?",
         "loop.learning_rat", 1e-4),
        ("diffusion.lora.rang: unknown field", "diffusion.lora.rang", 4),
        ("loop.steps: 'many' is not a whole number", "loop.steps", "many"),
        ("loop.steps: 1.5 is not a whole number", "loop.steps", 1.5),
        ("loop.steps: missing", "loop.steps", None),
        ("model: missing", "model", None),
        ("data: missing", "data", None),
        ("loop: batch_size is 0", "loop.batch_size", 0),
        ("loop: learning_rate is -1", "loop.learning_rate", -1),
        ("loop.precision: 'fp8' is not one of", "loop.precision", "fp8"),
        ("diffusion.mode: 'words' is not one of", "diffusion.mode", "words"),
        ("diffusion.lora.targets[0]", "diffusion.lora.targets", ["everything"]),
        ("mapping 'nope'", "diffusion.mapping", "nope"),
        ("sampling: unknown field 'guidance'; did you mean 'guidance_scale'?",
         "diffusion.sampling", {"guidance": 3.0}),
        ("base_precision: fp16 needs a GPU with CUDA, and this is a cpu; give bf16, or leave",
         "diffusion.base_precision", "fp16"),
        ("precision: fp16 needs a GPU with CUDA", "loop.precision", "fp16"),
        ("diffusion.base_precision: 'int4' is not one of", "diffusion.base_precision", "int4"),
        ("timestep_shift is 0.0; give a number above 0", "diffusion.timestep_shift", 0.0),
        ("prompts: 'red apple' is not a list", "prompts", "red apple"),
        ("model emoji_64: no such folder or bundled model", "model", "emoji_64"),
        ("model ./gone: no such file or folder", "model", "./gone"),
        ("gone: no such folder", "data", "gone"),
        ("metadata.parquet is missing; `ric label` makes such a folder", "data",
         "{root}/pictures"),
        ("where: no record of the data has style round", "where", {"style": ["round"]}),
        ("where.stile: no such column; did you mean 'style'?", "where", {"stile": ["flat"]}),
        ("where.style: 'flat' is not a list", "where", {"style": "flat"}),
    ],
)  # fmt: skip
def test_config(refused, place, root, tiny, said, path, value):
    data = changed(tiny.config(root, "embedding"), path, value)
    text = yaml.safe_dump(data).replace("{root}", str(root))
    (place / "config.yaml").write_text(text)
    refused(said, "train", "config.yaml", "--out", "run")


def test_config_file(refused, place, root, tiny):
    refused("gone.yaml: no such file", "train", "gone.yaml", "--out", "run")
    (place / "bad.yaml").write_text("model: [1\n")
    refused("bad.yaml, line ", "train", "bad.yaml", "--out", "run")
    (place / "list.yaml").write_text("- model\n")
    refused("list.yaml: ", "train", "list.yaml", "--out", "run")
    (place / "empty.yaml").write_text("")
    refused("empty.yaml: model: missing", "train", "empty.yaml", "--out", "run")


def test_out_of_a_run(refused, place, root, tiny):
    tiny.write_config(place / "config.yaml", tiny.config(root, "embedding"))
    refused("out is missing; add it, or give --out", "train", "config.yaml")
    refused("--out a_file: ", "train", "config.yaml", "--out", "a_file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_folder_without_permission(refused, place):
    (place / "empty").chmod(0o500)
    refused("no permission", "generate", "--prompt", "x", *BOTH, "--out", "empty/new")


@pytest.mark.parametrize("args", [["paint"], ["--nonsense"]])
def test_no_such_verb(ric, place, args):
    done = ric(*args)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1 and done.err.startswith("ric: ")


def test_in_a_process(ric_process, place):
    done = ric_process("generate", "--prompt", "red apple", "--targets", "colorfulness")
    assert (done.code, done.out) == (2, "")
    assert done.err == "ric generate: --targets: 'colorfulness': write name=number\n"
