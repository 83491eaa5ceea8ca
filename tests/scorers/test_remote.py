"""The scorer `remote`, against a server that says what a test tells it to."""

import base64
import io
import json
import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import scorers
from scorers import remote_client
from scorers.remote import Part, cut
from scorers.remote_schema import Description

FACTS = {"protocol": 1, "name": "redness", "unit": "levels", "fingerprint": "redness v1"}


def redness(image):
    return float(np.asarray(image.convert("RGB"), dtype=float)[..., 0].mean())


@dataclass
class Server:
    """What the fake server does, and what it was asked."""

    url: str = ""
    facts: dict = field(default_factory=lambda: dict(FACTS))
    script: list = field(default_factory=list)  # for each POST: what it is answered instead
    asked: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked):
        if asked["encoding"] == "text":
            scores = [float(len(text)) for text in asked["samples"]]
        elif asked["encoding"] == "path":
            scores = [redness(Image.open(path)) for path in asked["samples"]]
        else:
            files = [io.BytesIO(base64.b64decode(one, validate=True)) for one in asked["samples"]]
            scores = [redness(Image.open(file)) for file in files]
        return {"scores": scores, "fingerprint": self.facts["fingerprint"]}


@pytest.fixture(scope="module")
def running():
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status, body, headers=()):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            server.tokens.append(self.headers["Authorization"])
            self.reply(*server.facts.get("instead", (200, server.facts)))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with server.lock:
                server.asked.append(json.loads(body))
                server.tokens.append(self.headers["Authorization"])
                step = server.script.pop(0) if server.script else None
            if callable(step):
                step = step()
            self.reply(*(step or (200, server.answer(json.loads(body)))))

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        http.shutdown()


@pytest.fixture
def server(running, monkeypatch):
    running.facts = dict(FACTS)
    for seen in (running.script, running.asked, running.tokens):
        seen.clear()
    monkeypatch.setattr(remote_client, "BACKOFF", 0.002)
    monkeypatch.delenv("RIC_SCORER_TOKEN", raising=False)
    return running


def load(server, **options):
    return scorers.load("remote", url=server.url, **options)


def refused(call, *args, kind=scorers.ScorerError):
    with pytest.raises(kind) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_scores_come_back_in_order(server, pictures):
    scorer = load(server, batch_size=2)
    np.testing.assert_array_equal(
        scorer(pictures), np.array([redness(p) for p in pictures], np.float32)
    )
    assert sorted(len(asked["samples"]) for asked in server.asked) == [1, 2, 2, 2]
    assert all(asked["prompts"] is None for asked in server.asked)


def test_it_is_what_the_server_says_it_is(server):
    server.facts |= {"needs_prompts": True, "compares_within": "prompt"}
    scorer = load(server)
    assert (scorer.name, scorer.kind, scorer.unit) == ("redness", "remote", "levels")
    assert (scorer.fingerprint, scorer.medium) == ("redness v1", "image")
    assert (scorer.needs_prompts, scorer.compares_within) == (True, "prompt")
    assert "prompts is None" in refused(scorer, [Image.new("RGB", (2, 2))])


def test_it_goes_by_the_name_it_is_given_and_is_built_again_from_its_options(server, pictures):
    scorer = load(server, called="hpsv3", timeout=5)
    assert scorer.name == "hpsv3" and load(server).options["called"] == "redness"
    again = scorers.load(scorer.kind, **json.loads(json.dumps(scorer.options)))
    assert (again.name, again.options) == (scorer.name, scorer.options)
    np.testing.assert_array_equal(again(pictures), scorer(pictures))
    assert "called='A' is not a name" in refused(lambda: load(server, called="A"))


def test_it_sees_pictures_as_other_scorers_do(server):
    half = Image.new("RGBA", (3, 3), (255, 0, 0, 0))  # transparent: white
    assert load(server)([half]) == pytest.approx(255)


def test_prompts_are_sent_with_their_pictures(server, pictures):
    server.facts |= {"needs_prompts": True}
    load(server, batch_size=3)(pictures[:4], ["a", "b", "ü", "d"])
    assert sorted(asked["prompts"] for asked in server.asked) == [["a", "b", "ü"], ["d"]]


def test_prompts_that_are_not_read_are_not_sent(server, pictures):
    load(server)(pictures[:2], ["a", "b"])
    assert server.asked[0]["prompts"] is None


def test_texts(server):
    server.facts |= {"medium": "text"}
    scorer = load(server)
    np.testing.assert_array_equal(scorer(["a", "", 'line\n"two"']), [1, 0, 10])
    assert "is a PIL.Image" in refused(scorer, [Image.new("RGB", (2, 2))])


def test_a_shared_folder_is_used_and_left_empty(server, pictures, tmp_path):
    server.facts |= {"reads_paths": True}
    expected = load(server)(pictures)
    np.testing.assert_array_equal(load(server, folder=str(tmp_path))(pictures), expected)
    [path, *_] = server.asked[-1]["samples"]
    assert path.startswith(str(tmp_path)) and server.asked[-1]["encoding"] == "path"
    assert list(tmp_path.iterdir()) == []
    server.facts |= {"reads_paths": False}
    assert "--root" in refused(lambda: load(server, folder=str(tmp_path)))
    assert "no such folder" in refused(lambda: load(server, folder=str(tmp_path / "no")))


def test_null_is_no_number(server, pictures):
    server.script = [(200, {"scores": [1, None], "fingerprint": "redness v1"})]
    assert np.isnan(load(server)(pictures[:2])[1])


def test_four_requests_are_on_the_way_at_once(server, pictures):
    together = threading.Barrier(4, timeout=5)
    server.script = [lambda: together.wait() and None for _ in range(4)]
    expected = [redness(p) for p in pictures]
    np.testing.assert_allclose(load(server, batch_size=1)(pictures), expected, rtol=1e-6)


BUSY = (503, {"error": "loading"})


def test_busy_twice_then_an_answer(server, pictures):
    server.script = [BUSY, (502, b"<html>")]
    scorer = load(server)
    assert scorer(pictures[:1]) == pytest.approx(redness(pictures[0]))
    assert len(server.asked) == 3


def test_it_waits_as_long_as_the_server_asks(server, pictures):
    server.script = [(429, b"", {"Retry-After": "1"})]
    scorer, start = load(server), time.monotonic()
    scorer(pictures[:1])
    assert 1 <= time.monotonic() - start < 5


def test_waits_double(server, pictures, monkeypatch):
    waits = []
    monkeypatch.setattr(remote_client.Stop, "wait", lambda self, seconds: waits.append(seconds))
    monkeypatch.setattr(remote_client, "BACKOFF", 0.5)
    server.script = [BUSY] * 3 + [(503, b"", {"Retry-After": "3600"}), BUSY]
    load(server)(pictures[:1])
    assert waits == [0.5, 1, 2, 60, 8]


def test_busy_for_ever(server, pictures):
    server.script = [BUSY] * 9
    message = refused(load(server, retries=2), pictures[:1], kind=scorers.WeightsError)
    assert f"{server.url} does not answer (status 503 (loading); tried 3 times)" in message
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 500])
def test_what_no_other_try_would_change_is_not_tried_again(server, pictures, status):
    server.script = [(status, {"error": "so\x1b[2J it is\nreally"})]
    message = refused(load(server), pictures[:1])
    assert message.endswith(f"refuses: status {status} (so?[2J it is)")
    assert len(server.asked) == 1


@pytest.fixture
def closed_port():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_server_that_is_down(closed_port, monkeypatch):
    monkeypatch.setattr(remote_client, "BACKOFF", 0.002)
    url = f"http://127.0.0.1:{closed_port}"
    message = refused(lambda: scorers.load(f"remote:url={url}"), kind=scorers.WeightsError)
    assert message.startswith(f"remote: {url} does not answer (ConnectionRefusedError")
    assert "see that the server runs" in message


def test_a_server_that_is_slow(server, pictures):
    gone = threading.Event()
    server.script = [lambda: gone.wait(10) and None]
    scorer = load(server, timeout=0.1, retries=0)
    start = time.monotonic()
    message = refused(scorer, pictures[:1], kind=scorers.WeightsError)
    gone.set()
    assert "timed out" in message and time.monotonic() - start < 5


def test_an_interruption_does_not_wait_for_answers(server, pictures):
    """The first request fails; the others, which the server holds, are not waited for."""
    gone = threading.Event()
    server.script = [lambda: (time.sleep(0.1), (422, {"error": "no"}))[1]]
    server.script += [lambda: gone.wait(10) and None] * 3
    scorer, start = load(server, batch_size=1), time.monotonic()
    refused(scorer, pictures[:4])
    assert time.monotonic() - start < 5
    gone.set()
    assert scorer(pictures[:1]) == pytest.approx(redness(pictures[0]))  # and it works again


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            {"scores": [1, 2], "fingerprint": "redness v1"},
            "than of samples, 2 for 1",
        ),
        ({"scores": [1], "fingerprint": "redness v2"}, "now redness v2, before redness v1"),
        (b'{"scores": [NaN], "fingerprint": "redness v1"}', "no JSON"),
        (b'{"scores": [1e999], "fingerprint": "redness v1"}', "scores must be"),
        ({"scores": [1e39], "fingerprint": "redness v1"}, "scores must be"),
        ({"scores": ["1"], "fingerprint": "redness v1"}, "scores must be"),
        ({"scores": [True], "fingerprint": "redness v1"}, "scores must be"),
        ({"scores": [1]}, "fingerprint is missing"),
        ({"scores": [1], "fingerprint": "redness v1", "x": 1}, "unknown field 'x'"),
        ([1], "no JSON object"),
        (b"[" * 10_000, "no JSON"),
        (b" " * 10**6, "more than 65600 bytes"),
        (b"\x80\x04K\x01.", "no JSON"),  # a pickle
    ],
)
def test_answers_that_are_none(server, pictures, answer, told):
    server.script = [(200, answer)]
    message = refused(load(server), pictures[:1])
    assert told in message and server.url in message
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"protocol": 2}, "protocol must be enum: [1]"),
        ({"name": "Red"}, "name must be"),
        ({"fingerprint": "a\nb"}, "fingerprint must be"),
        ({"medium": "video"}, "medium must be"),
        ({"needs_prompts": 1}, "needs_prompts must be type: boolean"),
        ({"max_samples": 0}, "max_samples must be"),
        ({"instead": (200, {"hello": 1})}, "unknown field 'hello'"),
        ({"instead": (404, b"")}, "refuses: status 404"),
    ],
)
def test_servers_that_are_none(server, facts, told):
    server.facts |= facts
    assert told in refused(lambda: load(server))


def test_redirects_are_not_followed(server, pictures, monkeypatch):
    monkeypatch.setenv("RIC_SCORER_TOKEN", "secret")
    elsewhere = "http://elsewhere.example/"
    server.script = [(307, b"", {"Location": elsewhere})]
    message = refused(load(server), pictures[:1])
    assert f"redirects to {elsewhere}, which is not followed" in message
    assert len(server.asked) == 1


def test_the_token_goes_into_the_header_and_nowhere_else(server, pictures, monkeypatch, caplog):
    monkeypatch.setenv("RIC_SCORER_TOKEN_HPS", "s3cret")
    scorer = load(server, token_variable="RIC_SCORER_TOKEN_HPS")
    scorer(pictures[:1])
    assert server.tokens == ["Bearer s3cret"] * 2
    server.script = [(401, {"error": "wrong"}), BUSY]
    said = [refused(scorer, pictures[:1]), json.dumps(scorer.options), scorer.fingerprint]
    said += [caplog.text, repr(server.asked)]
    assert not any("s3cret" in text for text in said)
    assert "RIC_SCORER_TOKEN_HPS is not the server's" in said[0]
    load(server)
    assert server.tokens[-1] is None  # of this scorer there is no token


@pytest.mark.parametrize("variable", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RIC_SCORER_TOKENS", 1])
def test_other_secrets_are_not_sent(server, variable, monkeypatch):
    monkeypatch.setenv(str(variable), "s3cret")
    message = refused(lambda: load(server, token_variable=variable))
    assert "is not allowed" in message and server.tokens == []


def test_a_token_that_would_be_a_header_of_its_own(server, monkeypatch):
    monkeypatch.setenv("RIC_SCORER_TOKEN", "a\r\nX-Evil: 1")
    message = refused(lambda: load(server))
    assert "RIC_SCORER_TOKEN is no token" in message and "Evil" not in message


@pytest.mark.parametrize(("url", "warned"), [("http://gpu", 1), ("https://gpu", 0)])
def test_a_token_without_encryption_is_told_of(url, warned, monkeypatch, caplog):
    monkeypatch.setenv("RIC_SCORER_TOKEN", "secret")
    with caplog.at_level(logging.WARNING, "scorers"):
        options = {"token_variable": "RIC_SCORER_TOKEN", "timeout": 1, "retries": 0}
        remote_client.Client(url, where="remote", **options)
    assert caplog.text.count("unencrypted") == warned


@pytest.mark.parametrize(
    "url",
    ["gpu:8000", "ftp://gpu", "http://", "file:///etc/passwd", "http://gpu:x", "http://g u", 8000],
)
def test_addresses_that_are_none(url):
    assert "is no address; write http://host:port" in refused(
        lambda: scorers.load("remote", url=url)
    )


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@gpu", "http://gpu/?token=s3cret", "http://gpu#s3cret"]
)
def test_addresses_with_secrets_are_not_stored(url):
    message = refused(lambda: scorers.load("remote", url=url))
    assert "RIC_SCORER_TOKEN" in message and "s3cret" not in message


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"retries": -1}, {"timeout": 0}, {"timeout": "1"}]
)
def test_bad_options(server, options):
    assert "is not allowed" in refused(lambda: load(server, **options))


def test_requests_keep_within_what_the_server_takes(server, pictures):
    server.facts |= {"max_samples": 3, "max_pixels": 2500, "max_bytes": 10_000}
    scorer = load(server, batch_size=1000)
    np.testing.assert_allclose(scorer(pictures), [redness(p) for p in pictures], rtol=1e-6)
    sizes = [len(json.dumps(asked)) for asked in server.asked]
    assert max(sizes) <= 10_000 and max(len(asked["samples"]) for asked in server.asked) == 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[1, 1, 1, 9, 1]]),
        ({"max_pixels": 3}, [[1, 1, 1], [9], [1]]),
        ({"max_bytes": 1024 + 2 * (8 + 8 + 4)}, [[1, 1], [1, 9], [1]]),
    ],
)
def test_cut(limits, expected):
    parts = [Part(sample="x" * 8, prompt=None, pixels=n) for n in (1, 1, 1, 9, 1)]
    found = cut(parts, Description(**FACTS, **limits))
    assert [[part.pixels for part in some] for some in found] == expected


def test_a_stand_in_has_its_name(closed_port):
    stored = {"url": f"http://127.0.0.1:{closed_port}", "called": "hpsv3"}
    assert scorers.stand_in("remote", **stored).name == "hpsv3"


@pytest.mark.parametrize(
    ("url", "hosts", "asked"),
    [
        ("http://127.0.0.1:1", "", True),
        ("http://[::1]:1", "", True),
        ("http://localhost", "", True),
        ("http://localhost.example", "", False),
        ("http://127.0.0.1.example", "", False),
        ("https://GPU", "other, gpu", True),
        ("https://gpu", "gpu2", False),
    ],
)
def test_only_servers_that_the_user_names_are_asked_for_a_file(url, hosts, asked, monkeypatch):
    monkeypatch.setenv("RIC_SCORER_HOSTS", hosts)
    for spec, options in (("remote", {"url": url}), (f"remote:url={url}", {})):
        if asked:
            scorers.check_consent(spec, options, where="hpsv3")
            continue
        with pytest.raises(scorers.WeightsError, match=r"^hpsv3: .*export RIC_SCORER_HOSTS="):
            scorers.check_consent(spec, options, where="hpsv3")
    scorers.check_consent("colorfulness", {}, where="colorfulness")
