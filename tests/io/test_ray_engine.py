"""The driver's side of the engine on Ray, with Ray played by this process: what is handed to whom,
what is counted, what is said. The real one is in tests/e2e/test_ray.py."""

import logging
import os
import signal
import socket
from functools import partial

import pytest

from ric_diffusion.io.errors import InputError, WorkerError
from scorers import ScorerError

pytest.importorskip("ray", reason="the extra scale is not installed")

from ray.exceptions import RayError

from ric_diffusion.io import ray_engine
from ric_diffusion.io.ray_engine import RayEngine

DIES, HANGS = "dies", "hangs"


class Actor:
    """A worker; its calls are references, whose results are made when they are asked for."""

    def __init__(self, played, worker):
        self.played, self.worker = played, worker
        self.run = self.__ray_ready__ = self

    def remote(self, *call):
        return self.played.refer(self, call)


class Reference:
    def __init__(self, actor, call):
        self.actor, self.call = actor, call


class Ray:
    """What the engine uses of ray. ``plays``: by what is asked for, what becomes of the actor."""

    def __init__(self, cpus=2, gpus=0, running=True):
        self.resources = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
        self.running, self.plays = running, {}
        self.started, self.killed, self.ended, self.asked = [], [], 0, {}
        self.begun, self.waits, self.starting = [], [], {}

    def is_initialized(self):
        return self.running

    def init(self, **options):
        self.begun.append(options)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the real one does

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.asked = options

        def actors(kind):
            def make(folder):
                self.started.append(Actor(self, kind(folder)))
                return self.started[-1]

            return type("Actors", (), {"remote": staticmethod(make)})

        return actors

    def refer(self, actor, call):
        return Reference(actor, call)

    def wait(self, references, timeout):
        self.waits.append(timeout)
        ready = [one for one in references if self._play(one) != HANGS]
        return ready[:1], [one for one in references if one not in ready[:1]]

    def _play(self, reference):
        """Of an item by itself; of a start by how many there were before."""
        key = reference.call[-1] if reference.call else ("start", len(self.starting))
        if not reference.call:
            key = self.starting.setdefault(reference, key)
        return self.plays.get(key, [None])[0]

    def get(self, reference):
        what = self._play(reference)
        key = reference.call[-1] if reference.call else self.starting[reference]
        if len(self.plays.get(key, [])) > 1:
            self.plays[key].pop(0)
        if what == DIES:
            raise RayError("The actor died.\n  SystemError: out of memory\nmore lines")
        return reference.actor.worker.run(*reference.call) if reference.call else None

    def kill(self, actor):
        self.killed.append(actor)

    def shutdown(self):
        self.ended += 1


def held(number):
    return number


def times(state, item):
    if item in ("input", "scorer", "bug"):
        raise {"input": InputError, "scorer": ScorerError, "bug": KeyError}[item](f"no {item}")
    return state * item


@pytest.fixture
def play(monkeypatch, tmp_path):
    """play(**settings): Ray from here on."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def begin(**settings):
        played = Ray(**settings)
        for name in ("is_initialized", "init", "cluster_resources", "remote", "wait", "get",
                     "kill", "shutdown"):  # fmt: skip
            monkeypatch.setattr(ray_engine.ray, name, getattr(played, name))
        return played

    yield begin
    signal.signal(signal.SIGTERM, before)


def found_of(engine, items, number=10):
    return list(
        engine.map(
            times, items, here=None, elsewhere=partial(held, number=number), called="item {}".format
        )
    )


def test_every_item_is_done_once_by_as_many_workers_as_there_are(play):
    played = play(cpus=3)
    engine = RayEngine(None, None)
    assert engine.workers == 3 and played.asked == {"num_cpus": 1, "num_gpus": 0}
    assert sorted(found_of(engine, [1, 2, 3, 4, 5])) == [10, 20, 30, 40, 50]
    assert len(played.started) == 3 and not played.killed
    assert sorted(found_of(engine, [6, 7])) == [60, 70]  # by those that are there
    assert len(played.started) == 3 and set(played.waits) == {1.0}
    assert found_of(engine, []) == []


def test_no_more_workers_than_there_is_work_for(play):
    played = play(cpus=8)
    assert found_of(RayEngine(None, None), [4]) == [40]
    assert len(played.started) == 1


def test_a_device_is_a_gpu_where_there_is_one(play):
    played = play(cpus=8, gpus=2)
    engine = RayEngine(None, None)
    assert engine.workers == 2 and played.asked == {"num_cpus": 0, "num_gpus": 1}


def test_a_cluster_that_is_too_small(play):
    played = play(cpus=2)
    with pytest.raises(InputError, match=r"^workers: 3, and Ray has 2 CPUs; give 2$"):
        RayEngine(None, 3)
    assert not played.ended  # a program of the user's has begun it
    assert RayEngine(None, 1).workers == 1
    played = play(cpus=2, running=False)
    with pytest.raises(InputError, match="Ray has 2 CPUs"):
        RayEngine(None, 3)
    assert played.ended == 1


def test_work_that_only_this_process_can_do(play):
    play()
    with pytest.raises(InputError, match=r"^engine ray: this works in one process only"):
        list(RayEngine(None, None).map(times, [1], here=1, elsewhere=None, called=str))


@pytest.mark.parametrize(("item", "kind"), [("input", InputError), ("scorer", ScorerError)])
def test_a_refusal_is_raised_at_once(play, item, kind):
    played = play(cpus=1)
    engine = RayEngine(None, None)
    with pytest.raises(kind, match=f"^no {item}$"):
        found_of(engine, [item])
    assert not played.killed and found_of(engine, [1]) == [10]  # the worker is as good as before
    assert len(played.started) == 1


def test_a_fault_is_tried_three_times_each_by_a_new_worker(play, caplog):
    played = play(cpus=1)
    with pytest.raises(WorkerError) as caught:
        found_of(RayEngine(None, None), ["bug"])
    assert str(caught.value) == "item bug: failed 3 times, at last because KeyError: 'no bug'"
    assert caught.value.__notes__[0].startswith("Traceback")
    assert caplog.messages == [
        f"item bug: attempt {i} of 3 failed, KeyError: 'no bug'" for i in (1, 2)
    ]
    assert len(played.started) == len(played.killed) == 3


def test_an_item_whose_worker_died_is_done_by_another(play, caplog):
    played = play(cpus=2)
    played.plays = {3: [DIES, DIES, None]}
    assert sorted(found_of(RayEngine(None, None), [1, 2, 3, 4])) == [10, 20, 30, 40]
    said = "failed, the worker died: SystemError: out of memory"
    assert caplog.messages == [f"item 3: attempt {i} of 3 {said}" for i in (1, 2)]
    assert len(played.killed) == 2


def test_workers_that_do_not_start(play, caplog):
    played = play(cpus=1)
    played.plays = {("start", 0): [DIES], ("start", 1): [DIES]}
    assert found_of(RayEngine(None, None), [1]) == [10]
    assert [m.split(",")[0] for m in caplog.messages] == [
        "worker: attempt 1 of 3 failed",
        "worker: attempt 2 of 3 failed",
    ]
    played = play(cpus=1)
    played.plays = {("start", i): [DIES] for i in range(3)}
    with pytest.raises(WorkerError, match=r"^worker: failed 3 times, at last because the worker"):
        found_of(RayEngine(None, None), [1])


def test_starts_that_fail_are_counted_anew_after_one_that_did_not(play):
    played = play(cpus=1)
    played.plays = {("start", i): [DIES] for i in (0, 1, 3, 4)} | {7: [DIES, None]}
    assert found_of(RayEngine(None, None), [7]) == [70]
    assert len(played.started) == 6


def test_whoever_stops_early_ends_what_nobody_wants(play):
    played = play(cpus=2)
    engine = RayEngine(None, None)
    working = engine.map(
        times, [1, 2, 3, 4], here=None, elsewhere=partial(held, number=1), called=str
    )
    assert next(working) in (1, 2, 3, 4)
    working.close()
    assert len(played.killed) == 2  # both had begun the next
    assert sorted(found_of(engine, [5, 6], number=1)) == [5, 6]


def test_ending_it(play):
    played = play(cpus=2)
    engine = RayEngine(None, None)
    found_of(engine, [1, 2])
    engine.close()
    assert sorted(map(id, played.killed)) == sorted(map(id, played.started))
    assert not played.ended  # it is not ours
    played = play(cpus=2, running=False)
    engine = RayEngine(None, 2)
    found_of(engine, [1, 2])
    engine.close()
    assert played.ended == 1 and not played.killed


def test_waiting_long_is_told_and_counted_on(play, monkeypatch, caplog):
    play()
    engine = RayEngine(None, None)
    now = [100.0]
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: now[0])
    assert engine._say_if_late(41.0) == 41.0 and not caplog.messages
    assert engine._say_if_late(40.0) == 100.0
    assert caplog.messages == ["engine ray: waiting for a free CPU of the cluster"]


def test_it_is_told_while_no_worker_starts(play, monkeypatch, caplog):
    played = play(cpus=1)
    played.plays = {("start", 0): [HANGS, None]}
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: float(next(clock)))
    wait = played.wait

    def waited(references, timeout):
        if len(played.waits) == 4:
            played.plays = {}
        return wait(references, timeout)

    monkeypatch.setattr(ray_engine.ray, "wait", waited)
    assert found_of(RayEngine(None, None), [1]) == [10]
    assert caplog.messages == ["engine ray: waiting for a free CPU of the cluster"] * 2


def test_ray_of_this_machine_is_begun_small(play, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    played = play(running=False)
    before = signal.getsignal(signal.SIGTERM)
    RayEngine(None, 2)
    assert played.begun == [
        {
            "address": "local",
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
        }
    ]
    assert signal.getsignal(signal.SIGTERM) == before  # Ray's own is put aside


def test_a_cluster_is_named_by_the_config_or_by_the_environment(play, monkeypatch):
    probed = []
    monkeypatch.setattr(ray_engine, "_probe", probed.append)
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    for given, address in ((None, "there:6379"), ("auto", "auto"), ("here:1", "here:1")):
        played = play(running=False)
        RayEngine(given, None)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        assert played.begun == [{"address": address} | quiet]
    assert probed == ["there:6379", "here:1"]


@pytest.mark.parametrize(
    ("error", "why"),
    [(ConnectionError("no\n  one there"), "no one there"), (RuntimeError(), "RuntimeError")],
)
def test_a_cluster_that_cannot_be_joined(play, monkeypatch, error, why):
    played = play(running=False)

    def fail(**options):
        raise error

    monkeypatch.setattr(ray_engine.ray, "init", fail)
    message = rf"^address auto: no Ray cluster to work on; {why}$"
    with pytest.raises(InputError, match=message):
        RayEngine("auto", None)
    assert not played.started


@pytest.mark.parametrize("address", ["there", ":6379", "ray://", "there:port", "there:63 79"])
def test_an_address_that_is_none(address):
    with pytest.raises(InputError, match="write HOST:PORT, ray://HOST:PORT or auto"):
        ray_engine._probe(address)


def test_an_address_is_tried_before_ray_is():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"[127.0.0.1]:{port}"):
            ray_engine._probe(address)
    message = rf"^address 127\.0\.0\.1:{port}: cannot be reached \(.*refused\); give the address"
    with pytest.raises(InputError, match=message):
        ray_engine._probe(f"127.0.0.1:{port}")
    with pytest.raises(InputError, match="cannot be reached"):
        ray_engine._probe("127.0.0.1:99999999999")


def test_a_host_that_does_not_answer_is_waited_for_some_seconds(monkeypatch):
    asked = {}

    def connect(address, timeout):
        asked.update(address=address, timeout=timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(ray_engine.socket, "create_connection", connect)
    with pytest.raises(InputError, match="timed out"):
        ray_engine._probe("ray://[::1]:6379")
    assert asked == {"address": ("::1", 6379), "timeout": 5.0}


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("one line", "one line"),
        ("\n  The actor died \n why: ValueError: 3\n TypeError: 4", "why: ValueError: 3"),
        ("  ", "no reason"),
        ("first\nsecond", "first"),
    ],
)
def test_rays_many_lines_as_one(said, cause):
    assert ray_engine._cause(RayError(said)) == cause


def test_workers_are_told_the_folder_of_the_driver(play, monkeypatch, tmp_path):
    played, folders = play(cpus=1), []
    monkeypatch.setattr(ray_engine, "Worker", lambda folder: folders.append(folder))
    engine = RayEngine(None, None)
    engine._start(1)
    assert folders == [os.getcwd()] == [str(tmp_path)] and len(played.started) == 1
