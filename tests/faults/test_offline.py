"""A hub that cannot be reached: one line, soon, whichever way it does not answer."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from PIL import Image

from support.processes import ENVIRONMENT

# What a command does beside starting Python and importing its libraries, which no hub hastens.
COMMAND = """
import os, socket, sys, time
import diffusers, open_clip, peft, transformers
if "hub.invalid" in os.environ["HF_ENDPOINT"]:  # no server of names answers
    socket.getaddrinfo = lambda *address, **how: time.sleep(600)
from ric_diffusion.cli import main
start = time.monotonic()
code = main(sys.argv[1:])
print(f"{time.monotonic() - start:.1f}")
sys.exit(code)
"""
MOST = 15  # seconds


@contextmanager
def silent():
    """A server that takes connections, and says nothing."""
    connections = []

    def accept():
        while True:
            try:
                connections.append(server.accept())
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    yield address


@contextmanager
def nameless():
    yield "http://hub.invalid"


@pytest.mark.parametrize("hub", [silent, closed, nameless])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["generate", "--model", "some/model"],
            "--model some/model: no such folder, and the hub c",
        ),
        (
            ["generate", "--model", "emoji-64", "--adapter", "some/sliders"],
            "some/sliders: no such folder, and the hub cannot be reached",
        ),
        (["score", "{home}", "--scorers", "pickscore"], "pickscore: model='yuvalkirstain/PickSco"),
    ],
)
def test_it_is_one_line_and_soon(tmp_path, hub, args, said):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    if args[0] == "generate":
        args = [*args, "--prompt", "x", "--out", str(tmp_path / "out")]
    with hub() as endpoint:
        home = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *(arg.format(home=tmp_path) for arg in args)],
            env={**os.environ, **ENVIRONMENT, **home},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"ric {args[0]}: {said}") and len(line) <= 320
    assert float(done.stdout) < MOST
