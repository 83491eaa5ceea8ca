"""Every wrong YAML file is one line that names file, field, value and fix."""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Optional

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ric_diffusion.io.config import at_least, digest, digest_of_list, from_dict, load_yaml, to_dict
from ric_diffusion.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} is not positive; raise it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    data: Path
    steps: int = 10
    name: str = "run"
    bf16: bool = False
    mode: Literal["text", "embedding"] = "text"
    rewards: tuple[str, ...] = ()
    prompts: list[str] = dataclasses.field(default_factory=list)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    optimizer: Optimizer = Optimizer()
    ema: Optional[Optimizer] = None  # noqa: UP045 (both spellings are read)
    resolution: int | Literal["native"] = "native"
    stages: tuple[Optimizer, ...] = ()


def load(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "train.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_yaml(path, Config)


def test_reads_every_kind(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
data: some/folder
steps: 500
name: "12"
bf16: true
mode: embedding
rewards: [compressibility, colorfulness]
prompts:
  - a cat
weights: {compressibility: 1, colorfulness: .5}
optimizer: &o
  learning_rate: 1e-4
  betas: [0, 0.99]
  clip:
ema: {<<: *o, learning_rate: 0.5}
resolution: 64
stages: [{learning_rate: 1}, {}]
""",
    )
    assert config == Config(
        data=Path("some/folder"),
        steps=500,
        name="12",
        bf16=True,
        mode="embedding",
        rewards=("compressibility", "colorfulness"),
        prompts=["a cat"],
        weights={"compressibility": 1.0, "colorfulness": 0.5},
        optimizer=Optimizer(learning_rate=1e-4, betas=(0.0, 0.99), clip=None),
        ema=Optimizer(learning_rate=0.5, betas=(0.0, 0.99), clip=None),
        resolution=64,
        stages=(Optimizer(learning_rate=1.0), Optimizer()),
    )
    assert type(config.weights["compressibility"]) is float
    assert from_dict(to_dict(config), Config, "again") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1", "data: missing, and it has no default; add it"),
        ("", "data: missing, and it has no default; add it"),
        ("data: x\nstep: 1", "step: unknown field; did you mean 'steps'?"),
        ("data: x\noptimizer: {lr: 1}", "optimizer.lr: unknown field; one of: learning_rate"),
        ("data: x\non: 1", "True: unknown field; one of: data"),
        ("data: x\nsteps: 1.5", "steps: 1.5 is not a whole number; write digits only"),
        ("data: x\nsteps: true", "steps: True is not a whole number; write digits only"),
        ("data: x\nsteps: '7'", "steps: '7' is not a whole number; write digits only"),
        ("data: x\nsteps:", "steps: None is not a whole number; write digits only"),
        ("data: x\nbf16: 1", "bf16: 1 is not true or false; write true or false"),
        ("data: x\nname: no", "name: False is not text; put it in quotes"),
        ("data: x\nname: 2024-01-01", "is not text; put it in quotes"),
        ("data: 3", "data: 3 is not a path; write it as text"),
        ("data: x\nmode: txt", "mode: 'txt' is not one of the choices; did you mean 'text'?"),
        ("data: x\nmode: 3", "mode: 3 is not one of the choices; one of: text, embedding"),
        ("data: x\nrewards: a", "rewards: 'a' is not a list; write [a, b]"),
        ("data: x\nrewards: [a, 1]", "rewards[1]: 1 is not text; put it in quotes"),
        ("data: x\nweights: [a]", "weights: ['a'] is not a mapping; write one"),
        ("data: x\nweights: {a: fast}", "weights.a: 'fast' is not a finite number; write a"),
        ("data: x\nweights: {1: 2}", "weights.1: 1 is not text; put it in quotes"),
        ("data: x\noptimizer: 1", "optimizer: 1 is not a mapping; write one"),
        (
            "data: x\noptimizer: {learning_rate: fast}",
            "optimizer.learning_rate: 'fast' is not a finite number; write a number",
        ),
        ("data: x\noptimizer: {learning_rate: .nan}", "optimizer.learning_rate: nan is not a fin"),
        ("data: x\noptimizer: {clip: .inf}", "optimizer.clip: inf is not a finite number"),
        ("data: x\noptimizer: {clip: yes}", "optimizer.clip: True is not a finite number"),
        ("data: x\noptimizer: {learning_rate: -1}", "optimizer: learning_rate -1.0 is not posit"),
        ("data: x\noptimizer: {betas: [1]}", "optimizer.betas: [1] is not a list of 2; give 2"),
        ("data: x\nstages: [{}, {learning_rate: 0}]", "stages[1]: learning_rate 0.0 is not posi"),
        ("data: x\nstages: [{}, {clipp: 0}]", "stages[1].clipp: unknown field; did you mean"),
        ("data: x\nresolution: big", "resolution: 'big' is not a whole number"),
        ("data: x\nresolution: big", "or resolution: 'big' is not one of the choices"),
        ("- a\n- b", "['a', 'b'] is not a mapping; write one"),
        ("data: x\nsteps: 1\nsteps: 2", "line 3: not valid YAML (the key 'steps' is given twice"),
        ("data: x\nema: {clip: 1, clip: 2}", "line 2: not valid YAML (the key 'clip' is given"),
        ("data: [x", "line 1: not valid YAML (expected ',' or ']'"),
        ("data: x\n\tsteps: 1", "line 2: not valid YAML (found character '\\t'"),
        ("data: x\nname: 2024-99-99", "not valid YAML (month must be in 1..12"),
        ("--- 1\n--- 2", "not valid YAML (but found another document)"),
        ("data: !!python/object:os.system x", "not valid YAML (could not determine a construct"),
        (b"data: \xff\xfe\x00", "not valid YAML ("),
        (b"\x00", "not valid YAML ("),
        ("data: " + "[" * 5000, "not valid YAML ("),
        ("data: x\nrewards: " + "z" * 500, "zzz... is not a list"),
    ],
)
def test_one_line_for_each_mistake(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "train.yaml"))
    assert message in line
    assert "\n" not in line and len(line) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_unreadable_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read .*; give a YAML file"):
        load_yaml(tmp_path / name, Config)


def test_numbers_yaml_reads_as_text(tmp_path: Path) -> None:
    for text, value in [("1e-4", 1e-4), ("5E-5", 5e-5), ("1", 1.0), ("'0.5'", 0.5)]:
        config = load(tmp_path, f"data: x\noptimizer: {{learning_rate: {text}}}")
        assert config.optimizer.learning_rate == value
        assert type(config.optimizer.learning_rate) is float


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)
keys = [field.name for field in dataclasses.fields(Config)]


@settings(deadline=None)  # time is not what is tested, and machines are busy
@given(st.dictionaries(st.sampled_from([*keys, "other"]), plain))
def test_any_data_is_a_config_or_one_line(data: dict[str, Any]) -> None:
    try:
        config = from_dict(data, Config, "train.yaml")
    except InputError as error:
        assert str(error).startswith("train.yaml: ")
    else:
        assert from_dict(to_dict(config), Config, "again") == config
        assert digest(from_dict(to_dict(config), Config, "again")) == digest(config)


def test_digest_sees_every_field_and_only_them() -> None:
    base = Config(data=Path("x"))
    assert digest(base) == digest(from_dict({"data": "x"}, Config, "a file elsewhere"))
    assert digest(base) == digest(to_dict(base))
    changed = [
        dataclasses.replace(base, steps=11),
        dataclasses.replace(base, optimizer=Optimizer(clip=None)),
        dataclasses.replace(base, weights={"a": 1.0}),
        dataclasses.replace(base, data=Path("y")),
    ]
    assert len({digest(config) for config in [base, *changed]}) == 5
    one, two = ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0})
    assert digest(dataclasses.replace(base, weights=one)) == digest(
        dataclasses.replace(base, weights=two)
    )


def test_digest_is_the_same_in_every_process() -> None:
    code = "from ric_diffusion.io.config import digest; print(digest({'b': ('x', 0.1), 'a': None}))"
    here = digest({"a": None, "b": ["x", 0.1]})
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here
    # Pinned, since checkpoints on disk carry it.
    assert here == "0a66fe8195341c277b7580ded34d64e4a0dcbb9d6f8335d0d27b65bc7f2f3b90"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    RENAMED: ClassVar[Mapping[str, str]] = {"push": "exploration", "gone": "loop.steps"}
    exploration: float = 0.5
    data: Path = Path("~/pictures")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Online:
    rounds: Rounds = Rounds()
    paths: list[Path] = dataclasses.field(default_factory=list)
    out: Path | None = None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"rounds": {"push": 0.3}}, "rounds.push: is called exploration now; rename it"),
        (
            {"rounds": {"push": 0.3, "exploration": 0.3}},
            "rounds.push: is called exploration now; rename it",
        ),
        ({"rounds": {"gone": 3}}, "rounds.gone: is called loop.steps now; rename it"),
        ({"rounds": {"pusch": 3}}, "rounds.pusch: unknown field; one of: exploration, data"),
        ({"push": 3}, "push: unknown field; one of: rounds, paths, out"),  # belongs to rounds
    ],
)
def test_a_key_of_an_earlier_release_is_refused_with_its_new_name(
    tmp_path: Path, data: dict[str, Any], told: str
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        load_yaml(path, Online)
    assert str(caught.value) == f"{path}: {told}"


def test_the_digest_of_a_list_needs_one_item_at_a_time() -> None:
    for items in ([], [1.5], [["a", ("b",), {"y": 1, "x": Path("c")}], None, "ü"]):
        assert digest_of_list(iter(items)) == digest(items)
    for count in (999, 1000, 1001, 2500):  # a thousand are in memory at a time
        assert digest_of_list(iter(range(count))) == digest(list(range(count)))


def test_renamed_is_no_field_and_in_no_digest() -> None:
    assert to_dict(Rounds()) == {"exploration": 0.5, "data": "~/pictures"}
    assert from_dict({"rounds": {"exploration": 1}}, Online, "x").rounds.exploration == 1.0


def test_a_tilde_begins_a_path_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    given = {"rounds": {"data": "~/a"}, "paths": ["~", "b/~", "/c"], "out": "~/d e"}
    config = from_dict(given, Online, "x")
    assert config.rounds.data == tmp_path / "a"
    assert config.paths == [tmp_path, Path("b/~"), Path("/c")]
    assert config.out == tmp_path / "d e"


def test_the_home_folder_of_nobody_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^x: out: '~no-such-user-here/a'") as caught:
        from_dict({"out": "~no-such-user-here/a"}, Online, "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_at_least_has_no_upper_end(value):
    config = SimpleNamespace(count=value, other=10**12)
    at_least(config, 1, "other")
    with pytest.raises(ValueError, match="count is "):
        at_least(config, 1, "other", "count")
