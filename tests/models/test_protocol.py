"""What rooms share of the backend protocol."""

import numpy as np
import pytest

from ric_diffusion.models.judge import diversity

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_diversity_by_hand():
    assert diversity(np.array([EAST, EAST, EAST])) == pytest.approx(0)
    assert diversity(np.array([EAST, NORTH, WEST])) == pytest.approx(4 / 3)
    assert diversity(np.array([EAST, WEST])) == pytest.approx(2)
    assert np.isnan(diversity(np.array([EAST])))
