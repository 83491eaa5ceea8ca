"""Pictures under placements, and the captions that say so."""

import pytest
import torch

from placement import GRAMMAR, draw_placement, placed


def square(side=32, half=4, x=0, y=0):
    """A black square on white, its centre moved by x to the right and y down."""
    image = torch.full((1, 3, side, side), 255, dtype=torch.uint8)
    middle = side // 2
    rows, columns = (slice(middle + d - half, middle + d + half) for d in (y, x))
    image[:, :, rows, columns] = 0
    return image


def ink(image):
    """How much ink there is, and where its centre is: (area, x, y) in pixels from the middle."""
    amount = (255.0 - image[0].float()).mean(dim=0) / 255
    at = torch.arange(len(amount)) + 0.5 - len(amount) / 2
    area = amount.sum()
    return area.item(), (amount.sum(0) @ at / area).item(), (amount.sum(1) @ at / area).item()


def test_nothing_said_changes_nothing():
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(placed(image, [{}, {"turn": 0.0, "up": 0.0}]), image)


def test_each_number_does_what_its_word_says():
    image = square()
    area, x, y = ink(placed(image, [{"right": 2.0, "up": -1.0}]))
    assert (area, x, y) == pytest.approx((64, 4, 2), abs=0.1)
    sizes = [ink(placed(image, [{"size": size}]))[0] for size in (-3.0, 0.0, 3.0)]
    assert sizes == pytest.approx([64 * (0.75 * 1.15**size) ** 2 for size in (-3, 0, 3)], rel=0.1)
    # A quarter turn is six units: what was on the right is above, seen counterclockwise.
    _, x, y = ink(placed(square(x=8), [{"turn": 6.0}]))
    assert (x, y) == pytest.approx((0, -8), abs=0.2)
    # It turns and shrinks in its place, and then moves.
    _, x, y = ink(placed(square(x=8), [{"turn": 6.0, "right": 1.0, "size": 0.0}]))
    assert (x, y) == pytest.approx((2, -6), abs=0.3)


def test_each_picture_has_its_own():
    both = placed(torch.cat([square(), square()]), [{"right": 1.0}, {"right": -1.0}])
    assert torch.equal(both[0], placed(square(), [{"right": 1.0}])[0])
    assert torch.equal(both[1], placed(square(), [{"right": -1.0}])[0])


def test_drawn_placements_cover_what_reward_words_reach():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_placement(generator) for _ in range(600)]
    again = torch.Generator().manual_seed(0)
    assert drawn[:5] == [draw_placement(again) for _ in range(5)]
    assert {len(each) for each in drawn} == {1, 2, 3}
    for name in GRAMMAR.names:
        values = [each[name] for each in drawn if name in each]
        assert len(values) > 200 and min(values) < -2.8 and max(values) > 2.8
        assert all(value == round(value, 1) for value in values)
