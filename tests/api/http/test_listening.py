"""Where a server listens, and whom it answers."""

import socket

import pytest

from ric_diffusion.api.http.listening import address_of, hosts_of, listening, token_in
from ric_diffusion.io.errors import InputError


@pytest.mark.parametrize(
    ("host", "token", "hosts"),
    [
        ("127.0.0.1", "", "loopback"),
        ("localhost", "sesame", "loopback"),
        ("::1", "", "loopback"),
        ("0.0.0.0", "", "addresses"),
        ("gpu1", "", "addresses"),
        ("0.0.0.0", "sesame", "any"),
    ],
)
def test_whom_it_answers_to(host, token, hosts):
    assert hosts_of(host, token) == hosts


def test_the_address_is_what_one_types():
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of("127.0.0.1", listener) == f"http://127.0.0.1:{port}"
        assert address_of("::1", listener) == f"http://[::1]:{port}"


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("no.such.host.invalid", 0)])
def test_an_address_that_cannot_be_had(host, port):
    with pytest.raises(InputError, match=f"port {port}: cannot be listened on at host {host}"):
        listening(host, port)


def test_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="choose another"):
            listening("127.0.0.1", port)


def test_the_token(monkeypatch):
    monkeypatch.setenv("RIC_X", "sesame")
    assert token_in("RIC_X") == "sesame" and token_in("RIC_NONE") == ""
    monkeypatch.setenv("RIC_X", "two words")
    with pytest.raises(InputError, match="RIC_X: must be ASCII without spaces"):
        token_in("RIC_X")
