"""A calibrated adapter: asked for z it reads what gives z, and says what it cannot reach."""

import dataclasses
import json
import shutil

import pytest
import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve

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
