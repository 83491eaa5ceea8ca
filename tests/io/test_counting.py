import pytest

from ric_diffusion.io.counting import counted


@pytest.mark.parametrize(
    "said, args",
    [
        ("0 pictures", (0, "pictures")),
        ("1 usable picture", (1, "usable pictures")),
        ("2 usable pictures", (2, "usable pictures")),
        ("1 pass", (1, "passes", "pass")),
        ("3 passes", (3, "passes", "pass")),
    ],
)
def test_one_thing_is_singular(said, args):
    assert counted(*args) == said
