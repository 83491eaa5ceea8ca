"""The search: how soon it finds model targets that give the targets, and what it does where there
are none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ric_diffusion.rewards import Curve
from ric_diffusion.rewards.refine import (
    BEYOND,
    INSIDE,
    SMALLEST,
    TOLERANCE,
    Axis,
    Search,
    _between,
    _inside,
)

LOW, HIGH = -2.3, 2.1
ENDS = LOW - BEYOND * (HIGH - LOW), HIGH + BEYOND * (HIGH - LOW)
PLAIN = Axis.of(None, LOW, HIGH)
nan = math.nan


def run(response, targets, passes, *, start=None, axes=None, **more):
    """A search that is told what a response gives, (n,) -> (n,), over a first and ``passes`` more
    evaluations."""
    targets = np.atleast_1d(np.asarray(targets, float))
    start = np.clip(targets, LOW, HIGH) if start is None else np.atleast_1d(start)
    search = Search(targets, start, axes or [PLAIN] * len(targets), **more)
    for _ in range(passes + 1):
        asked = search.ask()
        if asked is None:
            break
        search.tell(asked, np.atleast_1d(response(asked)))
    return search


def distance(search):
    return search.distances[search.nearest]


@pytest.mark.parametrize("low, high, share", [(-10.0, 0.06, 1 - INSIDE), (-0.06, 10.0, INSIDE)])
def test_what_lies_almost_at_one_of_two_ends_is_asked_for_inside(low, high, share):
    """A point once more would tell nothing."""
    search = Search(np.zeros(1), np.zeros(1), [PLAIN])
    for asked, obtained in ((-1.0, low), (1.0, high)):
        search.tell([asked], [obtained])
    assert search.ask() == pytest.approx(-1 + 2 * share)


shapes = st.tuples(st.floats(0.3, 1.5), st.floats(-1, 1), st.floats(0.3, 1.5))


def smooth(a, b, c):
    """Monotone, steepest in the middle: slopes from 0.09 to 2.25 there."""
    return lambda m: b + 2 * a * np.tanh(c * m / 2)


@given(shapes, st.floats(-1.5, 1.5))
def test_what_rises_smoothly_is_found_in_a_few_passes(shape, root):
    """In as many as the command suggests to a tenth of a z but for the oddest shapes, which take a
    few more."""
    response = smooth(*shape)
    target = response(root)
    search = run(response, target, 3)
    first = search.distances[0]
    assert distance(search) <= max(0.3 * first, 0.1)
    assert run(response, target, 8).reached


@pytest.mark.parametrize("gain, offset", [(0.5, 0.3), (1.0, -0.8), (1.8, 0.5)])
@pytest.mark.parametrize("target", [-1.0, 0.2, 1.0])
def test_what_is_linear_is_found_in_two(gain, offset, target):
    assert run(lambda m: gain * m + offset, target, 2).reached


def test_three_passes_are_near_on_average():
    rng = np.random.default_rng(0)
    first, last = [], []
    for _ in range(300):
        response = smooth(rng.uniform(0.3, 1.5), rng.uniform(-1, 1), rng.uniform(0.3, 1.5))
        search = run(response, response(rng.uniform(-2.5, 2.5)), 3)
        first.append(search.distances[0])
        last.append(distance(search))
    assert np.mean(first) > 0.3 and np.mean(last) < 0.03


@given(st.integers(0, 10**6), st.floats(-3, 3), st.integers(1, 20))
def test_whatever_the_response_the_nearest_is_kept_and_the_bounds_hold(seed, target, passes):
    """Noise, jumps, folds and holes: never worse than the first, never asked twice, and the same
    again for the same answers."""
    rng = np.random.default_rng(seed)
    knots, values = np.sort(rng.uniform(-4, 4, 6)), rng.normal(size=6)
    holes = rng.uniform(-4, 4, 2)

    def response(m):
        if np.abs(m - holes).min() < 0.3:
            return nan
        return np.interp(m, knots, values) + 0.3 * rng.normal()

    search = run(response, target, passes, start=float(np.clip(target, LOW, HIGH)))
    assert len(search.obtained) <= passes + 1
    assert distance(search) == search.distances.min() <= search.distances[0]
    asked = np.array(search.model_targets)[:, 0]
    assert asked.min() >= ENDS[0] - 1e-9 and asked.max() <= ENDS[1] + 1e-9
    gaps = np.abs(asked[:, None] - asked)[np.triu_indices(len(asked), 1)]
    assert (gaps >= SMALLEST - 1e-12).all()
    replayed = Search([target], search.model_targets[0], [PLAIN])
    for told, z in zip(search.model_targets, search.obtained, strict=True):
        assert np.array_equal(replayed.ask(), told)
        replayed.tell(told, z)


def test_it_ends_where_it_is_near_enough():
    search = run(lambda m: m + 0.04, 1.0, 5)
    assert len(search.obtained) == 1 and search.reached and search.ask() is None
    search = run(lambda m: m + 0.06, 1.0, 5)
    assert len(search.obtained) == 2


@pytest.mark.parametrize("target, end", [(2.0, ENDS[1]), (-2.0, ENDS[0])])
def test_what_cannot_be_reached_ends_at_the_end(target, end):
    """Saturated at 0.8: the search goes to the end of what may be asked, and no further."""
    search = run(lambda m: np.clip(0.8 * np.tanh(m), -0.8, 0.8), target, 20)
    assert not search.reached and search.ask() is None
    assert len(search.obtained) <= 4
    assert max(abs(m[0]) for m in search.model_targets) == pytest.approx(abs(end))


def test_a_response_that_turns_back_is_looked_for_on_both_sides():
    """The most there is to have, 1.2, is obtained at 0.7, and less of everything beyond."""
    search = run(lambda m: 1.2 - 0.5 * (m - 0.7) ** 2, 1.5, 8)
    assert not search.reached
    assert search.obtained[search.nearest][0] == pytest.approx(1.2, abs=0.1)


def test_between_two_styles_lies_nothing():
    """A jump from -1.3 to 0.3: the nearer edge is found, and the search ends where it is."""
    search = run(lambda m: np.where(m < -0.61, -1.3, 0.3), -0.3, 20)
    assert search.obtained[search.nearest][0] == pytest.approx(0.3)
    assert search.ask() is None and len(search.obtained) < 12


def test_nothing_is_obtained():
    assert len(run(lambda m: nan, 1.0, 20).obtained) < 12
    search = run(lambda m: nan, 0.0, 20)
    assert len(search.obtained) == 1 and search.nearest == 0 and not search.reached


def test_it_turns_back_from_what_is_rejected():
    """From 1.2 on every sample is blank. The first is one, and so is a step that goes too far."""
    response = lambda m: np.where(m < 1.2, 0.8 * m, nan)  # noqa: E731
    search = run(response, 0.9, 8, start=1.8)
    assert not np.isfinite(search.distances[0]) and search.reached
    search = run(response, 1.5, 8, start=0.2)
    assert search.obtained[search.nearest][0] > 0.75


def test_a_plateau_is_crossed():
    """Nothing changes up to 1, where the slope says that nothing ever will."""
    search = run(lambda m: np.where(m < 1.0, -0.5, m - 1.5), 0.5, 8, start=0.0)
    assert search.reached


def coupled(m):
    return np.array([0.2, -0.3]) + np.array([[0.8, -0.4], [0.3, 0.6]]) @ (2 * np.tanh(m / 2))


@given(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)))
def test_several_rewards_at_once(roots):
    targets = coupled(np.array(roots))
    search = run(coupled, targets, 3)
    assert distance(search) <= max(0.5 * search.distances[0], TOLERANCE)
    assert run(coupled, targets, 12).reached


def test_three_rewards_of_which_one_cannot_be_had():
    """The others come near, and the one that saturates stays at its end."""
    search = run(lambda m: np.array([0.7 * m[0], min(m[1], 0.5), m[2] + 0.3 * m[0]]), [1, 2, -1], 8)
    assert search.obtained[search.nearest] == pytest.approx([1.0, 0.5, -1.0], abs=0.1)
    assert not search.reached


def test_several_rewards_turn_back_too():
    response = lambda m: np.where(m[0] < 1.0, 0.9 * m, nan)  # noqa: E731
    search = run(response, [0.8, -0.5], 8, start=[1.5, -0.5])
    assert not np.isfinite(search.distances[0]) and search.reached


def test_nothing_to_move_is_reached_at_once():
    search = run(lambda m: m, [], 3)
    assert len(search.obtained) == 1 and search.reached


CURVE = Curve.fit([-2, -1.3, -1.2, 0, 2], [-1.3, -1.2, 0.2, 0.8, 1.4])


def test_an_axis_is_what_calibration_expects_and_goes_on_beyond():
    axis = Axis.of(CURVE, -2.0, 2.0)
    assert axis.model_targets == (-3, -2, -1.3, -1.2, 0, 2, 3)
    assert axis.expected[1:-1] == CURVE.obtained
    whole = 2.7 / 4
    assert axis.expected[0] == pytest.approx(-1.3 - whole)
    assert axis.expected[-1] == pytest.approx(1.4 + whole)
    for m in (-3.5, -3.0, -1.25, 0.4, 2.7, 4.0):
        assert axis.model_target(axis.place(m)) == pytest.approx(m)
    assert axis.place(-1.25) == pytest.approx(-0.5)


def test_where_the_response_is_steep_calibration_makes_the_search_short():
    """A picture of the calibration's shape, moved by 0.4: what it says of the steep part holds."""
    response = lambda m: np.interp(m, CURVE.requested, CURVE.obtained) + 0.4  # noqa: E731
    start = CURVE.request(0.0)
    calibrated = run(response, 0.0, 3, start=start, axes=[Axis.of(CURVE, -2.0, 2.0)])
    assert len(calibrated.obtained) == 2 and calibrated.reached
    assert len(run(response, 0.0, 9, start=start).obtained) > 2


def test_what_the_model_rounds_is_told_as_it_is_read():
    """Words have one decimal: no reading is drawn twice, and the nearest is the best there is."""
    search = run(lambda m: 0.9 * m + 0.13, 0.55, 20, start=0.6, read=lambda m: m.round(1))
    asked = [m[0] for m in search.model_targets]
    assert asked == [round(m, 1) for m in asked] and len(asked) == len(set(asked))
    assert search.model_targets[search.nearest][0] == 0.5


def test_an_axis_goes_on_beyond_its_curve_only_where_that_ends_within():
    wide = Curve.fit([-9.0, 0.0, 9.0], [-2.0, 0.0, 2.0])
    axis = Axis.of(wide, LOW, HIGH)
    assert axis.model_targets == tuple(wide.requested) and axis.expected == tuple(wide.obtained)
    narrow = Curve.fit([-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0])
    axis = Axis.of(narrow, LOW, HIGH)
    assert (axis.model_targets[0], axis.model_targets[-1]) == pytest.approx(ENDS)
    assert axis.expected[0] == pytest.approx(2 * ENDS[0])  # as steep as on the whole
    assert axis.expected[-1] == pytest.approx(2 * ENDS[1])
    right = Curve.fit([-9.0, 0.0, 1.0], [-2.0, 0.0, 2.0])
    axis = Axis.of(right, LOW, HIGH)
    assert axis.model_targets == pytest.approx((-9.0, 0.0, 1.0, ENDS[1]))


def test_a_start_of_whole_numbers_is_one_of_floats():
    search = Search(np.array([1.0]), [1], [PLAIN])
    assert search.ask().dtype == float


def told(search, *evaluations):
    """What a search asks for after these (model targets, z)."""
    for asked, obtained in evaluations:
        search.tell(asked, obtained)
    return search.ask()


def one(target=0.0, start=0.0, axis=PLAIN):
    return Search([target], [start], [axis])


def test_regula_falsi_by_hand():
    """The straight line's root; an end that stayed counts half as much for each time it did."""
    assert _between([0.0, 4.0], [-1.0, 3.0], [0, 1]) == pytest.approx(1.0)
    assert _between([0.0, 4.0], [-1.0, 3.0], [1, 0]) == pytest.approx(1.0)
    assert _between([0.0, 4.0], [-1.0, 3.0], [3, 0]) == pytest.approx(4 * 1 / 1.75)
    assert _between([0.0, 4.0], [-1.0, 3.0], [0, 2]) == pytest.approx(4 * 0.5 / 3.5)
    assert _between([2.0, 4.0], [-1e9, 1.0], [0, 1]) == pytest.approx(4 - 2 * INSIDE)
    assert _between([2.0, 4.0], [-1.0, 1e9], [0, 1]) == pytest.approx(2 + 2 * INSIDE)


def test_the_bounded_move_by_hand():
    plenty = np.full(2, 9.0)
    jacobian = np.array([[1.0, 0.5], [0.0, 2.0]])
    move = _inside(jacobian, np.array([2.0, 2.0]), -plenty, plenty)
    assert move == pytest.approx([1.5, 1.0])
    # The second stops at its end, and the first makes up for it.
    move = _inside(jacobian, np.array([2.0, 2.0]), -plenty, np.array([9.0, 0.4]))
    assert move == pytest.approx([1.8, 0.4])
    move = _inside(jacobian, np.array([-2.0, -2.0]), np.array([-9.0, -0.4]), plenty)
    assert move == pytest.approx([-1.8, -0.4])
    assert _inside(jacobian, np.array([9.0, 9.0]), -np.ones(2), np.ones(2)) == pytest.approx([1, 1])


def test_the_first_steps_by_hand():
    """The start; from there as far as is missing, at most 1.5; then along the secant."""
    assert one(1.0, 0.4).ask().tolist() == [0.4]
    assert told(one(1.0), ([0.0], [0.3])) == pytest.approx([0.7])
    assert told(one(-1.0), ([0.0], [0.3])) == pytest.approx([-1.3])
    assert told(one(3.0), ([0.0], [0.0])) == pytest.approx([1.5])
    assert told(one(1.0), ([0.0], [0.0]), ([1.0], [0.5])) == pytest.approx([2.0])
    assert told(one(-1.0), ([0.0], [0.0]), ([-1.0], [-0.5])) == pytest.approx([-2.0])
    # A slope of 0.01 counts as one of 0.1, and a move may be as long as the last.
    assert told(one(1.0), ([-2.0], [0.0]), ([0.0], [0.02])) == pytest.approx([2.0])
    assert told(one(1.0), ([0.0], [0.96])) is None  # near enough


def test_a_search_goes_no_farther_than_the_axis_unless_it_starts_there():
    assert told(one(9.0, HIGH), ([HIGH], [0.0])) == pytest.approx([ENDS[1]])
    assert told(one(-9.0, LOW), ([LOW], [0.0])) == pytest.approx([ENDS[0]])
    beyond = one(9.0, 7.0)
    assert beyond.highs == pytest.approx([7.0]) and beyond.lows == pytest.approx([ENDS[0]])
    below = one(-9.0, -7.0)
    assert below.lows == pytest.approx([-7.0]) and below.highs == pytest.approx([ENDS[1]])
    assert told(beyond, ([7.0], [0.0])) is None  # there is nothing beyond


def test_where_nothing_is_measured_it_turns_back_by_halves():
    assert told(one(2.0, 1.0), ([1.0], [nan])) == pytest.approx([0.5])
    assert told(one(2.0), ([0.0], [0.0]), ([1.5], [nan])) == pytest.approx([0.75])
    # Out again, at most halfway to what could not be measured.
    asked = told(one(2.0), ([0.0], [0.0]), ([1.5], [nan]), ([0.5], [0.5]))
    assert asked == pytest.approx([1.0])


def test_what_falls_is_looked_for_on_the_other_side():
    assert told(one(1.0), ([0.0], [0.0]), ([1.0], [-0.5])) == pytest.approx([-1.0])
    # Between three of which the middle is nearest: half of the wider gap, if there is one.
    asked = told(one(1.0), ([0.0], [0.5]), ([1.0], [0.2]), ([-2.0], [0.1]))
    assert asked == pytest.approx([-1.0])
    close = (([0.0], [0.5]), ([0.3], [0.2]), ([-0.3], [0.1]))
    assert told(one(1.0), *close) is None


def test_two_rewards_by_hand():
    """The first move takes z to rise as asked; the second has learned from it (Broyden)."""
    search = Search([1.0, -0.5], [0.0, 0.0], [PLAIN, PLAIN])
    assert told(search, ([0.0, 0.0], [0.0, 0.0])) == pytest.approx([1.0, -0.5])
    asked = told(search, ([1.0, -0.5], [0.5, -0.25]))
    change, move = np.array([0.5, -0.25]), np.array([1.0, -0.5])
    jacobian = np.eye(2) + np.outer(change - move, move) / (move @ move)
    assert asked == pytest.approx(move + np.linalg.solve(jacobian, [0.5, -0.25]))
    far = Search([5.0, 0.0], [0.0, 0.0], [PLAIN, PLAIN])
    assert told(far, ([0.0, 0.0], [0.0, 0.0])) == pytest.approx([1.5, 0.0])
    assert far.distances.tolist() == pytest.approx([5 / 2**0.5])
    # It came no nearer: from the first again, half as far.
    assert told(far, ([1.5, 0.0], [-1.0, 0.0])) == pytest.approx([0.75, 0.0])


def test_as_many_axes_as_targets():
    with pytest.raises(ValueError, match="zip"):
        Search([0.0, 0.0], [0.0, 0.0], [PLAIN])
