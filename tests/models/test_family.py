"""Families are found from what a model's folder says, and a new one needs nothing elsewhere."""

import json

import numpy as np
import pytest
import torch

from ric_diffusion.cli import main
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.family import (
    adapter_family,
    families,
    family_named,
    family_of,
    load_model,
)
from ric_diffusion.models.known import FAMILIES, TITLES
from ric_diffusion.rewards import RewardSpace
from support import lm, tiny, toy_family

REWARDS = ["compressibility:resize=none", "colorfulness"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def index(folder, **content):
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(content))
    return folder


def test_names_and_families_agree():
    assert [family.name for family in families()] == list(FAMILIES)
    assert {family.name: family.title for family in families()} == TITLES
    with pytest.raises(InputError, match="'stable-difusion' is unknown; did you mean 'stable-dif"):
        family_named("stable-difusion")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("StableDiffusionPipeline", "stable-diffusion"),
        ("StableDiffusionImg2ImgPipeline", "stable-diffusion"),
    ],
)
def test_a_pipelines_family_is_in_its_index(tmp_path, name, family):
    assert family_of(index(tmp_path / "model", _class_name=name)).name == family


def test_bundled_names_and_plain_models(tmp_path):
    assert family_of("emoji-64").name == "stable-diffusion"
    assert family_of("smollm2").name == "causal-lm"
    assert family_of(lm.write_lm(tmp_path / "lm")).name == "causal-lm"


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_broken_index_is_one_line(tmp_path, content):
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(InputError) as error:
        family_of(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_folder_that_is_no_model_is_one_line_that_lists_the_families(tmp_path):
    with pytest.raises(
        InputError, match=r"holds no model_index\.json or config\.json.*Stable"
    ) as error:
        family_of(tmp_path)
    assert "\n" not in str(error.value)


def test_what_cannot_be_loaded_is_named_as_the_user_did(tmp_path):
    with pytest.raises(InputError, match="--model nowhere: no such folder or bundled model"):
        load_model("nowhere")
    with pytest.raises(InputError, match=r"c\.yaml: model .*SanaPipeline is of no model family"):
        load_model(index(tmp_path / "sana", _class_name="SanaPipeline"), option="c.yaml: model")


# A family of its own: nothing of the house knows it but the dict.


@pytest.fixture
def toy(monkeypatch, tmp_path):
    monkeypatch.setitem(FAMILIES, "toy", "support.toy_family")
    return toy_family.write(tmp_path / "toy")


CONFIG = """
model: {model}
data: {data}
diffusion:
  mode: {mode}
  lora: {{rank: 4, alpha: 4, targets: [attention, feed_forward]}}
  sampling: {{guidance_scale: 2.0, num_inference_steps: 3}}
loop: {{steps: 3, batch_size: 4, learning_rate: 1.0e-2, precision: fp32, log_every: 1}}
"""


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_a_third_family_is_labelled_trained_drawn_swept_and_evaluated(toy, tmp_path, mode):
    """The first two families need no line of it, and it none of theirs."""

    def ric(*args):
        assert main([str(arg) for arg in args]) == 0

    tiny.write_pictures(tmp_path / "pictures")
    ric("label", tmp_path / "pictures", "--scorers", *REWARDS, "--out", tmp_path / "labelled")
    config = CONFIG.format(model=toy, data=tmp_path / "labelled", mode=mode)
    (tmp_path / "config.yaml").write_text(config)
    ric("train", tmp_path / "config.yaml", "--out", tmp_path / "run")
    adapter = tmp_path / "run" / "adapter"
    assert json.loads((adapter / "ric_adapter.json").read_text())["family"] == "toy"
    assert adapter_family(adapter)[0].name == "toy"
    model = ["--model", toy, "--adapter", adapter]
    request = ["--prompt", "red apple", "--targets", "colorfulness=1"]
    ric("generate", *model, *request, "--out", tmp_path / "out")
    ric("sweep", *model, "--prompt", "red apple", "--points", 3, "--out", tmp_path / "sweep")
    (tmp_path / "prompts.txt").write_text("red apple\nblue car\n")
    ric(
        "evaluate", *model, "none", "--prompts", tmp_path / "prompts.txt",
        "--points", 2, "--seeds", 1, "--out", tmp_path / "report",
    )  # fmt: skip
    assert (tmp_path / "report" / "index.html").exists()
    with pytest.raises(InputError, match="an adapter for toy models"):
        load_model("emoji-64", adapter)


def test_a_third_familys_adapter_works_by_hand_too(toy, space, tmp_path):
    family = family_of(toy)
    settings = family.settings(sampling={"num_inference_steps": 2})
    backend = family.create_backend(str(toy), space, settings)
    with torch.no_grad():
        for parameter in backend.named_parameters().values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    backend.save(tmp_path / "adapter")
    pipe = load_model(toy)
    plain = np.asarray(pipe("red apple", generator=torch.manual_seed(0)).images[0])
    pipe.load_adapter(tmp_path / "adapter")
    drawn = [
        np.asarray(pipe("red apple", targets=t, generator=torch.manual_seed(0)).images[0], int)
        for t in ({"colorfulness": -2.0}, {"colorfulness": 2.0})
    ]
    assert (drawn[0] != drawn[1]).any()
    (sampled,) = backend.sample(["red apple"], [{"colorfulness": 2.0}], [0])
    assert np.abs(drawn[1] - np.asarray(sampled, int)).max() <= 1
    pipe.unload_adapter()
    again = np.asarray(pipe("red apple", generator=torch.manual_seed(0)).images[0])
    assert (again == plain).all()


@pytest.fixture
def space():
    rng = np.random.default_rng(0)
    return RewardSpace.fit({n: rng.normal(size=100) for n in ("colorfulness", "compressibility")})
