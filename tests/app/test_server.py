"""The server: to this machine alone, whatever it is sent, and to many at once."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app_in_browser import free_port
from ric_diffusion.api.http import connections, guard
from ric_diffusion.api.picture_settings import read_metadata
from ric_diffusion.api.work import WorkQueue
from ric_diffusion.app import server
from ric_diffusion.app.jobs import Job
from ric_diffusion.app.presets import Presets
from ric_diffusion.app.server import check_port, launch
from ric_diffusion.app.settings import SAMPLING, Form
from ric_diffusion.io.errors import InputError

pytest.importorskip("gradio")

EVIL = "<script>alert(1)</script>"
POSITIONS = [50, 50, 0.0, 0.0, True, True]
FAR = [50, 50, 0.0, 99, True, False]
CONTROLS = [
    "prompt", "negative_prompt", "seed", "count", "refine", "mode",
    *(f"{of} {n}" for of in ("weight", "value", "auto") for n in range(2)),
    "mapping", *SAMPLING,
]  # fmt: skip


class Client:
    """What a browser does over HTTP, and what it would not do."""

    def __init__(self, port: int, form: Form | None = None) -> None:
        self.port, self.form = port, form

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

    def row(self, **asked):
        """What all controls stand on, by their names in ``Form``'s row."""
        own = self.form.row(self.form.initial("red apple"))
        row = dict(zip(CONTROLS, [*own[:6], *POSITIONS, *own[12:]], strict=True))
        positions = asked.pop("positions", None)
        assert set(asked) <= set(row)
        row |= asked
        if positions is not None:
            return [*list(row.values())[:6], *positions, *list(row.values())[12:]]
        return list(row.values())

    def draw(self, prompt="red apple", **asked):
        return self.call("draw", self.row(prompt=prompt, **asked))

    def sweep(self, along, across, points, prompt="red apple", **asked):
        return self.call("sweep", [along, across, points, *self.row(prompt=prompt, **asked)])

    def file(self, shown):
        """What a shown file holds."""
        path = shown["value"]["path"] if "value" in shown else shown["path"]
        status, body = self.ask("GET", f"/gradio_api/file={path}")
        assert status == 200, body
        return body

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
        return self.call("transform", [dropped, 0.5, *self.row()])

    def drop(self, data):
        """A picture of ours to be drawn again."""
        path = self.upload("a.png", data)
        return self.call("drop", [{"path": path, "meta": {"_type": "gradio.FileData"}}])

    def alive(self):
        return self.draw() is not None


def pixels(data):
    with Image.open(BytesIO(data)) as image:
        return image.size, image.tobytes()


@pytest.fixture(scope="module")
def served(engine, tmp_path_factory):
    """A client, and the folder that the server may write to."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        port = free_port()
        thread = WorkQueue()
        presets = Presets(folder.parent / "presets.json")
        app = launch(engine, None, port, folder, thread, presets)
        worker = threading.Thread(target=thread.serve)
        worker.start()
        yield Client(port, Form(engine)), folder, thread
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
    fed, response, scores, line = client.draw(seed=4)
    assert (fed["kind"], fed["alt"], fed["id"]) == ("sample", "red apple, seed 4", 1)
    assert response == {"__type__": "update"} and "error" not in line
    assert re.search('data-reward="colorfulness".*data-z="[-0-9.]+"', scores)
    status, body = client.ask("GET", "/" + fed["src"])
    assert status == 200 and body.startswith(b"\x89PNG")


def test_several_are_drawn_one_after_the_other(client):
    fed, _, _, line = client.draw(seed=4, count=3)
    assert (fed["alt"], fed["id"]) == ("red apple, seed 6", 3) and "error" not in line


def test_refine(client):
    """The tiny model knows nothing of its targets, and the line says how near it came."""
    asked = {"refine": True, "mode": "targets", "positions": [50, 50, 1.0, 0, False, True]}
    fed, _, scores, line = client.draw(seed=4, **asked)
    assert fed["alt"].endswith("seed 4") and "+1.00 z" in scores
    assert re.search("On target after|The nearest after [0-3] more pass", line)
    _, _, _, line = client.draw(seed=4, **asked | {"positions": [50, 50, 0, 0, True, True]})
    assert "refine: nothing is asked for" in line


def test_a_dropped_picture_is_drawn_again(client):
    """With the controls where they stood; one of another model says so, and so does no picture."""
    asked = {"seed": 5, "prompt": "pizza", "steps": 2, "positions": [20, 80, 0, 0, True, True]}
    fed, *_ = client.draw(**asked)
    _, data = client.ask("GET", "/" + fed["src"])
    *row, again, _, _, line = client.drop(data)
    assert row == client.row(**asked) and "another picture" not in line
    _, same = client.ask("GET", "/" + again["src"])
    assert pixels(same) == pixels(data)
    with Image.open(BytesIO(data)) as one:
        about = json.loads(one.text["ric_diffusion"])
        about["settings"]["model"]["adapter_digest"] = "0" * 64
        one.text["ric_diffusion"] = json.dumps(about)
        info, file = PngInfo(), BytesIO()
        info.add_text("ric_diffusion", one.text["ric_diffusion"])
        one.save(file, "PNG", pnginfo=info)
    assert "so this is another picture" in client.drop(file.getvalue())[-1]
    assert "says nothing of how it was made" in client.drop(png(64, 64))[-1]
    assert client.alive()


def test_nothing_is_reported(client):
    config = json.loads(client.ask("GET", "/config")[1])
    assert config["analytics_enabled"] is False and config["run_history"] is False


@pytest.mark.attack
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
        ("seed 1e+30: give a whole number", {"seed": 1e30}),
        ("seed must be a number", {"seed": None}),
        ("count 65: give a whole number from 1 to 64", {"count": 65}),
        ("steps 0: give a whole number from 1 to 200", {"steps": 0}),
        ("colorfulness 99: its slider ends at", {"mode": "targets", "positions": FAR}),
    ],
)
def test_wrong_requests_get_one_line(client, said, asked):
    fed, _, _, line = client.draw(**asked)
    assert said in line and 'role="alert"' in line
    assert "src" not in json.dumps(fed)
    assert client.alive()


@pytest.mark.attack
@pytest.mark.parametrize(
    "asked",
    [
        {"mode": EVIL},
        {"mapping": "best"},
        {"mode": "targets", "positions": [50, 50, EVIL, 0, False, False]},
        {"positions": [-1, 50, 0, 0, True, True]},
        {"positions": [50, 1e9, 0, 0, True, True]},
        {"positions": [50]},
    ],
)
def test_what_no_slider_can_say_is_refused(client, asked):
    answer = client.draw(**asked)
    assert answer is None or 'role="alert"' in answer[-1]
    assert EVIL not in json.dumps(answer)
    assert client.alive()


@pytest.mark.attack
def test_a_prompt_is_only_text(client):
    fed, _, scores, line = client.draw(EVIL)
    assert fed["src"] and EVIL not in scores + line


def test_sweeps(client):
    sheet, png, plain, pictures, line = client.sweep("colorfulness", "nothing", 2, EVIL)
    assert Path(sheet["value"]["path"]).name == "grid.png" and "error" not in line
    for file, start in ((png, b"\x89PNG"), (plain, b"{"), (pictures, b"PK")):
        assert client.file(file).startswith(start)
    wrong = client.sweep("all, by preference", "nothing", 99)
    assert "points 99: give a whole number from 2 to 15" in wrong[-1]
    assert client.sweep(EVIL, "nothing", 3) is None


def test_a_sweep_begins_where_the_sliders_stand(client):
    asked = {"mode": "targets", "positions": [50, 50, 0.5, 0.0, False, True]}
    _, _, plain, _, _ = client.sweep("colorfulness", "nothing", 2, **asked)
    targets = [point["targets"] for point in json.loads(client.file(plain))["points"]]
    assert [z["compressibility"] for z in targets] == [0.5, 0.5]
    assert targets[0]["colorfulness"] < targets[1]["colorfulness"]


@pytest.mark.parametrize(
    ("along", "asked"),
    [
        ("colorfulness", {"mode": "targets", "negative_prompt": "pizza"}),
        ("all, by preference", {"mode": "preference", "mapping": "linear"}),
    ],
)
def test_a_picture_of_a_sweep_is_restored_when_it_is_dropped(client, along, asked):
    """To the bit, with all controls as they would have to stand for it."""
    *_, plain, pictures, _ = client.sweep(along, "nothing", 2, "cat", **asked)
    points = json.loads(client.file(plain))["points"]
    archive = ZipFile(BytesIO(client.file(pictures)))
    names = [point["file"] for point in points]
    assert archive.namelist() == sorted([*names, "grid.png", "sweep.json"])
    for point in points[-2:]:
        data = archive.read(point["file"])
        *controls, fed, _, _, line = client.drop(data)
        assert "error" not in line and "another picture" not in line
        row = dict(zip(CONTROLS, controls, strict=True))
        assert row["prompt"] == "cat" and row["negative_prompt"] == asked.get("negative_prompt", "")
        again = client.ask("GET", "/" + fed["src"])[1]
        assert pixels(again) == pixels(data)
        assert read_metadata(again).settings == read_metadata(data).settings


@pytest.mark.attack
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


@pytest.mark.attack
@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "https://example.com/"])
def test_nothing_is_passed_on_from_other_machines(client, address):
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy="):
        assert client.ask("GET", route + address) == (403, b'{"error": "not served here"}'), route
    assert client.alive()


@pytest.mark.attack
@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),  # a port that is forwarded
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_others_are_refused(client, headers, status):
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=300)
    connection.request("GET", "/config", headers=headers)
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.attack
def test_uploads_are_bounded_together(client, monkeypatch):
    monkeypatch.setattr(server, "QUOTA", server._size(Path(os.environ["GRADIO_TEMP_DIR"])) + 5000)
    client.upload("a.png", bytes(2000))
    with pytest.raises(AssertionError, match="start the app anew"):
        client.upload("b.png", bytes(4000))
    assert client.alive()  # what is no upload is answered


@pytest.mark.attack
def test_requests_are_bounded_in_size_time_and_number(client, monkeypatch):
    status, body = client.ask("POST", "/gradio_api/call/draw", bytes(server.MAX_BYTES + 1))
    assert status == 413 and b"more than" in body
    monkeypatch.setattr(guard, "GRACE", 0.2)
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.putrequest("POST", "/gradio_api/call/draw")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    assert connection.getresponse().status == 408
    connection.close()
    monkeypatch.setattr(connections, "HEAD", 0.2)
    with socket.create_connection(("127.0.0.1", client.port), timeout=60) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert waiting.recv(1) == b""  # closed, without an answer
    monkeypatch.setattr(guard.Rates, "allow", lambda rates, address: False)
    assert client.ask("GET", "/config")[0] == 429
    monkeypatch.undo()
    assert client.alive()


@pytest.mark.attack
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
    assert picture["value"]["path"] and "error" not in line
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


@pytest.mark.attack
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
    assert [answer[0]["alt"] for answer in answers] == [f"red apple, seed {i}" for i in range(20)]
    assert len({answer[0]["src"] for answer in answers}) == 20
    assert resident() < 1.1 * before
    assert client.alive()


def test_a_cancelled_sweep_ends_at_its_next_pass(engine, tmp_path):
    from ric_diffusion.app.handlers import Handlers

    thread, session, passes = WorkQueue(), SimpleNamespace(session_hash="a"), []
    presets = Presets(tmp_path / "presets.json")
    handlers = Handlers(engine, None, tmp_path, thread, presets, lambda choice: None)
    row = handlers.form.row(handlers.form.initial("cat"))

    def cancel(*_):
        passes.append(handlers.stop(session))

    hook = engine.sampler.network().register_forward_pre_hook(cancel)
    worker = threading.Thread(target=thread.serve)
    worker.start()
    try:
        *_, (*_, line) = handlers.sweep(session, "colorfulness", "compressibility", 8, *row)
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
    answers, data = [], ["colorfulness", "nothing", 2, *client.row()]
    asking = threading.Thread(
        target=lambda: answers.append(client.call("sweep", data, session_hash="closed"))
    )
    asking.start()
    until(lambda: thread.waiting > 0)
    page.close()
    assert stopped.wait(60)
    busy()
    asking.join()
    assert "Cancelled." in answers[0][-1]
    assert client.alive()


@pytest.mark.parametrize("path, quiet", [("/gradio_api/file=/a.png", True), ("/other", False)])
def test_a_picture_that_is_removed_while_it_is_sent(tmp_path, path, quiet):
    """Its page was closed, and nobody waits for it."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise FileNotFoundError(path)

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    with nullcontext() if quiet else pytest.raises(FileNotFoundError):
        asyncio.run(server.OnlyOurs(app, tmp_path)(scope, None, send))
    assert sent == ["http.response.start"]


@pytest.mark.attack
def test_a_full_queue_is_told(client):
    """Beyond the limit nobody waits in vain."""
    codes = []

    def ask(seed):
        body = json.dumps({"data": client.row(seed=seed)})
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
        own = ["front", 20, 3, None, 1.5, 0.0, 64, 64]
        row = ["cat", "", 0, 1, False, "preference", *POSITIONS, *own]
        sweep = json.dumps({"data": ["colorfulness", "nothing", 15, *row]})
        assert client.ask("POST", "/gradio_api/call/sweep", sweep)[0] == 200
        time.sleep(1)
    app.send_signal(sent)
    _, said = app.communicate(timeout=60)
    assert app.returncode == code and "Traceback" not in said
    assert list(tmp_path.glob("ric-app-*")) == []
