"""Engines: what a config may say, and work in this process."""

import pytest

from ric_diffusion.io import extras
from ric_diffusion.io.engines import HERE, LOCAL, EngineConfig, InProcess, opened
from ric_diffusion.io.errors import InputError
from support import tasks


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "rya"}, r"engine: 'rya' is unknown; did you mean 'ray'\?"),
        ({"address": "auto"}, "address: goes with the engine ray; add that, or leave it out"),
        ({"name": "ray", "workers": 0}, "workers 0: give a whole number from 1"),
    ],
)
def test_configs_are_checked(given, message):
    with pytest.raises(InputError, match=message):
        EngineConfig(**given)


def test_ray_has_an_address():
    assert EngineConfig(name="ray", address="auto").address == "auto"


def test_in_this_process_items_are_done_in_order_as_they_are_asked_for():
    with opened(LOCAL) as engine:
        found = engine.map(tasks.product, [3, 1, 2], here=10, elsewhere=None, called=str)
        assert engine.workers == 1 and next(found) == 30
        assert list(found) == [10, 20]
    assert isinstance(HERE.engine, InProcess)
    assert list(HERE.map(tasks.product, [5], here=2, called=str, unused="by this one")) == [10]


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    message = r"engine ray: .*ray.* not installed; pip install 'ric-diffusion\[scale\]'"
    with pytest.raises(InputError, match=message), opened(EngineConfig(name="ray")):
        pass
