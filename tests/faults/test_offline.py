"""A hub that cannot be reached: one line, soon, whichever way it does not answer."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from PIL import Image

from support.processes import ENVIRONMENT

# What commands do beside starting Python and importing its libraries, which no hub hastens.
COMMANDS = """
import json, os, socket, sys, time
import diffusers, open_clip, peft, transformers
if "hub.invalid" in os.environ["HF_ENDPOINT"]:  # no server of names answers
    socket.getaddrinfo = lambda *address, **how: time.sleep(600)
from ric_diffusion.cli import main
for arguments in json.loads(sys.argv[1]):
    start = time.monotonic()
    code = main(arguments)
    print(code, f"{time.monotonic() - start:.1f}")
"""
SAID = [
    "ric generate: --model some/model: no such folder, and the hub c",
    "ric generate: some/sliders: no such folder, and the hub cannot be reached",
    "ric score: pickscore: model='yuvalkirstain/PickSco",
]
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
def test_it_is_one_line_and_soon(tmp_path, hub):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    draw = ["--prompt", "x", "--out", str(tmp_path / "out")]
    commands = [
        ["generate", "--model", "some/model", *draw],
        ["generate", "--model", "emoji-64", "--adapter", "some/sliders", *draw],
        ["score", str(tmp_path), "--scorers", "pickscore"],
    ]
    with hub() as endpoint:
        home = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(commands)],
            env={**os.environ, **ENVIRONMENT, **home},
            capture_output=True,
            text=True,
            timeout=300,
        )
    lines, ends = done.stderr.splitlines(), done.stdout.splitlines()
    for line, end, said in zip(lines, ends, SAID, strict=True):
        code, seconds = end.split()
        assert line.startswith(said) and len(line) <= 320
        assert code == "2" and float(seconds) < MOST
