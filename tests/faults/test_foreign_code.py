"""Code that comes with a model is never run, whatever is typed when somebody asks."""

import ast
import io
import json
from pathlib import Path

import pytest

import scorers
from ric_diffusion.models.causal_lm.model import RiCCausalLM, load_tokenizer

ROOT = Path(__file__).parents[2]
AUTO = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
AUTO += ("AutoModelForCausalLM", "AutoModelForSequenceClassification")
AUTO += ("AutoModelForImageTextToText", "CLIPModel")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A model whose own code leaves a mark, and somebody who says yes to everything."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    folder = tmp_path / "model"
    folder.mkdir()
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    own = {name: "evil.Evil" for name in AUTO}
    config = {"model_type": "evil", "auto_map": own, "architectures": ["Evil"]}
    for name in ("config", "tokenizer_config", "processor_config", "preprocessor_config"):
        (folder / f"{name}.json").write_text(json.dumps(config | {"tokenizer_class": "Evil"}))
    yield folder
    assert not mark.exists()


@pytest.mark.parametrize(
    "spec",
    [
        "relevance:encoder={}",
        "reward_model:model={}",
        "clip_score:clip={}",
        "clip_iqa:clip={}",
        "pickscore:model={}",
        "vlm_judge:model={},question=Is this good?",
    ],
)
def test_scorers(planted, spec):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load(spec.format(planted))(None or [], [])
    assert "\n" not in str(caught.value)


def test_language_models(planted):
    for load in (load_tokenizer, RiCCausalLM.from_pretrained):
        with pytest.raises((ValueError, OSError, KeyError)):
            load(str(planted))


# Classes that look for no code of a model's own: diffusers' models, and ours, which say it inside.
OTHERS = {"type(own)", "cls", "loaded", "RiCCausalLM"}


def test_every_call_says_so():
    """A new call is either one that says it, or of a class that is listed here."""
    found = {True: 0, False: 0}
    for path in [*ROOT.glob("ric_diffusion/**/*.py"), *ROOT.glob("scorers/**/*.py")]:
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr != "from_pretrained":
                continue
            of = ast.unparse(node.func.value)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            says = said.get("trust_remote_code") == "False"
            within = 'setdefault("trust_remote_code", False)' in source and of == "super()"
            assert says or within or of in OTHERS, f"{path.relative_to(ROOT)}:{node.lineno}: {of}"
            found[says or within] += 1
    assert found == {True: 13, False: 7}
