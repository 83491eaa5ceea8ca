"""Print how `ric serve` bears clients that ask at once, malformed requests among theirs.

    python scripts/benchmark_server.py --clients 20 --seconds 60

Starts a server of its own. Each client sends one request after the other, by chance and the same
ones every time, every second one malformed. A request is answered (2xx, and what was asked for),
refused (another status with one line, or a connection that the server ends because it takes too
long), or something else, which is a failure. Memory is the server's resident set: before, after
every kind of request was sent once, and after the last client has gone and some seconds of rest.

Needs the `scale` extra and Linux.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

GROWTH = 1.10  # the bar: memory after, over memory before
REST = 5.0  # s after the last client has gone
TIMEOUT = 120.0  # s that a client waits; none should
TOKEN = "benchmark"


@dataclass
class Answer:
    """What came back: a status and a body, or status 0 for a connection that was ended."""

    status: int
    body: bytes = b""

    @property
    def refused(self) -> bool:
        """Whether it is a refusal in one line of words."""
        if self.status == 0:
            return True
        try:
            line = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            line = self.body.decode("utf-8", "replace")  # of the HTTP layer itself
        return self.status >= 400 and 0 < len(line) < 400 and line.isprintable()


@dataclass
class Server:
    """Where it listens, and what clients send there."""

    host: str
    port: int
    token: str = TOKEN

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=TIMEOUT)

    def head(self, method: str, path: str, length: int | None = None, **headers: str) -> bytes:
        given = {
            "Host": f"{self.host}:{self.port}",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Connection": "close",
            **({} if length is None else {"Content-Length": str(length)}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def raw(self, data: bytes) -> Answer:
        """Send bytes, and read until the server ends the connection."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has all
                connection.sendall(data)
            return read(connection)

    def ask(self, path: str, body: object = None, method: str = "POST", **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if method != "POST":
            data = b""
        return self.raw(self.head(method, path, len(data), **headers) + data)


def read(connection: socket.socket) -> Answer:
    """The answer on a connection, which the server ends."""
    found = b""
    with suppress(ConnectionResetError):  # what came before it counts
        while chunk := connection.recv(2**16):
            found += chunk
    head, _, body = found.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d+)", head)
    return Answer(int(status[1]), body) if status else Answer(0)


@dataclass(frozen=True)
class Kind:
    """A kind of request: what sends it, and whether it is to be answered. A good one may be refused
    all the same, if too many wait."""

    name: str
    send: Callable[[Server], Answer]
    good: bool = False

    def outcome(self, answer: Answer) -> str:
        if 200 <= answer.status < 300:
            return "answered" if self.good else f"answered with {answer.status}"
        if self.good:
            busy = answer.status in (429, 503) and answer.refused
            return "refused" if busy else f"status {answer.status} {answer.body[:200]!r}"
        return "refused" if answer.refused else f"status {answer.status} {answer.body[:200]!r}"


def picture(side: int = 64, mode: str = "RGB") -> str:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


APPLE = {"prompt": "red apple", "steps": 4, "preference": {"colorfulness": 1}}


def slow_head(server: Server) -> Answer:
    """A byte now and then, of headers that never end."""
    with server.connect() as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            for _ in range(600):
                connection.sendall(b"X")
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            return Answer(0)
    return Answer(-1, b"the server waits for ever")


def slow_body(server: Server) -> Answer:
    """A body that is announced and does not come."""
    with server.connect() as connection:
        connection.sendall(server.head("POST", "/generate", 1000) + b"{")
        return read(connection)


def chunked(server: Server) -> Answer:
    """More than the limit, without saying so before."""
    head = server.head("POST", "/generate", Transfer_Encoding="chunked")
    piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    return server.raw(head + piece * 33 + b"0\r\n\r\n")


def leaving(server: Server) -> Answer:
    """A client that asks for much and goes at once; what counts is that nobody waits for it."""
    body = json.dumps({**APPLE, "count": 16, "steps": 100}).encode()
    with server.connect() as connection:
        connection.sendall(server.head("POST", "/generate", len(body)) + body)
        time.sleep(0.3)
    return Answer(0)


def of(path: str, body: object, **headers: str) -> Callable[[Server], Answer]:
    return lambda server: server.ask(path, body, **headers)


def get(path: str, method: str = "GET", **headers: str) -> Callable[[Server], Answer]:
    return lambda server: server.ask(path, method=method, **headers)


KINDS = (
    Kind("generate, JSON", of("/generate", APPLE), good=True),
    Kind("generate, PNG", of("/generate", APPLE, Accept="image/png"), good=True),
    Kind("generate, a script as prompt", of("/generate", {**APPLE, "prompt": "<script>"}), True),
    Kind(
        "generate from a picture",
        of("/generate", {"prompts": ["cat", "red apple"], "init_image": picture(), "steps": 4}),
        good=True,
    ),
    Kind("sweep, JSON", of("/sweep", {"prompt": "cat", "points": 3, "steps": 2}), good=True),
    Kind("score", of("/score", {"images": [picture()], "prompts": ["cat"]}), good=True),
    Kind("adapters", get("/adapters"), good=True),
    Kind("page", get("/"), good=True),
    Kind("broken JSON", of("/generate", b'{"prompt": "a')),
    Kind("200 000 brackets", of("/generate", b"[" * 200_000)),
    Kind("no UTF-8", of("/generate", b'{"prompt": "\xff\xfe"}')),
    Kind("half a character", of("/generate", b'{"prompt": "\\ud800"}')),
    Kind("NaN", of("/generate", b'{"prompt": "a", "guidance_scale": NaN}')),
    Kind(
        "a number of 5 000 digits",
        of("/generate", b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}"),
    ),
    Kind("no prompt", of("/generate", {"seed": 1})),
    Kind("a long prompt", of("/generate", {"prompt": "x" * 100_000})),
    Kind("unknown field", of("/generate", {"promt": "a"})),
    Kind("unknown reward", of("/generate", {**APPLE, "preference": {"beauty": 1}})),
    Kind("10^12 samples", of("/generate", {**APPLE, "count": 10**12})),
    Kind("256 samples of 16 prompts", of("/generate", {"prompts": ["a"] * 16, "count": 16})),
    Kind("like a picture of nobody's", of("/generate", {"like": picture()})),
    Kind("from 81 megapixels", of("/generate", {**APPLE, "init_image": picture(9000, "1")})),
    Kind("10^9 points", of("/sweep", {"prompt": "a", "points": 10**9})),
    Kind("a path as adapter", of("/generate", {**APPLE, "adapter": "../../etc/passwd"})),
    Kind("no picture", of("/score", {"images": ["AAAA"]})),
    Kind("a picture of 81 megapixels", of("/score", {"images": [picture(9000, "1")]})),
    Kind("path traversal", get("/../../../../etc/passwd")),
    Kind("encoded path traversal", get("/..%2f..%2fetc%2fpasswd")),
    Kind("wrong method", get("/generate", "DELETE")),
    Kind("a form", of("/generate", b"prompt=a", Content_Type="application/x-www-form-urlencoded")),
    Kind("wrong token", of("/generate", APPLE, Authorization="Bearer guess")),
    Kind("foreign host", of("/generate", APPLE, Host="evil.example")),
    Kind("foreign origin", of("/generate", APPLE, Origin="https://evil.example")),
    Kind("33 MiB announced", lambda s: s.raw(s.head("POST", "/generate", 33 * 2**20))),
    Kind("33 MiB in chunks", chunked),
    Kind("negative length", lambda s: s.raw(s.head("POST", "/generate", -1))),
    Kind("not HTTP", lambda s: s.raw(b"\x16\x03\x01\x02\x00\x01\x00" * 20 + b"\r\n\r\n")),
    Kind("headers of 1 MB", lambda s: s.raw(s.head("GET", "/", X="x" * 2**20))),
    Kind("websocket", get("/generate", Upgrade="websocket", Connection="Upgrade")),
    Kind("slow headers", slow_head),
    Kind("slow body", slow_body),
    Kind("a client that goes", leaving),
)


@dataclass
class Result:
    """Of each kind of request how often it came out how, and the server's memory in MiB."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    before: float = 0.0
    after: float = 0.0

    @property
    def failures(self) -> dict[str, list[str]]:
        return {
            name: wrong
            for name, seen in self.outcomes.items()
            if (wrong := [how for how in seen if how not in ("answered", "refused")])
        }


def attack(
    server: Server,
    pid: int,
    *,
    clients: int,
    seconds: float,
    rest: float = REST,
    kinds: tuple[Kind, ...] = KINDS,
) -> Result:
    """Every kind once, and then by chance, by so many clients at once for so long."""
    result = Result(outcomes={kind.name: Counter() for kind in kinds})
    good, bad = ([kind for kind in kinds if kind.good == wanted] for wanted in (True, False))

    def send(kind: Kind) -> None:
        try:
            outcome = kind.outcome(kind.send(server))
        except OSError as error:
            outcome = f"{type(error).__name__}: {error}"
        result.outcomes[kind.name][outcome] += 1

    def client(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            send(chance.choice(chance.choice((good, bad))))

    def at_once(work: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    at_once([lambda kind=kind: send(kind) for kind in kinds])
    time.sleep(rest)
    result.before = memory(pid)
    end = time.monotonic() + seconds
    at_once([lambda number=number: client(number) for number in range(clients)])
    time.sleep(rest)
    result.after = memory(pid)
    return result


def memory(pid: int) -> float:
    """Resident set in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def serving(*options: str) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """`ric serve` with these options on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ric_diffusion", "serve", "--port", str(port), *options]
    environment = {**os.environ, "RIC_SERVE_TOKEN": TOKEN}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                sys.exit("benchmark_server.py: the server did not start")
            yield Server("127.0.0.1", port), process
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="emoji-64")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with serving("--model", options.model) as (server, process):
        result = attack(server, process.pid, clients=options.clients, seconds=options.seconds)
    sys.exit(print_table(result))


def print_table(result: Result) -> int:
    """The table; 1 if a bar was missed."""
    print("| request | sent | answered | refused | otherwise |\n| --- | --- | --- | --- | --- |")
    total: Counter[str] = Counter()
    for name, seen in result.outcomes.items():
        row = Counter({how: seen[how] for how in ("answered", "refused")})
        row["otherwise"] = seen.total() - row.total()
        total += row
        print_row(name, row)
    print_row("all", total)
    growth = result.after / result.before
    print(f"\nmemory {result.before:.0f} MiB, afterwards {result.after:.0f}: {growth:.2f} times")
    for name, wrong in result.failures.items():
        print(f"{name}: {'; '.join(wrong)}")
    missed = bool(result.failures) or growth > GROWTH
    print(
        "missed" if missed else f"all answered or refused in one line, memory ≤ {GROWTH} times: met"
    )
    return int(missed)


def print_row(name: str, row: Counter[str]) -> None:
    counts = (row.total(), row["answered"], row["refused"], row["otherwise"])
    print(f"| {name} | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    main()
