"""What is refused before a server reads it."""

import asyncio
import json

import pytest

from ric_diffusion.api.http import guard as guards
from ric_diffusion.api.http.guard import Guard

pytestmark = pytest.mark.attack
JSON = {"content-type": "application/json"}


async def app(scope, receive, send):
    """Answers with what was sent, and says what comes after it."""
    body = await receive()
    after = await receive()
    said = {"body": body["body"].decode(), "more": body["more_body"], "after": after["type"]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def ask(guard, chunks=(b"{}",), headers=(), path="/x", method="POST", client="1.1.1.1", wait=0.0):
    """(status, JSON, headers) of one request; ``wait``: seconds before each chunk."""

    async def run():
        messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
        if messages:
            messages[-1]["more_body"] = False
        messages.append({"type": "http.disconnect"})
        sent = []

        async def receive():
            await asyncio.sleep(wait)
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        given = {"host": "127.0.0.1:8000", **JSON, **dict(headers)}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "client": (client, 5),
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in given.items()],
        }
        await guard(scope, receive, send)
        start, body = sent
        return start["status"], json.loads(body["body"]), dict(start["headers"])

    return asyncio.run(run())


def test_a_body_is_read_whole_and_the_client_still_heard():
    found = ask(Guard(app, rate=100, max_bytes=10), [b'{"a', b'":1}'])[:2]
    assert found == (200, {"body": '{"a":1}', "more": False, "after": "http.disconnect"})


@pytest.mark.parametrize("hosts", ["loopback", "addresses", "any"])
@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:8000", {"loopback", "addresses", "any"}),
        ("localhost", {"loopback", "addresses", "any"}),
        ("[::1]:8000", {"loopback", "addresses", "any"}),
        ("192.168.0.7:8000", {"addresses", "any"}),
        ("[fe80::1]", {"addresses", "any"}),
        ("gpu-box:8000", {"addresses", "any"}),  # its own name
        ("evil.example:8000", {"any"}),
        ("127.0.0.1.evil.example", {"any"}),
        ("localhost.evil.example", {"any"}),
        ("", {"any"}),
    ],
)
def test_foreign_hosts_are_refused(hosts, host, answered, monkeypatch):
    monkeypatch.setattr(guards.socket, "gethostname", lambda: "GPU-box")
    status, said, _ = ask(Guard(app, hosts=hosts, rate=100, max_bytes=10), headers={"host": host})
    assert (status == 200) == (hosts in answered)
    if status != 200:
        assert (status, said) == (403, {"error": f"host {host!r} is none of this server's names"})


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200),
        ("http://127.0.0.1:3000", 403),  # another program's page on this machine
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_of_other_sites_are_refused(origin, status):
    found, said, headers = ask(Guard(app, rate=100, max_bytes=10), headers={"origin": origin})
    assert found == status and (status == 200 or said["error"].startswith("pages of "))
    assert b"access-control-allow-origin" not in headers


def test_the_token():
    guard = Guard(app, token="sesame", rate=100, max_bytes=10, open_paths=frozenset({"/health"}))
    for given in ("", "Bearer", "Bearer sesam", "Bearer sesame ", "Basic sesame", "Bearer sesamé"):
        status, said, headers = ask(guard, headers={"authorization": given})
        assert (status, said) == (401, {"error": "wrong or no token"})
        assert headers[b"www-authenticate"] == b"Bearer"
    assert ask(guard, headers={"authorization": "Bearer sesame"})[0] == 200
    assert ask(guard, path="/health")[0] == 200


def test_the_type_of_a_body():
    for kind in ("text/plain", "", "multipart/form-data; boundary=x", "application/jsonx"):
        assert ask(Guard(app, rate=100, max_bytes=10), headers={"content-type": kind})[0] == 415
    assert (
        ask(Guard(app, rate=100, max_bytes=10), headers={"content-type": "Application/JSON; a=b"})[
            0
        ]
        == 200
    )


def test_bodies_that_are_too_large():
    guard = Guard(app, rate=100, max_bytes=10)
    told = {"error": "the request has more than 10 bytes"}
    assert ask(guard, headers={"content-length": "11"})[:2] == (413, told)
    assert ask(guard, headers={"content-length": "-1"})[:2] == (413, told)
    assert ask(guard, [b"12345"] * 3)[:2] == (413, told)
    assert ask(guard, [b"1234567890"])[0] == 200
    assert guard._bodies._held == 0


def test_bodies_that_are_too_large_together():
    guard = Guard(app, rate=100, max_bytes=10)
    guard._bodies._held = 35  # of requests that are being answered
    assert ask(guard, [b"12345"])[0] == 200
    status, said, headers = ask(guard, [b"123456"])
    assert (status, headers[b"retry-after"]) == (503, b"1") and "too much" in said["error"]
    assert guard._bodies._held == 35


def test_a_body_that_is_too_slow(monkeypatch):
    monkeypatch.setattr(guards, "GRACE", 0.05)
    monkeypatch.setattr(guards, "SLOWEST", 100)
    guard = Guard(app, rate=100, max_bytes=1000)
    assert ask(guard, [b"1"] * 5, wait=0.03)[:2] == (
        408,
        {"error": "the request takes too long to arrive"},
    )
    assert ask(guard, [b"1" * 10] * 5, wait=0.03)[0] == 200  # 0.1 s more with every ten bytes


def test_a_client_that_goes_in_the_middle():
    assert ask(Guard(app, rate=100, max_bytes=10), [])[0] == 400


def test_too_many_requests_of_one_address(monkeypatch):
    monkeypatch.setattr(guards.time, "monotonic", lambda: 5.0)
    guard = Guard(app, rate=2, max_bytes=10)
    assert [ask(guard)[0] for _ in range(5)] == [200, 200, 200, 200, 429]
    assert ask(guard)[2][b"retry-after"] == b"1"
    assert ask(guard, client="1.1.1.2")[0] == 200
    monkeypatch.setattr(guards.time, "monotonic", lambda: 5.5)
    assert [ask(guard)[0] for _ in range(2)] == [200, 429]


def test_addresses_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(guards, "ADDRESSES", 10)
    rates = guards.Rates(1)
    assert all(rates.allow(str(i)) for i in range(50)) and len(rates._left) == 10


def test_what_is_said_of_a_header_is_one_short_line():
    for header, value in (("host", "a\x1b[2J" + "b" * 5000), ("origin", "\x07" * 5000)):
        _, said, _ = ask(
            Guard(app, hosts="loopback", rate=100, max_bytes=10), headers={header: value}
        )
        assert said["error"].isprintable() and len(said["error"]) < 400
