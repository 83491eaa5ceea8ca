"""Optional dependencies: what is missing is named before anything is imported."""

import sys
from contextlib import suppress

import pytest

from ric_diffusion.io import extras
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.extras import NEEDS, require


def hide(monkeypatch, *packages: str) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in packages else object())


@pytest.mark.parametrize("extra", NEEDS)
def test_nothing_is_said_where_all_is_installed(monkeypatch, extra):
    hide(monkeypatch)
    require(extra, "anything")


def test_one_package_is_missing(monkeypatch):
    hide(monkeypatch, "pyarrow")
    with pytest.raises(InputError) as error:
        require("train", "label")
    said = "label: pyarrow is not installed; pip install 'ric-diffusion[train]'"
    assert str(error.value) == said


def test_several_packages_are_missing(monkeypatch):
    hide(monkeypatch, "peft", "tensorboard")
    with pytest.raises(InputError, match=r"^train: peft, tensorboard are not installed; pip"):
        require("train", "train")


def test_nothing_is_imported():
    before = set(sys.modules)
    for extra in NEEDS:
        with suppress(InputError):  # not everything needs to be installed for this test
            require(extra, "anything")
    assert not set(sys.modules) - before & {name for names in NEEDS.values() for name in names}
