"""The server: to this machine alone, whatever it is sent, and to many at once."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from app_in_browser import free_port
from ric_diffusion.app.jobs import Job, ModelThread
from ric_diffusion.app.server import check_port, launch
from ric_diffusion.io.errors import InputError

pytest.importorskip("gradio")

EVIL = "<script>alert(1)</script>"
POSITIONS = [50, 50, 0.0, 0.0, True, True]


class Client:
    """What a browser does over HTTP, and what it would not do."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method, path, body=None, kind="application/json"):
        """(status, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, name, data, **about):
        """The outputs of a handler, or None where Gradio refused the inputs."""
        body = json.dumps({"data": data} | about)
        status, body = self.ask("POST", f"/gradio_api/call/{name}", body)
        if status != 200:
            return None
        event = json.loads(body)["event_id"]
        _, body = self.ask("GET", f"/gradio_api/call/{name}/{event}")
        *_, kind, said = [line for line in body.decode().splitlines() if line]
        return json.loads(said.removeprefix("data: ")) if kind == "event: complete" else None

    def draw(
        self,
        prompt="red apple",
        seed=0,
        keep=True,
        refine=False,
        mode="preference",
        positions=POSITIONS,
    ):
        return self.call("draw", [prompt, seed, keep, refine, mode, *positions])

    def upload(self, name, data):
        """Where the server put a file."""
        body = (
            f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        ).encode() + data
        kind = "multipart/form-data; boundary=x"
        status, body = self.ask("POST", "/gradio_api/upload", body + b"\r\n--x--\r\n", kind)
        assert status == 200, body
        return json.loads(body)[0]

    def transform(self, path):
        dropped = {"path": path, "meta": {"_type": "gradio.FileData"}}
        return self.call("transform", [dropped, 0.5, "red apple", 0, "preference", *POSITIONS])

    def alive(self):
        return self.draw() is not None


@pytest.fixture(scope="module")
def served(engine, tmp_path_factory):
    """A client, and the folder that the server may write to."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        port = free_port()
        thread = ModelThread()
        app = launch(engine, None, port, folder, thread)
        worker = threading.Thread(target=thread.serve)
        worker.start()
        yield Client(port), folder, thread
        app.close(verbose=False)
        thread.close()
        worker.join()


@pytest.fixture
def client(served):
    return served[0]


@pytest.fixture
def busy(served):
    """The server's model thread, busy until this is called."""
    _, _, thread = served
    over, worker = threading.Event(), threading.Thread(target=lambda: thread.run(over.wait))
    worker.start()

    def end():
        over.set()
        worker.join()

    yield end
    end()


def test_draw(client):
    picture, scores, seed, line = client.draw(seed=4)
    assert picture["path"].endswith("4.png")
    assert seed == {"__type__": "update"}  # stays as it is, whatever was typed meanwhile
    assert "colorfulness" in scores and "error" not in line


def test_a_seed_that_is_not_kept_is_drawn_and_shown(client):
    picture, _, seed, _ = client.draw(seed=4, keep=False)
    assert picture["path"].endswith(f"{seed}.png") and seed != 4


def test_refine(client):
    """The tiny model knows nothing of its targets, and the line says how near it came."""
    asked = {"refine": True, "mode": "targets", "positions": [50, 50, 1.0, 0, False, True]}
    picture, scores, _, line = client.draw(seed=4, **asked)
    assert picture["path"].endswith("4.png") and "+1.00 z" in scores
    assert re.search("On target after|The nearest after [0-3] more pass", line)
    _, _, _, line = client.draw(seed=4, **asked | {"positions": [50, 50, 0, 0, True, True]})
    assert "refine: nothing is asked for" in line


def test_nothing_is_reported(client):
    config = json.loads(client.ask("GET", "/config")[1])
    assert config["analytics_enabled"] is False and config["run_history"] is False


@pytest.mark.parametrize(
    "said, asked",
    [
        ("prompt: empty", {"prompt": ""}),
        ("shorten it to 2000", {"prompt": "x" * 100_000}),
        ("half a character", {"prompt": "\ud800"}),
        ("seed must be finite", {"seed": float("nan")}),
        ("seed 0.5: give a whole number", {"seed": 0.5}),
        ("must be finite", {"mode": "targets", "positions": [50, 50, float("nan"), 0, False, 0]}),
        ("every weight is 0", {"positions": [0, 0, 0, 0, 0, 0]}),
    ],
)
def test_wrong_requests_get_one_line(client, said, asked):
    picture, _, _, line = client.draw(**asked)
    assert said in line and 'role="alert"' in line
    assert "path" not in json.dumps(picture)
    assert client.alive()


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": EVIL},
        {"mode": "targets", "positions": [50, 50, 99, 0, False, False]},
        {"mode": "targets", "positions": [50, 50, EVIL, 0, False, False]},
        {"positions": [-1, 50, 0, 0, True, True]},
        {"positions": [50, 1e9, 0, 0, True, True]},
        {"positions": [50]},
        {"seed": 1e30},
    ],
)
def test_what_no_slider_can_say_is_refused(client, asked):
    answer = client.draw(**asked)
    assert answer is None or 'role="alert"' in answer[-1]
    assert EVIL not in json.dumps(answer)
    assert client.alive()


def test_a_prompt_is_only_text(client):
    picture, scores, _, line = client.draw(EVIL)
    assert picture["path"] and EVIL not in scores + line


def test_sweeps(client):
    sheet, png, plain, line = client.call("sweep", ["colorfulness", "nothing", 2, EVIL, 0])
    assert Path(sheet["path"]).name == "grid.png" and "error" not in line
    for file, start in ((png, b"\x89PNG"), (plain, b"{")):
        path = json.dumps(file["value"]["path"] if "value" in file else file["path"])
        status, body = client.ask("GET", "/gradio_api/file=" + json.loads(path))
        assert status == 200 and body.startswith(start)
    wrong = client.call("sweep", ["all, by preference", "colorfulness", 3, "a", 0])
    assert "one direction" in wrong[-1]
    assert client.call("sweep", [EVIL, "nothing", 3, "a", 0]) is None


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "{folder}/../../../../etc/passwd",
        "{folder}/%2e%2e/secret.txt",
        "{folder}",
        "{code}/pyproject.toml",
        "{code}/ric_diffusion/cli.py",
        "ric_diffusion/cli.py",
        "file:///etc/passwd",
    ],
)
def test_no_other_file_is_served(served, path):
    client, folder, _ = served
    (folder.parent / "secret.txt").write_text("for nobody")
    path = path.format(folder=folder, code=Path(__file__).parents[2])
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy="):
        status, body = client.ask("GET", route + path)
        assert status >= 400 and b"root:" not in body and b"for nobody" not in body, (route, status)
    assert client.alive()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "https://example.com/"])
def test_nothing_is_passed_on_from_other_machines(client, address):
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy="):
        assert client.ask("GET", route + address) == (403, b"not served here"), route
    assert client.alive()


@pytest.mark.parametrize("address", ["http://example.com/pic.png", "https://example.com/pic.png"])
def test_pictures_are_not_fetched_from_other_machines(client, address, monkeypatch):
    from gradio import processing_utils

    asked = []

    async def get(url, **_):
        asked.append(url)
        raise OSError("no network here")

    monkeypatch.setattr(processing_utils.sh, "get", get)
    assert client.transform(address) is None
    assert asked == []
    assert client.alive()


def test_dropped_pictures(client):
    ok = png(64, 64)
    picture, _, line = client.transform(client.upload("a.png", ok))
    assert picture["path"] and "error" not in line
    for name, data, said in (
        ("bomb.png", png(60_000, 60_000, rows=1), "too large"),
        ("large.png", png(9_000, 9_000, rows=1), "too large"),
        ("torn.png", ok[:60], "broken picture"),
        ("text.png", b"no picture", "not a picture of a known format"),
        ("page.svg", b"<svg onload='alert(1)'/>", "SVG is not read here"),
    ):
        _, _, line = client.transform(client.upload(name, data))
        assert said in line and "drop another one" in line, name
    assert client.alive()


@pytest.mark.parametrize("path", ["/etc/passwd", "../pyproject.toml", None])
def test_pictures_that_were_not_dropped(client, path):
    answer = client.transform(path)
    assert answer is None or "drop one first" in answer[-1]
    assert client.alive()


def test_twenty_sessions_at_once(client):
    """All are answered, none takes the others' place, and nothing of them stays."""
    client.draw()
    before, answers = resident(), [None] * 20

    def ask(i):
        answers[i] = client.draw(seed=i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Path(answer[0]["path"]).name for answer in answers] == [f"{i}.png" for i in range(20)]
    assert len({answer[0]["path"] for answer in answers}) == 20
    assert resident() < 1.1 * before
    assert client.alive()


def test_a_cancelled_sweep_ends_at_its_next_pass(engine, tmp_path):
    from ric_diffusion.app.handlers import Handlers

    thread, session, passes = ModelThread(), SimpleNamespace(session_hash="a"), []
    handlers = Handlers(engine, None, tmp_path, thread)

    def cancel(*_):
        passes.append(handlers.stop(session))

    hook = engine.sampler.network().register_forward_pre_hook(cancel)
    worker = threading.Thread(target=thread.serve)
    worker.start()
    try:
        *_, line = handlers.sweep(session, "colorfulness", "compressibility", 8, "cat", 0)
    finally:
        hook.remove()
        thread.close()
        worker.join()
    assert "Cancelled." in line and len(passes) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_closed_page_takes_its_job_along(served, busy, monkeypatch):
    client, _, thread = served
    stopped, stop = threading.Event(), Job.stop

    def note(job):
        stop(job)
        stopped.set()

    monkeypatch.setattr(Job, "stop", note)
    page = http.client.HTTPConnection("127.0.0.1", client.port, timeout=300)
    page.request("GET", "/gradio_api/heartbeat/closed")
    page.getresponse().readline()
    answers, data = [], ["colorfulness", "nothing", 2, "cat", 0]
    asking = threading.Thread(
        target=lambda: answers.append(client.call("sweep", data, session_hash="closed"))
    )
    asking.start()
    until(lambda: thread.asked.qsize() > 0)
    page.close()
    assert stopped.wait(60)
    busy()
    asking.join()
    assert "Cancelled." in answers[0][-1]
    assert client.alive()


def test_a_full_queue_is_told(client):
    """Beyond the limit nobody waits in vain."""
    codes = []

    def ask(seed):
        body = json.dumps({"data": ["red apple", seed, True, False, "preference", *POSITIONS]})
        codes.append(client.ask("POST", "/gradio_api/call/draw", body)[0])

    threads = [threading.Thread(target=ask, args=(100 + i,)) for i in range(80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 32


def test_ports():
    port = free_port()
    check_port(port)
    with pytest.raises(InputError, match="cannot be used, choose another"):
        check_port(99_999)


def png(width, height, rows=None):
    """A grey PNG that says it has this size, with so many rows of it."""
    rows = height if rows is None else rows

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = zlib.compress((b"\0" + b"\x80" * width) * rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\0\0\0\0")
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def until(true):
    """Wait for what another thread brings about."""
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise TimeoutError


def resident():
    """Memory of this process, bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture
def heard():
    """What is started hears Ctrl+C, also where these tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "sent, busy, code", [(signal.SIGINT, False, 130), (signal.SIGTERM, True, 143)]
)
def test_interrupted(tmp_path, heard, sent, busy, code):
    """Ctrl+C ends it and so does kill, also while it draws, and no folder stays; behind a proxy,
    which cannot reach this machine."""
    environment = {name: os.environ[name] for name in os.environ if name.lower() != "no_proxy"}
    environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "ric_diffusion", "app", "--port", str(free_port())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    app = subprocess.Popen(command, env=environment, **pipes)
    address = app.stdout.readline().strip()
    assert len(list(tmp_path.glob("ric-app-*"))) == 1
    if busy:
        client = Client(int(address.rsplit(":", 1)[1]))
        sweep = json.dumps({"data": ["colorfulness", "compressibility", 8, "cat", 0]})
        assert client.ask("POST", "/gradio_api/call/sweep", sweep)[0] == 200
        time.sleep(1)
    app.send_signal(sent)
    _, said = app.communicate(timeout=60)
    assert app.returncode == code and "Traceback" not in said
    assert list(tmp_path.glob("ric-app-*")) == []
