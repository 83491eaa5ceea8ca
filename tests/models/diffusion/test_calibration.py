"""A calibrated adapter: asked for z it reads what gives z, and says what it cannot reach."""

import dataclasses
import json
import shutil

import pytest
import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve
from support.prompts import knowing

CURVES = {"colorfulness": Curve(requested=(-2, 0, 2), obtained=(-1, 0.2, 0.6))}


@pytest.fixture(params=["embedding", "text"])
def both(request, adapters, pipe):
    """The pipeline, and the uncalibrated adapter in it."""
    pipe.load_adapter(adapters[request.param])
    return pipe


def calibrate(pipe):
    pipe.adapter = dataclasses.replace(pipe.adapter, calibration=CURVES)


def test_a_target_is_turned_into_the_request_that_gives_it(both, draw):
    plain = draw(both, targets={"colorfulness": 1.0, "compressibility": 0.5})
    calibrate(both)
    assert torch.equal(draw(both, targets={"colorfulness": 0.4, "compressibility": 0.5}), plain)
    negative = {"negative_targets": {"colorfulness": -0.4}}
    calibrated = draw(both, **negative)
    both.adapter = dataclasses.replace(both.adapter, calibration={})
    assert torch.equal(calibrated, draw(both, negative_targets={"colorfulness": -1.0}))


def test_contrast_is_the_opposite_of_what_the_model_reads(both, draw):
    targets = {"colorfulness": 1.0, "compressibility": 0.5}
    opposite = {"colorfulness": -0.4, "compressibility": -0.2}
    plain = draw(both, targets=targets, negative_targets=opposite)
    calibrate(both)
    targets["colorfulness"] = 0.4
    assert torch.equal(draw(both, targets=targets, contrast=0.4), plain)


def test_what_cannot_be_reached_is_clamped_and_said(both, caplog):
    calibrate(both)
    given = {"num_inference_steps": 1, "output_type": "latent"}
    out = both("red apple", targets={"colorfulness": 2.0, "compressibility": 2.0}, **given)
    assert out.targets == [{"colorfulness": 0.6, "compressibility": 2.0}]
    assert "colorfulness: 2.00 z is beyond the reachable range; 0.60 is used" in caplog.text
    caplog.clear()
    out = both("red apple", targets={"colorfulness": 0.33}, **given)
    assert out.targets == [{"colorfulness": 0.33}] and not caplog.text
    out = both("red apple", preference={"colorfulness": 1.0}, **given)
    assert out.targets[0]["colorfulness"] == 0.6 and not caplog.text


def test_uncalibrated_targets_are_what_the_model_reads(both, draw):
    plain = draw(both, targets={"colorfulness": 1.0})
    calibrate(both)
    adapter = both.adapter
    with pytest.raises(KeyError), both.uncalibrated():
        assert torch.equal(draw(both, targets={"colorfulness": 1.0}), plain)
        raise KeyError
    assert both.adapter is adapter
    assert torch.equal(draw(both, targets={"colorfulness": 0.4}), plain)


def test_it_is_stored_with_the_adapter(both, tmp_path):
    calibrate(both)
    both.save_adapter(tmp_path / "a")
    assert Adapter.load(tmp_path / "a").calibration == CURVES


def test_training_reads_what_was_obtained(make_backend):
    """Calibration is for asking; a record's own scores are what they are."""
    backend = make_backend()
    plain = backend.context(["red apple"], [{"colorfulness": 0.5}]).states
    backend.adapter = backend.pipe.adapter = dataclasses.replace(
        backend.adapter, calibration=CURVES
    )
    again = backend.context(["red apple"], [{"colorfulness": 0.5}]).states
    assert torch.equal(again, plain)


@pytest.mark.parametrize(
    "stored",
    [None, {"sharpness": CURVES["colorfulness"].to_dict()}, {"colorfulness": [1]}],
)
def test_a_malformed_one_is_refused(adapters, tmp_path, stored):
    shutil.copytree(adapters["text"], tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    path = tmp_path / "a" / "ric_adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": stored}))
    with pytest.raises(InputError, match=r"ric_adapter\.json: calibration"):
        Adapter.load(tmp_path / "a")


def test_training_goes_on_without_it(adapters, make_backend, pipe, tmp_path):
    """The curves are those of the weights that training changes."""
    pipe.load_adapter(adapters["embedding"])
    calibrate(pipe)
    pipe.save_adapter(tmp_path / "a")
    backend = make_backend()
    backend.load(tmp_path / "a")
    assert backend.adapter.calibration == backend.pipe.adapter.calibration == {}


def test_the_card_tells_what_can_be_reached(both, tmp_path):
    both.save_adapter(tmp_path / "plain")
    calibrate(both)
    both.save_adapter(tmp_path / "calibrated")
    plain, card = ((tmp_path / name / "README.md").read_text() for name in ("plain", "calibrated"))
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| ")}
    assert rows["| reward"].endswith("| reachable (z) |")
    assert rows["| colorfulness"].endswith("| -1.00 … +0.60 |")
    assert rows["| compressibility"].endswith("| not calibrated |")
    assert len({row.count("|") for row in rows.values()}) == 1
    assert "reachable" not in plain and "calibrated" not in plain


APPLE, CAR = "red apple", "blue car"
GIVEN = {"num_inference_steps": 1, "output_type": "latent"}


def know_prompts(pipe):
    """Calibrated so that the apple gives 0.5 z more colorfulness than the car, and that CURVES."""
    curve = knowing(CURVES["colorfulness"], pipe.prompt_features([CAR, APPLE]), offset=0.5)
    pipe.adapter = dataclasses.replace(pipe.adapter, calibration={"colorfulness": curve})


def test_each_prompt_of_a_batch_is_asked_for_its_own(both, draw):
    plain = {
        prompt: draw(both, prompt, targets={"colorfulness": z})
        for prompt, z in ((CAR, 1.0), (APPLE, 0.0))
    }
    other = draw(both, APPLE, targets={"colorfulness": 1.0})
    know_prompts(both)
    asked = {"targets": {"colorfulness": 0.7}}  # of the car 0.6 at most, of the apple 1.1
    low, high = (own.model_targets(asked["targets"]) for own in both.adapters_for([CAR, APPLE]))
    assert low == {"colorfulness": 2.0}
    assert high == pytest.approx({"colorfulness": 0.0}, abs=1e-3)
    alone = draw(both, APPLE, **asked)
    assert torch.allclose(alone, plain[APPLE], atol=1e-3)
    assert not torch.allclose(alone, other, atol=1e-3)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    out = both([CAR, APPLE], generator=generators, **asked, **GIVEN | {"num_inference_steps": 2})
    assert out.targets == [{"colorfulness": 0.6}, {"colorfulness": 0.7}]
    assert torch.allclose(out.images[1:], alone, atol=1e-4)
    several = both([CAR, APPLE], num_images_per_prompt=2, **asked, **GIVEN)
    assert several.targets == [{"colorfulness": 0.6}] * 2 + [{"colorfulness": 0.7}] * 2


def test_what_cannot_be_reached_is_said_of_each_prompt(both, caplog):
    know_prompts(both)
    out = both([CAR, APPLE], targets={"colorfulness": 2.0}, **GIVEN)
    assert [one["colorfulness"] for one in out.targets] == pytest.approx([0.6, 1.1])
    for reached in ("0.60", "1.10"):
        assert f"2.00 z is beyond the reachable range; {reached} is used" in caplog.text


def test_a_prompt_given_as_its_embeds_is_the_same_prompt(pipe, adapters, draw):
    pipe.load_adapter(adapters["embedding"])
    know_prompts(pipe)
    asked = {"targets": {"colorfulness": 0.7}}
    states, _ = pipe.encode_prompt(APPLE, "cpu", 1, False)
    given = draw(pipe, None, prompt_embeds=states, negative_prompt="", **asked)
    # Where tensors begin in memory decides how MKL rounds.
    assert torch.allclose(given, draw(pipe, APPLE, **asked), atol=1e-4)


def test_features_are_those_of_the_prompt_alone(both):
    """Whatever else is in the batch, and to the bit."""
    found = both.prompt_features([CAR, APPLE, CAR])
    channels = both.vae.config.latent_channels
    assert found.shape == (3, 2 * channels) and found.dtype == "float32"
    assert (found[0] == found[2]).all() and (found[:1] == both.prompt_features([CAR])).all()
    assert abs(found[0] - found[1]).max() > 1e-4
    both.unload_adapter()
    with pytest.raises(InputError, match="no adapter is loaded"):
        both.prompt_features([CAR])


def test_it_is_stored_checked_and_told(both, tmp_path):
    calibrate(both)
    both.save_adapter(tmp_path / "average")
    know_prompts(both)
    both.save_adapter(tmp_path / "a")
    assert Adapter.load(tmp_path / "a").calibration == both.adapter.calibration
    both.load_adapter(tmp_path / "a")
    assert both.adapter.knows_prompts
    average, card = ((tmp_path / name / "README.md").read_text() for name in ("average", "a"))
    assert "It knows the prompt" in card and "0.60 z of colorfulness without it and 0.30" in card
    assert "It does not know the prompt" in average
    (tmp_path / "a" / "manifest.json").unlink()
    path = tmp_path / "a" / "ric_adapter.json"
    about = json.loads(path.read_text())
    about["calibration"]["colorfulness"]["prompt"]["offset"]["weights"].append(0.0)
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match="the calibration of colorfulness reads 9 features"):
        both.load_adapter(tmp_path / "a")
    about["calibration"]["colorfulness"]["prompt"]["offset"]["weights"][0] = "nan"
    path.write_text(json.dumps(about))
    with pytest.raises(
        InputError, match=r"ric_adapter\.json: calibration: prompt: weights must be"
    ):
        Adapter.load(tmp_path / "a")


def test_a_denoiser_that_reads_more_is_calibrated_on_average(pipe, adapters):
    """One for inpainting expects nothing where it is given no picture."""
    pipe.load_adapter(adapters["embedding"])
    know_prompts(pipe)
    curve = pipe.adapter.calibration
    channels = 2 * pipe.vae.config.latent_channels + 1
    pipe.unet.register_to_config(in_channels=channels)
    assert pipe.adapters_for([APPLE])[0].calibration == curve
