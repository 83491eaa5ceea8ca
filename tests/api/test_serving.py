"""`serve_scorers` and the scorer `remote`, over a real connection."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scorers
from ric_diffusion.api import InputError, label, serve_scorers
from ric_diffusion.api.http.guard import Refused
from ric_diffusion.api.scorer_app import Pixels, build_app
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.rewards import RewardSpace
from scorers import remote_schema

uvicorn = pytest.importorskip("uvicorn")
jsonschema = pytest.importorskip("jsonschema")
TOKEN = "correct-horse"


class Picky(scorers.BaseScorer):
    """Reads prompts, has no number for one of them, and fails for others."""

    name, unit, options = "picky", "letters", {}
    needs_prompts = True
    compares_within = "prompt"
    fingerprint = "picky v1"

    def _score(self, images, prompts):
        if "fail" in prompts:
            raise RuntimeError("a secret of the server")
        return [{"nan": np.nan, "inf": np.inf}.get(p, float(len(p))) for p in prompts]


@contextlib.contextmanager
def serving(app):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def url(shared):
    """Three scorers behind a token, and small limits."""
    using = [scorers.load("colorfulness"), scorers.load("brevity"), Picky()]
    app = build_app(
        using, token=TOKEN, roots=[shared], max_samples=8, max_bytes=60_000, max_pixels=10_000
    )
    with serving(app) as url:
        yield url


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("RIC_SCORER_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(20 + 3 * i, 50 - 2 * i, 3) for i in range(11)]
    return [Image.fromarray(rng.integers(0, 256, size, np.uint8)) for size in sizes]


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def post(url, message, token=TOKEN, **headers):
    """Status and JSON of a request that `remote` would not make."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    given = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def valid(name, message):
    schema = {"$ref": f"#/$defs/{name}", "$defs": remote_schema.json_schema()["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(message)


def test_the_same_scores_and_fingerprint_as_in_this_process(url, token, pictures):
    here = scorers.load("colorfulness")
    there = scorers.load("remote", url=f"{url}/scorers/colorfulness")
    np.testing.assert_array_equal(there(pictures), here(pictures))
    assert (there.name, there.unit, there.fingerprint) == (here.name, here.unit, here.fingerprint)


def test_a_shared_folder_gives_the_same(url, token, pictures, shared):
    there = scorers.load("remote", url=f"{url}/scorers/colorfulness", folder=str(shared))
    np.testing.assert_array_equal(there(pictures), scorers.load("colorfulness")(pictures))


def test_texts_and_prompts(url, token, pictures):
    texts = ["one two", "three", 'four "five"\nsix']
    there = scorers.load("remote", url=f"{url}/scorers/brevity")
    np.testing.assert_array_equal(there(texts), scorers.load("brevity")(texts))
    picky = scorers.load("remote", url=f"{url}/scorers/picky")
    assert (picky.needs_prompts, picky.compares_within) == (True, "prompt")
    scores = picky(pictures[:4], ["a", "nan", "ccc", "inf"])
    np.testing.assert_array_equal(scores, np.array([1, np.nan, 3, np.nan], np.float32))


@pytest.mark.attack
def test_without_the_token_nothing_is_told(url, monkeypatch):
    for given in ("", "wrong", TOKEN + "x"):
        monkeypatch.setenv("RIC_SCORER_TOKEN", given)
        with pytest.raises(scorers.ScorerError, match="wants a token, and RIC_SCORER_TOKEN is not"):
            scorers.load("remote", url=f"{url}/scorers/picky")
        status, problem = post(f"{url}/scorers/picky", b"", token=given)
        assert (status, problem) == (401, {"error": "wrong or no token"})
    with urllib.request.urlopen(f"{url}/health") as answer:
        assert json.load(answer) == {"status": "ok"}


def test_messages_are_those_of_the_schema(url, token, pictures):
    head = {"Authorization": f"Bearer {TOKEN}"}
    for path, name in (("scorers/picky", "Description"), ("scorers/brevity", "Description")):
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{path}", headers=head)) as got:
            valid(name, json.load(got))
    with urllib.request.urlopen(urllib.request.Request(f"{url}/schema", headers=head)) as got:
        assert json.load(got) == remote_schema.json_schema()
    asked = {"samples": [png(pictures[0])], "encoding": "base64", "prompts": ["nan"]}
    valid("Request", asked)
    status, answer = post(f"{url}/scorers/picky", asked)
    assert status == 200 and answer == {"scores": [None], "fingerprint": "picky v1"}
    valid("Answer", answer)


@pytest.mark.attack
def test_a_failure_is_told_without_its_cause(pictures):
    with serving(build_app([Picky()])) as url:
        picky = scorers.load("remote", url=url)
        told = r"status 500 \(the scorer failed \(RuntimeErr"
        with pytest.raises(scorers.ScorerError, match=told) as caught:
            picky(pictures[:2], ["fail", "fail"])
    assert "secret" not in str(caught.value)


def test_a_sample_that_a_scorer_fails_on_has_no_score(pictures):
    """As where the scorer is here: it costs that sample alone, once the scorer has worked."""
    with serving(build_app([Picky()])) as url:
        picky = scorers.load("remote", url=url)
        scores = picky([pictures[0]] * 3, ["ab", "fail", "c"])
        np.testing.assert_array_equal(scores, [2, np.nan, 1])
        np.testing.assert_array_equal(picky(pictures[:1], ["fail"]), [np.nan])


def bomb(width, height):
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def postscript():
    return base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n").decode()


SMALL = png(Image.new("RGB", (4, 4)))


@pytest.mark.attack
@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"samples": ["é"]}, 422, "samples[0]: no base64"),
        ({"samples": ["AAAA"]}, 422, "samples[0]: not a picture of a known format"),
        ({"samples": [SMALL, postscript()]}, 422, "samples[1]: not a picture of a known format"),
        ({"samples": [bomb(101, 100)]}, 422, "samples[0]: too large (101x100"),
        ({"samples": [bomb(9_000, 9_000)]}, 422, "samples[0]: too large"),
        ({"samples": [bomb(80, 80)] * 2}, 422, "samples[1]: too large"),  # together
        ({"samples": [SMALL[:40]]}, 422, "samples[0]: "),
        ({"samples": [SMALL] * 9}, 413, "9 samples, at most 8"),
        ({"samples": []}, 422, "no request: samples must be"),
        ({"prompts": ["a", "b"]}, 422, "2 prompts for 1 sample"),
        ({"encoding": "text"}, 422, "colorfulness scores images, not"),
        ({"encoding": "pickle"}, 422, "no request: encoding must be"),
        ({"resize": 512}, 422, "no request: unknown field 'resize'"),
    ],
)
def test_requests_that_are_refused(url, change, status, told):
    asked = {"samples": [SMALL], "encoding": "base64", **change}
    found, problem = post(f"{url}/scorers/colorfulness", asked)
    assert found == status and told in problem["error"]
    valid("Problem", problem)


@pytest.mark.attack
def test_bodies_that_are_refused(url):
    picky = f"{url}/scorers/picky"
    assert post(picky, b"\x80\x04K\x01.")[0] == 422  # a pickle
    assert post(picky, b"{}", **{"Content-Type": "text/plain"})[0] == 415
    assert post(f"{url}/scorers/nothing", b"{}") == (404, {"error": "Not Found"})
    assert post(url, b"{}")[0] == 404  # of several scorers none is at the top
    assert post(picky, b" " * 60_001) == (413, {"error": "the request has more than 60000 bytes"})


@pytest.mark.attack
def test_a_body_that_does_not_say_how_long_it_is(url):
    """In chunks, it is read to the limit and no further."""
    address = url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
        head = f"POST /scorers/picky HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(8):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert b" 413 " in connection.recv(100)


@pytest.fixture
def files(shared, tmp_path):
    inside, outside = shared / "in.png", tmp_path / "out.png"
    for path in (inside, outside):
        Image.new("RGB", (4, 4), "red").save(path)
    link = shared / "link.png"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    beside = Path(f"{shared}-beside")
    beside.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(beside / "b.png")
    return {
        "inside": inside,
        "outside": outside,
        "missing": tmp_path / "missing.png",
        "link": link,
        "dots": f"{shared}/../{tmp_path.name}/out.png",
        "beside": beside / "b.png",
        "relative": "in.png",
        "zero": f"{inside}\0",
    }


@pytest.mark.attack
@pytest.mark.parametrize(
    "which", ["outside", "missing", "link", "dots", "beside", "relative", "zero"]
)
def test_paths_that_lead_out_are_refused_alike(url, files, which):
    asked = {"samples": [str(files["inside"]), str(files[which])], "encoding": "path"}
    status, problem = post(f"{url}/scorers/colorfulness", asked)
    told = "a path leads out of the folders that this server reads"
    assert (status, problem) == (403, {"error": told})


@pytest.mark.attack
def test_what_is_no_picture_below_a_root(url, shared):
    os.mkfifo(shared / "pipe.png")
    for path, told in ((shared, "not a file"), (shared / "pipe.png", "not a file")):
        asked = {"samples": [str(path)], "encoding": "path"}
        assert post(f"{url}/scorers/colorfulness", asked) == (
            422,
            {"error": f"samples[0]: {told}"},
        )
    (shared / "pipe.png").unlink()


@pytest.mark.attack
def test_without_a_root_no_file_is_read(pictures, tmp_path):
    with serving(build_app([scorers.load("brightness")])) as url:
        scorer = scorers.load("remote", url=url)  # the only one, so at the top as well
        assert scorer(pictures) == pytest.approx(scorers.load("brightness")(pictures))
        pictures[0].save(tmp_path / "a.png")
        asked = {"samples": [str(tmp_path / "a.png")], "encoding": "path"}
        assert post(url, asked)[0] == 403


def test_a_scorer_that_changed_is_refused(pictures):
    changing = Picky()
    with serving(build_app([changing])) as url:
        scorer = scorers.load("remote", url=url)
        scorer(pictures[:1], ["a"])
        changing.fingerprint = "picky v2"
        with pytest.raises(scorers.ScorerError, match="now picky v2, before picky v1"):
            scorer(pictures[:1], ["a"])


def test_a_scorer_that_cannot_be_described():
    strange = Picky()
    strange.fingerprint = "two\nlines"
    with pytest.raises(scorers.ScorerError, match="picky: cannot be served: its fingerprint must"):
        build_app([strange])


def test_what_cannot_be_served(monkeypatch, tmp_path):
    monkeypatch.delenv("RIC_SCORER_TOKEN", raising=False)
    for options, told in (
        ({"host": "0.0.0.0"}, r"host 0\.0\.0\.0: .* without a token; export RIC_SCORER_TOKEN"),
        ({"root": [tmp_path / "no"]}, "no such folder"),
        ({"host": "no.such.host.example", "without_token": True}, "port 0: cannot be listened on"),
    ):
        with pytest.raises(InputError, match=told):
            serve_scorers(["colorfulness"], port=0, **options)
    with pytest.raises(InputError, match="colorfulness is given twice"):
        serve_scorers(["colorfulness"] * 2, port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}: cannot be listened on"):
            serve_scorers(["colorfulness"], port=port)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    return folder


def test_labelling_by_a_server_gives_the_reward_space_of_labelling_here(
    url, token, photos, tmp_path
):
    here = label(photos, tmp_path / "here", ["colorfulness"]).space
    spec = f"remote:url={url}/scorers/colorfulness"
    there = label(photos, tmp_path / "there", [spec]).space
    [one], [other] = here.rewards, there.rewards
    for name in ("name", "unit", "mean", "std", "quantiles", "fingerprint"):
        assert getattr(one, name) == getattr(other, name)
    assert other.scorer["name"] == "remote" and TOKEN not in json.dumps(other.scorer)
    [again] = load_scorers(RewardSpace.load(tmp_path / "there" / "reward_space.json"))
    assert again.fingerprint == one.fingerprint


def test_a_space_names_no_server_that_the_user_does_not(photos, tmp_path, caplog):
    space = label(photos, tmp_path / "here", ["colorfulness"]).space
    data = json.loads(json.dumps(space.to_dict()))
    data["rewards"][0]["scorer"] = {
        "name": "remote",
        "options": {"url": "http://evil.example", "called": "colorfulness"},
    }
    theirs = RewardSpace.from_dict(data)
    with pytest.raises(scorers.WeightsError, match="export RIC_SCORER_HOSTS=evil"):
        load_scorers(theirs)
    [stand_in] = load_scorers(theirs, required=False)
    assert stand_in.name == "colorfulness" and "sliders work" in caplog.text


SLOW = """
import time
import scorers
from ric_diffusion.api import serve_scorers

class Slow(scorers.BaseScorer):
    name, unit, options, fingerprint = "slow", "s", {}, "slow v1"

    def _score(self, images, prompts):
        time.sleep(60)

serve_scorers([Slow()], port=0, started=lambda line: print(line, flush=True))
"""


@contextlib.contextmanager
def running(*command):
    environment = {**os.environ, "RIC_SCORER_TOKEN": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Whoever runs the tests in the background has Ctrl-C ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen([sys.executable, *command], env=environment, **pipes)
    signal.signal(signal.SIGINT, before)
    with started as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_serves_until_it_is_interrupted(pictures):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "ric_diffusion", "serve-scorer", "colorfulness", "--port", str(port)]
    with running(*command) as process:
        assert process.stdout.readline() == f"http://127.0.0.1:{port} serves colorfulness\n"
        scorer = scorers.load(f"remote:url=http://127.0.0.1:{port}")
        expected = scorers.load("colorfulness")(pictures)
        np.testing.assert_array_equal(scorer(pictures), expected)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "ric serve-scorer: interrupted\n")


def test_an_interruption_does_not_wait_for_scores(pictures):
    with running("-c", SLOW) as process:
        url = process.stdout.readline().split()[0]
        scorer = scorers.load("remote", url=url, retries=0)
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(scorer, pictures)
            time.sleep(0.5)  # the request is there, and a minute's scoring begun
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT and err.endswith("KeyboardInterrupt\n")
    assert "status 503 (the server ends)" in str(asked.exception())


def test_the_server_of_the_documentation(pictures):
    """Twenty lines that import nothing of ours."""
    page = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text("utf-8")
    [source] = [b.partition("```")[0] for b in page.split("```python\n") if "HTTPServer" in b]
    lines = source.strip().splitlines()
    assert len([line for line in lines if line]) <= 24 and "ric" not in source.lower()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = source.replace("8001", str(port))
    with running("-c", source):
        scorer = scorers.load("remote", url=f"http://127.0.0.1:{port}", called="red")
        expected = [np.asarray(p, dtype=float)[..., 0].mean() for p in pictures]
        np.testing.assert_allclose(scorer(pictures), expected, rtol=1e-5)
        assert scorer.name == "red"


@pytest.mark.attack
def test_pixels_of_all_requests_together_are_bounded():
    pixels, picture = Pixels(150), Image.new("RGB", (10, 10))
    pixels.take(picture)
    with pytest.raises(Refused, match="too much is being scored"):
        pixels.take(picture)
    pixels.give([picture, picture, "a text"])
    pixels.take(picture)
