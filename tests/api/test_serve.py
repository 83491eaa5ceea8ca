"""`serve`: a model over a real connection, beside the same verbs in this process."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark_server import KINDS, Server, attack, picture, read
from ric_diffusion import api
from ric_diffusion.api.http import connections
from ric_diffusion.api.http.work import WorkThread
from ric_diffusion.api.picture_settings import read_metadata
from support.numbered import sample_file
from support.pictures import changed
from support.processes import starter

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
TOKEN = "correct-horse"
APPLE = {"prompt": "red apple", "seed": 4, "targets": {"colorfulness": 1.0}}


@contextlib.contextmanager
def serving(app):
    """The app on a connection like that of the command."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The system soon holds no more of what a client does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, http=connections.TimedProtocol, ws="none", lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield Server("127.0.0.1", port, TOKEN)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def thread():
    return WorkThread(most=3)


@pytest.fixture(scope="module")
def model(root, thread):
    """The tiny model with both of its adapters, loaded in the thread that it computes in."""
    from ric_diffusion.api.served_model import ServedModel

    names = [str(root / mode / "adapter") for mode in ("embedding", "text")]
    return thread.submit(lambda: ServedModel(str(root / "model"), names)).result(120)


@pytest.fixture(scope="module")
def server(model, thread):
    from ric_diffusion.api.model_app import build_model_app

    app = build_model_app(model, thread, token=TOKEN, hosts="loopback", max_bytes=200_000)
    with serving(app) as server:
        yield server


@pytest.fixture(scope="module")
def here(root):
    """The same model in this process, by the name of an adapter."""
    return lambda mode: api.load(str(root / "model"), str(root / mode / "adapter"))


def asked(server, path, body=None, status=200, method="POST", **headers):
    """The JSON that is answered, with this status."""
    answer = server.ask(path, body, method, **headers)
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def in_base64(path):
    return base64.b64encode(path.read_bytes()).decode()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def same(image, other):
    return np.array_equal(np.asarray(image), np.asarray(other))


@pytest.mark.parametrize("body", [b'{"prompt": "\xff"}', b"[" * 100_000, b"{"])
def test_a_body_that_is_no_json_is_answered_as_all_that_is_refused(server, body):
    answer = server.ask("/generate", body)
    assert answer.status in (400, 422) and list(json.loads(answer.body)) == ["error"]


def test_pictures_are_those_of_generate(server, here, root):
    answer = asked(server, "/generate", {**APPLE, "count": 2})
    ours = api.generate(here("embedding"), "red apple", seed=4, targets=APPLE["targets"], count=2)
    assert [one["seed"] for one in answer["samples"]] == [4, 5]
    for one, own in zip(answer["samples"], ours, strict=True):
        assert same(opened(one["image"]), own.sample) and one["text"] is None
        assert one["targets"] == own.targets and one["scores"] == own.scores
        assert one["obtained"] == own.obtained and one["refinement"] is None
        assert one["prompt"] == "red apple"
    assert answer["model"] == str(root / "model")


def test_a_picture_alone_holds_what_made_it(server, here):
    answer = server.ask("/generate", APPLE, Accept="image/png, */*;q=0.1")
    [own] = api.generate(here("embedding"), "red apple", seed=4, targets=APPLE["targets"])
    assert same(Image.open(io.BytesIO(answer.body)), own.sample)
    assert asked(server, "/generate", APPLE)["samples"][0]["image"] == (
        base64.b64encode(answer.body).decode()
    )


def test_a_picture_is_the_command_lines_file(server, ric, root, tmp_path):
    """Its metadata, too."""
    model = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    words = ["--prompt", "red apple", "--seed", 4, "--targets", "colorfulness=1"]
    assert ric("generate", *model, *words, "--out", tmp_path).code == 0
    answer = server.ask("/generate", APPLE, Accept="image/png")
    assert answer.body == sample_file(tmp_path, 4).read_bytes()


def test_a_picture_to_begin_with(server, here, root):
    path = root / "pictures" / "3.png"
    request = {**APPLE, "init_image": in_base64(path), "strength": 0.7}
    answer = server.ask("/generate", request, Accept="image/png")
    settings = {"seed": 4, "targets": APPLE["targets"], "init_image": path, "strength": 0.7}
    [own] = api.generate(here("embedding"), "red apple", **settings)
    assert same(Image.open(io.BytesIO(answer.body)), own.sample)
    told, ours = read_metadata(answer.body).settings.init_image, own.settings.init_image
    assert (told.digest, told.strength) == (ours.digest, 0.7)
    again = {"like": base64.b64encode(answer.body).decode()}
    refused = asked(server, "/generate", again, status=422)
    assert "was made from the picture picture; give it as init_image" in refused["error"]
    again["init_image"] = request["init_image"]
    assert server.ask("/generate", again, Accept="image/png").body == answer.body


def test_several_prompts(server, here):
    prompts = {"prompts": ["red apple", "cat"], "count": 2, "seed": 3}
    samples = asked(server, "/generate", prompts)["samples"]
    ours = api.generate(here("embedding"), **prompts)
    assert [(one["prompt"], one["seed"]) for one in samples] == [
        ("red apple", 3), ("red apple", 4), ("cat", 3), ("cat", 4)
    ]  # fmt: skip
    assert all(
        same(opened(one["image"]), own.sample) for one, own in zip(samples, ours, strict=True)
    )


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """A picture of the second adapter's, in a file."""
    [made] = api.generate(
        root / "model",
        "cat",
        adapter=str(root / "text" / "adapter"),
        seed=9,
        preference={"colorfulness": 0.7},
        sampling={"steps": 2, "contrast": 0.5},
        out=tmp_path_factory.mktemp("made"),
    )
    return made.path


def test_a_picture_is_drawn_again_by_the_adapter_that_made_it(server, made, root):
    answer = server.ask("/generate", {"like": in_base64(made)}, Accept="image/png")
    assert answer.body == made.read_bytes()
    other = {"like": in_base64(made), "seed": 10, "prompt": "red apple", "steps": 3}
    [one] = asked(server, "/generate", other)["samples"]
    [own] = api.generate(root / "model", "red apple", like=made, seed=10, sampling={"steps": 3})
    assert same(opened(one["image"]), own.sample) and one["targets"] == own.targets
    named = {"like": in_base64(made), "adapter": str(root / "embedding" / "adapter")}
    answer = asked(server, "/generate", named)
    assert "made with another adapter" in answer["notes"][0]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("like: steps: Input should be less than or equal to 200",
         {"settings__sampling__num_inference_steps": 1000}),
        ("like: width: Input should be less", {"settings__sampling__width": 8192}),
        ("like: prompt: String should have at most 2000", {"settings__prompt": "x" * 2001}),
        ("like: was made with num_images_per_prompt 9, which no request can set",
         {"settings__sampling__num_images_per_prompt": 9}),
        ("like: was made with another model (", {"settings__model__digest": "0" * 64}),
        ("does not have; give one of /adapters", {"settings__model__adapter_digest": "0" * 64}),
        ("like: was made without an adapter", {"settings__model__adapter_digest": None}),
        ("like: was made from the picture secret.png; give it as init_image",
         {"settings__init_image": {"name": "secret.png", "digest": "0" * 64, "strength": 0.5}}),
        ("like: was made with sigmas (1.0, 0.5), which no request can set",
         {"settings__sampling__sigmas": [1.0, 0.5]}),
    ],
)  # fmt: skip
def test_pictures_that_are_not_drawn_again(server, made, tmp_path, said, change):
    other = changed(made, tmp_path / "other.png", **change)
    answer = asked(server, "/generate", {"like": in_base64(other)}, status=422)
    assert said in answer["error"] and "\n" not in answer["error"]


def test_every_setting_is_passed_on(server, here):
    """Each changes the picture, and all together are those of the verb."""
    settings = {
        "preference": {"colorfulness": 0.7, "compressibility": 0.3},
        "negative_prompt": "pizza",
        "mapping": "linear",
        "refine": 1,
    }
    sampling = {"steps": 2, "guidance_scale": 4.0, "contrast": 0.5, "width": 32, "height": 64}
    sampling |= {"prompt_guidance": 2.0, "reward_start": 0.3}
    answer = asked(server, "/generate", {"prompt": "cat", "seed": 7, **settings, **sampling})
    [own] = api.generate(here("embedding"), "cat", seed=7, **settings, sampling=sampling)
    [one] = answer["samples"]
    assert own.sample.size == (32, 64) and same(opened(one["image"]), own.sample)
    assert one["refinement"]["passes"] == own.refinement.passes
    assert any("not within" in note for note in answer["notes"])
    away = {"negative_targets": {"colorfulness": -1.0}, "targets": {"colorfulness": 1.0}}
    [one] = asked(server, "/generate", {"prompt": "cat", "seed": 7, **away})["samples"]
    [own] = api.generate(here("embedding"), "cat", seed=7, **away)
    assert same(opened(one["image"]), own.sample)


def test_adapters_are_asked_for_by_name(server, here, root):
    about = asked(server, "/adapters", method="GET")
    assert [one["name"] for one in about["adapters"]] == [
        str(root / mode / "adapter") for mode in ("embedding", "text")
    ]
    rewards = about["adapters"][0]["rewards"]
    space = here("embedding").reward_space
    assert [one["name"] for one in rewards] == list(space.names)
    assert (rewards[0]["lowest"], rewards[0]["highest"]) == space.range(space.names[0])
    for mode in ("text", "embedding", "text"):
        name = str(root / mode / "adapter")
        [one] = asked(server, "/generate", {**APPLE, "adapter": name})["samples"]
        [own] = api.generate(here(mode), "red apple", seed=4, targets=APPLE["targets"])
        assert same(opened(one["image"]), own.sample)


def test_a_sweep(server, here):
    request = {"prompt": "cat", "points": 3, "along": "colorfulness", "seed": 1, "steps": 2}
    answer = asked(server, "/sweep", request)
    own = api.sweep(
        here("embedding"), "cat", points=3, along="colorfulness", seed=1, sampling={"steps": 2}
    )
    for one, point in zip(answer["points"], own.points, strict=True):
        assert same(opened(one["image"]), point.sample) and one["targets"] == point.targets
        assert read_metadata(base64.b64decode(one["image"])).settings.targets == point.targets
        [again] = asked(server, "/generate", {"like": one["image"]})["samples"]
        assert again["image"] == one["image"]
        assert one["obtained"] == point.obtained and one["preference"] is None
    assert same(opened(answer["sheet"]), own.sheet)
    sheet = server.ask("/sweep", request, Accept="image/png")
    sheet = Image.open(io.BytesIO(sheet.body))
    assert same(sheet, own.sheet)
    assert [point["targets"] for point in json.loads(sheet.text["sweep"])["points"]] == [
        point.targets for point in own.points
    ]
    asks = {**request, "refine": 1}
    assert asked(server, "/sweep", asks)["points"][0]["refinement"]["passes"] in (0, 1)


def test_scores(server, root):
    path = root / "pictures" / "3.png"
    data = base64.b64encode(path.read_bytes()).decode()
    blank = picture(8)
    answer = asked(server, "/score", {"images": [data, blank]})
    table = api.score([path], ["compressibility:resize=none", "colorfulness"])
    names = ["compressibility", "colorfulness"]
    assert [answer["scores"][0][name] for name in names] == pytest.approx(table.scores[0].tolist())
    assert answer["scores"][1] == dict.fromkeys(names) == answer["obtained"][1]  # as it is blank
    assert answer["units"]["colorfulness"] and answer["obtained"][0]["colorfulness"] is not None


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("generate", {"prompt": ""}, "prompt: String should have at least 1 character"),
        ("generate", {"prompt": "x" * 2001}, "prompt: String should have at most 2000"),
        ("generate", {"promt": "a"}, "promt: unknown field"),
        ("generate", {"prompts": ["a"]}, "prompt and prompts: give one of them, not both"),
        ("generate", {"prompts": ["a"] * 17}, "prompts: List should have at most 16"),
        ("generate", {"prompts": ["a", ""]}, "prompts.1: String should have at least 1"),
        ("generate", {"prompts": ["a"] * 9, "count": 2}, "count, prompts: 18 samples together"),
        ("generate", {"like": "é"}, "like: no base64"),
        ("generate", {"like": picture()}, "like: says nothing of how it was made"),
        ("generate", {"init_image": picture(6000, "1")}, "init_image: too large"),
        ("generate", {"init_image": "AAAA"}, "init_image: not a picture of a known format"),
        ("generate", {"init_image": picture(), "strength": 0}, "strength: Input should be greater"),
        ("generate", {"strength": 0.5}, "strength: says how much of init_image is drawn anew"),
        ("generate", {"count": 17}, "count: Input should be less than or equal to 16"),
        ("generate", {"count": "1"}, "count: Input should be a valid integer"),
        ("generate", {"count": True}, "count: Input should be a valid integer"),
        ("generate", {"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ("generate", {"steps": 201}, "steps: Input should be less"),
        ("generate", {"steps": 0}, "steps: Input should be greater"),
        ("generate", {"guidance_scale": 1e30}, "guidance_scale: Input should be less"),
        ("generate", {"width": 12}, "width: Input should be a multiple of 8"),
        ("generate", {"height": 1 << 40}, "height: Input should be less"),
        ("generate", {"targets": {"beauty": 1.0}}, "unknown reward 'beauty'"),
        ("generate", {"targets": {"colorfulness": float("nan")}}, "targets.colorfulness: "),
        ("generate", {"preference": {"colorfulness": 1.0}}, "preference and targets: give one"),
        ("generate", {"mapping": "best"}, "mapping best: unknown"),
        ("generate", {"adapter": "/etc"}, "adapter '/etc': unknown"),
        ("generate", {"true_cfg_scale": 2.0}, "true_cfg_scale: "),
        ("sweep", {"points": 1}, "points: Input should be greater"),
        ("sweep", {"along": "beauty"}, "beauty"),
        ("score", {"images": ["AAAA"]}, "images[0]: not a picture of a known format"),
        ("score", {"images": ["é"]}, "images[0]: no base64"),
        ("score", {"images": [picture()], "prompts": []}, "prompts: 0 for 1 images"),
        ("score", {"texts": ["a"]}, "images: missing, or not alone"),
        ("score", {"images": [picture(6000, "1")]}, "images[0]: too large"),
    ],
)
def test_wrong_requests_get_one_line(server, path, change, said):
    base = {"generate": APPLE, "sweep": {"prompt": "cat"}, "score": {}}[path]
    answer = asked(server, f"/{path}", {**base, **change}, status=422)
    assert said in answer["error"] and "\n" not in answer["error"]


def test_one_picture_only_as_png(server):
    answer = asked(server, "/generate", {**APPLE, "count": 2}, status=422, Accept="image/png")
    assert answer["error"] == (
        "count, prompts: 2 samples, but image/png is one picture; ask for JSON"
    )


def test_the_page_says_what_can_be_asked(server):
    answer = server.ask("/", method="GET", Authorization="")
    page = answer.body.decode()
    for word in ("POST /generate", "GET /adapters", "negative_targets", "list of", "default 11"):
        assert word in page
    assert not re.search("<script|https?:|@import|url\\(", page)
    document = asked(server, "/openapi.json", method="GET", Authorization="")
    assert document["paths"].keys() == {"/generate", "/sweep", "/score", "/adapters", "/health"}
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "image/png" in document["paths"]["/generate"]["post"]["responses"]["200"]["content"]


@pytest.mark.attack
def test_strangers_are_refused(server):
    assert asked(server, "/adapters", method="GET", status=401, Authorization="")
    assert asked(server, "/generate", APPLE, status=403, Host="evil.example")
    assert asked(server, "/generate", APPLE, status=403, Origin="https://evil.example")
    assert asked(server, "/health", method="GET", Authorization="") == {"status": "ok"}


def test_a_full_queue_is_told_and_whoever_left_is_not_drawn_for(server, thread):
    over, running = threading.Event(), threading.Event()
    thread.submit(lambda: (running.set(), over.wait(60)))
    running.wait(10)
    waiting = [server.connect() for _ in range(3)]
    body = json.dumps(APPLE).encode()
    for connection in waiting:
        connection.sendall(server.head("POST", "/generate", len(body)) + body)
    until(lambda: thread.queue.waiting == 3)
    answer = asked(server, "/generate", APPLE, status=503)
    assert answer["error"] == "3 requests wait already; try again later"
    waiting[0].close()
    until(lambda: thread.queue.waiting == 2)
    late = server.connect()
    late.sendall(server.head("POST", "/generate", len(body)) + body)
    over.set()
    for connection in (*waiting[1:], late):
        with connection:
            assert read(connection).status == 200


def test_what_is_drawn_stops_when_its_client_has_gone(server, thread):
    body = json.dumps({**APPLE, "steps": 200, "count": 16, "refine": 20}).encode()
    with server.connect() as connection:
        connection.sendall(server.head("POST", "/generate", len(body)) + body)
        time.sleep(0.3)
    start = time.monotonic()
    assert asked(server, "/generate", APPLE)["samples"]
    assert time.monotonic() - start < 10  # a minute's work was begun


def until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.attack
def test_a_failure_is_told_without_its_cause(server, model, monkeypatch):
    def fail(job):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(model, "_use", fail)
    answer = asked(server, "/generate", APPLE, status=500)
    assert answer == {"error": "the model failed (RuntimeError)"}

    def break_down(job):
        raise FloatingPointError("the image of seed 0: not finite")

    monkeypatch.setattr(model, "_use", break_down)
    answer = asked(server, "/generate", APPLE, status=500)
    assert answer == {"error": "the image of seed 0: not finite"}


@pytest.mark.attack
def test_slow_heads_and_answers_that_nobody_reads(server, monkeypatch):
    monkeypatch.setattr(connections, "HEAD", 0.2)
    for begun in (b"", b"GET / HTTP/1.1\r\nHost:", server.head("POST", "/x", 9, Host="a") + b"1"):
        with server.connect() as connection:
            connection.sendall(begun)
            read(connection)  # until the server ends it
    monkeypatch.setattr(connections, "READING", 0.2)
    request = server.head("GET", "/openapi.json").replace(b"Connection: close\r\n", b"")
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:  # asks, and never reads
                connection.sendall(request)


def lines(language):
    """The lines of docs/serve.md that ask the server at 127.0.0.1:8080."""
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)
    return [block for block in found if "127.0.0.1:8080/" in block]


def test_the_lines_of_the_documentation(model, thread, tmp_path):
    from ric_diffusion.api.model_app import build_model_app

    with serving(build_model_app(model, thread, hosts="loopback")) as server:
        address = f"127.0.0.1:{server.port}"
        *curls, _ = lines("bash") if shutil.which("curl") else [""]
        [python] = lines("python")
        for command in (["bash", "-ec", "\n".join(curls)], [sys.executable, "-c", python]):
            command[-1] = command[-1].replace("127.0.0.1:8080", address)
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    sizes = [Image.open(tmp_path / name).size for name in ("0.png", "1.png")]
    assert sizes == [(64, 64)] * 2 and done.stdout.count("colorfulness") == 3
    if curls:
        assert Image.open(tmp_path / "apple.png").size == (64, 64)
        assert Image.open(tmp_path / "sweep.png").width > 5 * 64
        assert "embedding" in (tmp_path / "adapters.json").read_text()


def test_the_limits_of_the_documentation():
    from ric_diffusion.api import messages, model_app, served_model
    from ric_diffusion.api.http import guard, work

    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
    for row in (
        f"| {messages.MAX_COUNT}, {messages.MAX_POINTS}, {messages.MAX_SAMPLES} |",
        f"| {messages.MAX_STEPS}, {messages.MAX_PROMPT}, {messages.MAX_SIDE} |",
        f"| {model_app.MAX_BYTES // 2**20} MiB; 2²⁵ |",
        f"| {work.WAITING}; one more gets 503",
        f"| {model_app.RATE}, and {guard.BURST * model_app.RATE} at once;",
        f"| {connections.HEAD:.0f} s each; ",
        f" {guard.SLOWEST // 1000} kB a second |",
    ):
        assert row in page
    assert guard.GRACE == connections.HEAD and served_model.MAX_PIXELS == 2**25


@pytest.fixture
def responds(monkeypatch, tmp_path):
    """A tiny language model, with an adapter that has learned nothing."""
    from ric_diffusion.adapters.adapter import Adapter
    from ric_diffusion.api import served_model
    from ric_diffusion.conditioning.conditioner import TextConditioner
    from ric_diffusion.conditioning.grammar import Grammar
    from ric_diffusion.models.causal_lm.model import RiCCausalLM
    from ric_diffusion.rewards import RewardSpace
    from support.lm import write_lm

    rng = np.random.default_rng(0)
    space = RewardSpace.fit(
        {"brevity": rng.normal(size=50), "length": rng.normal(size=50)},
        units=dict.fromkeys(("brevity", "length"), "words"),
        scorers={name: {"name": name} for name in ("brevity", "length")},
    )
    lm = RiCCausalLM.from_pretrained(str(write_lm(tmp_path / "lm")))
    lm.adapter = Adapter(
        family="causal-lm",
        base_model="tiny",
        space=space,
        conditioner=TextConditioner(Grammar.words(space.names)),
        sampling={"response_tokens": 8},
    )
    monkeypatch.setattr(served_model, "load", lambda name, dtype: lm)
    return served_model.ServedModel("tiny")


def test_a_language_model_responds(responds):
    from ric_diffusion.api import messages
    from ric_diffusion.api.served_model import sample_of
    from ric_diffusion.api.work import Job, Stopped

    asked = messages.GenerateRequest(prompt="how do i bake?", targets={"brevity": 1.0}, seed=3)
    [sample], _ = responds.generate(asked, Job())
    one = sample_of(sample)
    assert one.image is None and one.scores["length"] == len(one.text.split())
    scores = responds.score(messages.ScoreRequest(texts=["one two", "three"]), Job()).scores
    assert [row["length"] for row in scores] == [2.0, 1.0]
    for wrong in (messages.ScoreRequest(images=["AAAA"]), messages.ScoreRequest()):
        with pytest.raises(api.InputError, match="texts: missing, or not alone"):
            responds.score(wrong, Job())
    with pytest.raises(api.InputError, match="one that makes pictures"):
        responds.sweep(messages.SweepRequest(prompt="a"), Job())
    stopped = Job()
    stopped.stop()
    with pytest.raises(Stopped):
        responds.generate(asked, stopped)


SHORT = [kind for kind in KINDS if "slow" not in kind.name and "MiB" not in kind.name]


@pytest.mark.attack
def test_twenty_clients_with_malformed_requests_among_theirs(server):
    """A few seconds of scripts/benchmark_server.py, in this process: memory is measured there."""
    result = attack(server, os.getpid(), clients=20, seconds=2, rest=0, kinds=tuple(SHORT))
    assert result.failures == {}
    sent = sum(seen.total() for seen in result.outcomes.values())
    assert sent > 100 and result.outcomes["generate, JSON"]["answered"] > 0
    assert asked(server, "/generate", APPLE)["samples"]


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ("--host 0.0.0.0: other machines would be served without a token", ["--host", "0.0.0.0"]),
        ("--adapter me/x: given twice; keep one of them", ["--adapter", "me/x", "me/x"]),
        ("--model emoji_64: no such folder or bundled model", ["--model", "emoji_64"]),
    ],
)
def test_what_cannot_be_served(ric, monkeypatch, said, args):
    monkeypatch.delenv("RIC_SERVE_TOKEN", raising=False)
    done = ric("serve", "--port", free_port(), *args)
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_the_command_ends_cleanly_in_the_middle_of_a_picture(root):
    port = free_port()
    options = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    with starter() as start:
        process = start("-m", "ric_diffusion", "serve", *options, "--port", port)
        assert process.stdout.readline() == f"http://127.0.0.1:{port} serves {root / 'model'}\n"
        server = Server("127.0.0.1", port)
        assert asked(server, "/generate", APPLE)["samples"]
        body = json.dumps({**APPLE, "steps": 200, "count": 16, "refine": 20}).encode()
        with server.connect() as connection:
            connection.sendall(server.head("POST", "/generate", len(body)) + body)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            answer = read(connection)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, "", "ric serve: terminated\n")
    assert (answer.status, json.loads(answer.body)) == (503, {"error": "the server ends"})
