"""The home folder, in paths and in names."""

from pathlib import Path

import pytest

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded, expanded_name, is_path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_a_tilde_at_the_beginning_is_the_home_folder(home):
    assert expanded("~/a b") == expanded(Path("~/a b")) == home / "a b"
    for path in ("a/~", "/~x", "a~"):
        assert expanded(path) == Path(path)


def test_a_name_that_is_no_path_stays_as_it_is(home):
    assert expanded_name("~/models/sd") == str(home / "models" / "sd")
    for name in ("user/name", "emoji-64", "https://hf.co/a/b/resolve/main/x.safetensors"):
        assert expanded_name(name) == name


@pytest.mark.parametrize("call", [expanded, expanded_name])
def test_the_home_folder_of_nobody_is_one_line(call):
    with pytest.raises(InputError, match="~no-such-user-here/a: no user of that name has a home"):
        call("~no-such-user-here/a")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("runs/a/b", True),
        ("./a", True),
        ("/a", True),
        ("a b", True),
        ("owner/name", False),
        ("https://hub.example/a", False),
    ],
)
def test_what_can_only_be_a_path(name, path):
    assert is_path(name) == path
