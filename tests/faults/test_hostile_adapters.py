"""Adapters that somebody made to do harm: one line that names the file, and nothing is allocated
that the file does not hold."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ric_diffusion.data import scoring
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace
from scorers import ScorerError
from support import strangers
from support.strangers import (
    ABOUT,
    DIFFUSERS,
    ENCODER,
    PEFT,
    PEFT_CONFIG,
    change_json,
    change_metadata,
    change_tensors,
)

MOST_GROWTH = 300 * 2**20  # bytes; the least that the cases ask for is 1 GB


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("strangers")
    return {
        "embedding": strangers.write(home / "embedding"),
        "text": strangers.write(home / "text", "text"),
        "llm": strangers.write(home / "llm", "text", of="causal-lm"),
    }


def about(*where, to) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / ABOUT, *where, to=to)


def written(file, content) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def sizes(**to) -> Callable[[Path], None]:
    return lambda folder: change_metadata(folder / ENCODER, "reward_encoder", to)


def lora(**to) -> Callable[[Path], None]:
    settings = {f"unet.{key}": value for key, value in to.items()}
    return lambda folder: change_metadata(folder / DIFFUSERS, "lora_adapter_metadata", settings)


def tensors(file, **to) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder / file, **to)


def linked(file, target) -> Callable[[Path], None]:
    def change(folder):
        (folder / file).unlink()
        (folder / file).symlink_to(target)

    return change


DEEP = "[" * 200_000
REWARD = ("reward_space", "rewards", 0)
CURVE = {"requested": [0, 1], "obtained": [0, 1]}
RIDGE = {"weights": [1.0], "bias": 0, "limits": [0, 1]}
LINES = {"offset": RIDGE, "slope": None, "pivot": 0, "errors": [1, 1]}

# By mode: what is done to it, and what the one line says.
EMBEDDING = {
    "brackets": (written(ABOUT, DEEP), f"{ABOUT}: not valid JSON (nested"),
    "brackets that end": (written(ABOUT, DEEP + "]" * len(DEEP)), "not valid JSON (nested"),
    "a huge file": (written(ABOUT, "[" + " " * 2**24 + "]"), "at most 16777216 are read"),
    "a key twice": (written(ABOUT, '{"family": "a", "family": "b"}'), "'family' is there twice"),
    "a device": (linked(ABOUT, "/dev/zero"), "it has no ric_adapter.json"),
    "an unknown key": (about("on_load", to="evil"), f"{ABOUT}: on_load: unknown field"),
    "a version of true": (about("format_version", to=True), "format_version"),
    "a family to import": (about("family", to="os.path"), "an adapter for os.path models"),
    "a family of escapes": (about("family", to="\x1b[2J"), "family must be text of one line"),
    "a base model of two lines": (about("base_model", to="a\nb"), "base_model must be text of one"),
    "a base model of reversed text": (about("base_model", to="a\u202eb"), "base_model must be t"),
    "a base model without end": (about("base_model", to="x" * 10**6), "base_model has 1000000 ch"),
    "a mode to import": (about("conditioning", "mode", to="os.system"), "conditioning.mode"),
    "an unknown key of the mode": (about("conditioning", "path", to="x"), "conditioning.path"),
    "a grammar beside tokens": (about("conditioning", "grammar", to={}), "grammar goes with mode"),
    "no mapping's name": (about("mapping", to={"front": 1}), "mapping"),
    "lora a text": (about("lora", to="yes"), "lora: 'yes' is not true or false"),
    "frozen with a LoRA": (about("frozen", to=True), "frozen goes with"),
    "sampling unknown": (about("sampling", "callback", to=1), "sampling: unknown field 'callback'"),
    "sampling of many pictures": (
        about("sampling", "num_images_per_prompt", to=10**6),
        "unknown field 'num_images_per_prompt'",
    ),
    "sampling of a picture": (about("sampling", "prompt_embeds", to=[1]), "'prompt_embeds'"),
    "sampling of text": (about("sampling", "guidance_scale", to="3"), "sampling.guidance_scale"),
    "sampling of a list": (about("sampling", "eta", to=[1]), "sampling.eta is [1]"),
    "sampling of null": (about("sampling", "num_inference_steps", to=None), "num_inference_steps"),
    "guidance NaN": (about("sampling", "guidance_scale", to=float("nan")), "NaN is no number"),
    "guidance beyond": (about("sampling", "guidance_scale", to=1e30), "give 1000 at most"),
    "guidance of digits": (about("sampling", "guidance_scale", to=10**400), "give 1000 at most"),
    "noise levels a text": (about("sampling", "sigmas", to="1" * 99), "a list of 1 to 1000 number"),
    "noise levels of text": (about("sampling", "sigmas", to=[1.0, "x"]), "sampling.sigmas is 'x'"),
    "times without end": (about("sampling", "timesteps", to=[1] * 10**5), "1 to 1000 numbers"),
    "steps beyond": (about("sampling", "num_inference_steps", to=10**9), "give 1000 at most"),
    "steps below": (about("sampling", "num_inference_steps", to=-3), "whole number above 0"),
    "steps true": (about("sampling", "num_inference_steps", to=True), "whole number above 0"),
    "a side beyond": (about("sampling", "width", to=2**20), "give 8192 at most"),
    "contrast beyond": (about("sampling", "contrast", to=1e6), "give 1000 at most"),
    "training unknown": (about("training", "run", to="rm"), "training.run: unknown field"),
    "training a text": (about("training", "records", to="1"), "training.records '1'"),
    "training below": (about("training", "steps", to=-1), "training.steps -1"),
    "training of two lines": (about("training", "digest", to="a\nb"), "training.digest must be"),
    "modelspec unknown": (about("modelspec", to={"x": 1}), "modelspec: unknown field 'x'"),
    "modelspec beyond": (
        about("modelspec", to={"architecture": "x", "resolution": 10**9, "prediction_type": None}),
        "modelspec: resolution",
    ),
    "a unit of escapes": (about(*REWARD, "unit", to="\x1b]0;x\x07"), "unit must be text of one l"),
    "a name without end": (about(*REWARD, "name", to="a" * 200), "reward name"),
    "a mean beyond": (about(*REWARD, "mean", to=1e300), "mean is 1e+300"),
    "a mean of digits": (about(*REWARD, "mean", to=10**4000), "mean must be a number"),
    "a std of nothing": (about(*REWARD, "std", to=1e-300), "colorfulness: "),
    "quantiles of lists": (about(*REWARD, "quantiles", to=[[1]] * 101), "must be a number"),
    "a front without end": (about("reward_space", "front", to=[[0, 0]] * 10**6), "1000000 points"),
    "a front beyond": (about("reward_space", "front", to=[[1e9, 0]]), "front is 1000000000.0"),
    "rewards without end": (about("reward_space", "rewards", to=[1] * 10**5), "must map names"),
    "a scorer's path": (about(*REWARD, "scorer", to={"path": "x"}), "scorer: unknown field 'path'"),
    "a scorer a list": (about(*REWARD, "scorer", to=["x"]), "scorer must map names to values"),
    "a scorer's name a list": (about(*REWARD, "scorer", "name", to=["x"]), "scorer: name must be"),
    "options a text": (about(*REWARD, "scorer", "options", to="x"), "scorer: options must map"),
    "a centring of nothing": (about(*REWARD, "centring", to={"mean": 1}), "centring: field"),
    "calibration unknown": (about("calibration", "x", to=CURVE), "unknown reward 'x'"),
    "calibration without end": (
        about("calibration", "colorfulness", "requested", to=list(range(10**5))),
        "2 to 1001 numbers",
    ),
    "calibration beyond": (
        about("calibration", "colorfulness", "obtained", to=[0, 1e9]),
        "obtained is 1000000000.0",
    ),
    "calibration by other features": (
        about("calibration", "colorfulness", to={**CURVE, "prompt": LINES | {"offset": None}}),
        "offset and slope must",
    ),
    "calibration of many features": (
        about(
            "calibration",
            "colorfulness",
            to={**CURVE, "prompt": LINES | {"offset": RIDGE | {"weights": [0.0] * 10**5}}},
        ),
        "weights must be 1 to 4096",
    ),
    "a width that is not there": (sizes(width=10**6), "by its sizes (1000000,"),
    "hidden sizes that are not there": (sizes(hidden=10**5), "by its sizes"),
    "times that are not there": (sizes(time_width=10**6), "to_time.bias is missing"),
    "layers that are not there": (sizes(layers=10**6), "steering.auto is missing"),
    "a width beyond": (sizes(width=10**12), "width is 1000000000000; give 1048576 at most"),
    "a width of text": (sizes(width="16"), "width: '16' is not a whole number"),
    "a width below": (sizes(width=-16), "width is -16; give 1 or more"),
    "sizes unknown": (sizes(device="cuda"), "device: unknown field"),
    "rewards of many names": (sizes(names=[f"r{i}" for i in range(10**5)]), "by its sizes (100000"),
    "names a text": (sizes(names="ab"), "names: 'ab' is not a list"),
    "a name twice": (sizes(names=["a", "a"]), "names must be one or more, each once"),
    "sizes of brackets": (
        lambda f: change_metadata(f / ENCODER, "reward_encoder", DEEP),
        "nested more than 32 deep",
    ),
    "tokens of integers": (
        tensors(ENCODER, **{"out.bias": torch.ones(16, dtype=torch.int64)}),
        "out.bias is I64",
    ),
    "a rank that is not there": (lora(r=4096), "has not the rank 4096"),
    "a rank beyond": (lora(r=10**9), "its rank 1000000000: give a whole number from 1 to 4096"),
    "a rank of text": (lora(r="4"), "its rank '4'"),
    "a rank of true": (lora(r=True), "its rank True"),
    "a rank with a point": (lora(r=4.0), "its rank 4.0"),
    "an alpha beyond": (lora(lora_alpha=1e30), "its alpha is 1e+30"),
    "an alpha of text": (lora(lora_alpha="8"), "its alpha must be a number"),
    "an alpha of nothing": (lora(lora_alpha=0), "its alpha is 0"),
    "settings of brackets": (
        lambda f: change_metadata(f / DIFFUSERS, "lora_adapter_metadata", DEEP),
        "nested more than 32 deep",
    ),
    "settings a list": (
        lambda f: change_metadata(f / DIFFUSERS, "lora_adapter_metadata", "[1]"),
        "lora_adapter_metadata must map",
    ),
    "a LoRA of integers": (
        tensors(DIFFUSERS, lora_A=torch.ones(4, 8, dtype=torch.int32)),
        "mid.to_q is I32 and F32",
    ),
    "a LoRA without rows": (tensors(DIFFUSERS, lora_A=torch.ones(4, 0)[0]), "has not the rank 4"),
    "a header beyond the file": (
        written(DIFFUSERS, (10**15).to_bytes(8, "little") + b"{}"),
        "not a LoRA file of an adapter",
    ),
}
TEXT = {
    "no grammar": (about("conditioning", "grammar", to=...), "grammar goes with mode text"),
    "a grammar's key": (about("conditioning", "grammar", "x", to=1), "grammar: unknown field 'x'"),
    "labels one text": (about("conditioning", "grammar", "labels", to="ab"), "labels must be a l"),
    "labels of lists": (about("conditioning", "grammar", "labels", to=[[1], [2]]), "labels must b"),
    "labels of markup": (
        about("conditioning", "grammar", "labels", to=["a>", "b"]),
        "write what stands between < and >",
    ),
    "labels without end": (
        about("conditioning", "grammar", "labels", to=["a" * 10**6, "b"]),
        "labels has 1000000 characters",
    ),
    "a separator without end": (
        about("conditioning", "grammar", "separator", to=" " * 10**6),
        "text of 16 at most",
    ),
}
LLM = {
    "settings of brackets": (written(PEFT_CONFIG, DEEP), "nested more than 32 deep"),
    "settings without end": (written(PEFT_CONFIG, " " * (2**24 + 1)), "at most 16777216 are re"),
    "settings a list": (written(PEFT_CONFIG, "[]"), "adapter_config.json must map"),
    "a rank that is not there": (
        lambda f: change_json(f / PEFT_CONFIG, "r", to=64),
        "has not the rank 64",
    ),
    "weights of nothing": (written(PEFT, b""), "holds no LoRA of a language model"),
    "sampling unknown": (
        about("sampling", "logits_processor", to=1),
        "sampling: logits_processor: unkn",
    ),
    "responses without end": (about("sampling", "response_tokens", to=10**9), "response_tokens"),
}
CASES = [
    *(("embedding", name) for name in EMBEDDING),
    *(("text", name) for name in TEXT),
    *(("llm", name) for name in LLM),
]


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(folder: Path, mode: str) -> None:
    name = "causal-lm" if mode == "llm" else "stable-diffusion"
    strangers.family(name).read_adapter(folder)


@pytest.mark.parametrize("mode", ["embedding", "text", "llm"])
def test_as_it_was_written_it_is_read(whole, mode, tmp_path):
    read(whole[mode], mode)
    read(strangers.without_manifest(whole[mode], tmp_path / "adapter"), mode)


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_it_is_refused_in_one_line(whole, tmp_path, mode, name):
    change, said = {"embedding": EMBEDDING, "text": TEXT, "llm": LLM}[mode][name]
    folder = strangers.without_manifest(whole[mode], tmp_path / "adapter")
    change(folder)
    before = peak()
    with pytest.raises(InputError) as caught:
        read(folder, mode)
    line = str(caught.value)
    assert said in line and "\n" not in line and "\x1b" not in line and len(line) <= 300
    assert line.startswith(str(folder))
    assert peak() - before < MOST_GROWTH


SPACE = "reward_space.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DEEP, "not valid JSON (nested"),
        ('{"format_version": 1, "rewards": [NaN]}', "NaN is no number of JSON"),
        (" " * (2**24 + 1), "at most 16777216 are read"),
    ],
)
def test_so_is_a_reward_space(tmp_path, content, said):
    (tmp_path / SPACE).write_text(content)
    with pytest.raises(InputError) as caught:
        RewardSpace.load(tmp_path / SPACE)
    assert str(caught.value).startswith(f"{tmp_path / SPACE}: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ({"name": "{home}/evil.py:Evil", "options": {}}, "no scorer of that name is installed"),
        ({"name": "os:system", "options": {}}, "no scorer of that name is installed"),
        ({"name": "evil", "options": {}}, "no scorer of that name is installed"),
        ({"name": "compressibility", "options": {"quality": [1]}}, "quality=[1] is not allowed"),
        ({"name": "compressibility", "options": {"command": "x"}}, "has no option 'command'"),
        ({"name": "compressibility", "options": {"self": 1}}, "has no option 'self'"),
        ({"name": "pickscore", "options": {"model": {"a": 1}}}, "does not take"),
        ({"name": "pickscore", "options": {"model": "a" * 9999}}, "does not take"),
        ({"name": "remote", "options": {"url": "http://localhost:1", "timeout": []}}, "does not"),
        (
            {"name": "remote", "options": {"url": "http://a.example"}},
            "which an adapter or labelled",
        ),
        ({"name": "remote", "options": {"url": 3}}, "url"),
    ],
)
def test_scorers_are_installed_ones_with_options_of_theirs(whole, tmp_path, scorer, said):
    evil = "import pathlib\npathlib.Path(__file__).with_name('mark').touch()\nclass Evil: pass\n"
    (tmp_path / "evil.py").write_text(evil)
    folder = strangers.without_manifest(whole["embedding"], tmp_path / "adapter")
    scorer = {**scorer, "name": scorer["name"].format(home=tmp_path)}
    change_json(folder / ABOUT, *REWARD, "scorer", to=scorer)
    adapter = strangers.family().check_adapter(folder)
    with pytest.raises((InputError, ScorerError)) as caught:
        scoring.load_scorers(adapter.space)
    line = str(caught.value)
    assert said in line and "\n" not in line and len(line) <= 300
    assert not (tmp_path / "mark").exists()


def test_what_model_a_scorer_reads_is_said_before_it_is_fetched(
    whole, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = strangers.without_manifest(whole["embedding"], tmp_path / "adapter")
    scorer = {"name": "pickscore", "options": {"model": "mallory/judge"}}
    change_json(folder / ABOUT, *REWARD, "scorer", to=scorer)
    adapter = strangers.family().check_adapter(folder)
    said = []

    def load(*spec, **options):
        said.extend(record.getMessage() for record in caplog.records)
        raise ScorerError("stop")

    monkeypatch.setattr("scorers.load", load)
    with caplog.at_level("INFO"), pytest.raises(ScorerError, match="stop"):
        scoring.load_scorers(adapter.space)
    [line] = said
    assert line.startswith("colorfulness: its scorer reads mallory/judge, which the adapter")
