"""A run that was stopped, anywhere and however, ends as if it never had been."""

import dataclasses
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ric_diffusion.io import signals
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.manifest import DamagedError, check_manifest, write_manifest
from ric_diffusion.io.signals import Stopped
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

CONFIG = LoopConfig(
    steps=40,
    batch_size=4,
    accumulate=2,
    learning_rate=0.05,
    warmup=5,
    ema=0.95,
    log_every=7,
    precision="fp32",
    checkpoint_minutes=0.0,  # after every step
)


@dataclasses.dataclass
class Ran:
    """What a run leaves behind."""

    values: torch.Tensor
    state: dict[str, torch.Tensor]
    log: bytes

    def __eq__(self, other):
        return (
            torch.equal(self.values, other.values)
            and self.state.keys() == other.state.keys()
            and all(torch.equal(t, other.state[name]) for name, t in self.state.items())
            and self.log == other.log
        )


def run(toy, out, config=CONFIG, *, resume=False, digest="toy", **backend):
    model = toy.Toy(**{"noise": 0.3, **backend})
    Trainer(model, toy.COUNT, config, out, digest=digest, resume=resume).run()
    state = load_file(checkpoint.newest(out / "checkpoints") / "state.safetensors")
    return Ran(model.values(), state, (out / "log.jsonl").read_bytes())


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The run that nobody stopped."""
    return run(toy, tmp_path_factory.mktemp("whole"))


def stop_at(call, error=KeyboardInterrupt):
    def on_loss(calls):
        if calls == call:
            raise error

    return on_loss


def test_whole_run_stores_all_it_carries(whole):
    moments = ("step", "exp_avg", "exp_avg_sq")
    assert whole.state.keys() == {
        f"{section}.{name}" for section in ("parameter", "average") for name in ("w", "b")
    } | {f"optimizer.{name}.{moment}" for name in ("w", "b") for moment in moments}
    assert torch.equal(whole.values[:-1], whole.state["average.w"])
    assert not torch.equal(whole.state["parameter.w"], whole.state["average.w"])


@pytest.mark.parametrize("call", [2, 15, 16, 29, 79])  # at times between two micro-batches
def test_stopped_and_resumed(toy, tmp_path, whole, call):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(call))
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_stopped_time_and_again(toy, tmp_path, whole):
    for call in (3, 8, 1, 30, 12):  # of the process, not of the run
        with pytest.raises(KeyboardInterrupt):
            run(toy, tmp_path / "out", resume=True, on_loss=stop_at(call))
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_log_ahead_of_the_checkpoint(toy, tmp_path, whole, monkeypatch):
    # Checkpoints come by the clock: what was logged since the last one is done again.
    save = checkpoint.save

    def seldom(folder, state, *, digest, cost):
        if state.step in (10, 40):
            save(folder, state, digest=digest, cost=cost)

    monkeypatch.setattr(checkpoint, "save", seldom)
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(60))
    logged = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [7, 14, 21, 28]
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_stopped_after_the_last_step(toy, tmp_path, whole):
    run(toy, tmp_path / "out")
    again = run(toy, tmp_path / "out", resume=True, on_loss=stop_at(1))  # nothing is left to do
    assert again == whole


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_resumed(toy, start, tmp_path, whole):
    out = tmp_path / "out"
    given = {"config": dataclasses.asdict(CONFIG), "noise": 0.3, "delay": 0.02}
    process = start(out, given)
    deadline = time.monotonic() + 120
    while process.poll() is None and steps_done(out) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    assert 12 <= steps_done(out) < 40
    assert run(toy, out, resume=True) == whole


def steps_done(out):
    last = checkpoint.newest(out / "checkpoints")
    return int(last.name.removeprefix("step-")) if last else 0


def test_another_runs_checkpoint_is_refused(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path, on_loss=stop_at(20))
    before = contents(tmp_path)
    with pytest.raises(InputError, match="other settings or data") as caught:
        run(toy, tmp_path, resume=True, digest="another")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_without_resume_a_run_starts_over(toy, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(20))
    assert run(toy, tmp_path / "out") == whole


def test_torn_checkpoint_is_ignored(toy, tmp_path, whole):
    # What a killed process leaves: its temporary folder, under the hidden name it had.
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(20))
    torn = tmp_path / "out" / "checkpoints" / ".tmp-1-00000000-step-39"
    torn.mkdir()
    (torn / "state.safetensors").write_bytes(b"\x40\x00")
    (tmp_path / "out" / "checkpoints" / "step-39.old").mkdir()
    assert checkpoint.newest(tmp_path / "out" / "checkpoints").name == "step-9"
    assert run(toy, tmp_path / "out", resume=True) == whole
    assert not torn.exists()


def test_the_newest_two_are_kept(toy, tmp_path):
    seen = set()

    def look(calls):
        folder = tmp_path / "checkpoints"
        if folder.exists():
            seen.add(tuple(sorted(os.listdir(folder), key=len)))

    run(toy, tmp_path, on_loss=look)
    steps = [frozenset(int(name.removeprefix("step-")) for name in names) for names in seen]
    assert set(steps) == {frozenset({1}), *(frozenset({n, n + 1}) for n in range(1, 39))}
    assert set(os.listdir(tmp_path / "checkpoints")) == {"step-39", "step-40"}


def damage(path, position=-9):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json", None])
def test_a_damaged_one_is_named_and_the_one_before_is_read(toy, tmp_path, whole, caplog, file):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(40))
    last = checkpoint.newest(tmp_path / "out" / "checkpoints")
    if file is None:
        (last / "state.json").unlink()
    else:
        damage(last / file)
    assert run(toy, tmp_path / "out", resume=True) == whole
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(last) in line and line.endswith("going on from the checkpoint before")


def test_no_other_is_left(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path, on_loss=stop_at(40))
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path / "state.safetensors")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"state.safetensors: is damaged; .* to begin anew$"):
        run(toy, tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_every_flipped_bit_is_noticed(toy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path, on_loss=stop_at(40))
    folder = checkpoint.newest(tmp_path / "checkpoints")
    names = ["state.safetensors", "state.json"]
    check_manifest(folder, names)
    rng = np.random.default_rng(0)
    for name in [*names, "manifest.json"]:
        path, whole_file = folder / name, (folder / name).read_bytes()
        # Whether a manifest is written with one line more says nothing of the files.
        spaces = {i for i, byte in enumerate(whole_file) if chr(byte).isspace()}
        places = [i for i in range(len(whole_file)) if name != "manifest.json" or i not in spaces]
        for position in rng.choice(places, 40):
            data = bytearray(whole_file)
            data[position] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            with pytest.raises(DamagedError, match=r"is damaged|is missing"):
                check_manifest(folder, names)
        path.write_bytes(whole_file[:-40])
        with pytest.raises(DamagedError, match="is damaged"):
            check_manifest(folder, names)
        path.write_bytes(whole_file)
    check_manifest(folder, names)


ASKING = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture
def heard():
    """The signals as in a terminal, where nothing ignores them, as a shell's background jobs do."""
    before = {number: signal.getsignal(number) for number in signals.ASKING}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("name", ASKING)
def test_asked_to_stop(toy, tmp_path, whole, name, heard):
    """The step is finished, a checkpoint is written, and nothing is lost."""
    number, before = getattr(signal, name), signal.getsignal(getattr(signal, name))

    def ask(calls):
        if calls == 25:  # in the middle of step 12
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as caught:
        run(toy, tmp_path / "out", on_loss=ask)
    assert caught.value.number == number
    assert str(caught.value) == "stopped after step 14, of which there is a checkpoint"
    assert steps_done(tmp_path / "out") == 14
    assert signal.getsignal(number) == before
    assert run(toy, tmp_path / "out", resume=True) == whole


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_asked_twice(toy, tmp_path, whole, heard):
    """The second time, there is no waiting for the step."""

    def ask(calls):
        if calls == 25:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        run(toy, tmp_path / "out", on_loss=ask)
    assert str(caught.value) == "" and steps_done(tmp_path / "out") == 12
    assert run(toy, tmp_path / "out", resume=True) == whole


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_asked_in_the_last_step(toy, tmp_path, whole, heard):
    def ask(calls):
        if calls == 80:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="after step 40"):
        run(toy, tmp_path / "out", on_loss=ask)
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_in_a_thread_there_are_no_signals(toy, tmp_path, whole):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(toy, tmp_path / "out")))
    thread.start()
    thread.join()
    assert found == [whole]


def test_newest_counts_steps_rather_than_letters(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    for name in ("step-9", "step-10", "step-100x", "other", "step-"):
        (tmp_path / name).mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-10"


def test_torn_log_line_is_dropped(toy, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(60))
    with (tmp_path / "out" / "log.jsonl").open("a") as file:
        file.write('{"step": 29, "lo')
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_log_is_never_half_rewritten(toy, tmp_path, monkeypatch):
    # A kill while a resumed run shortens the log must not cost the lines before.
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path, on_loss=stop_at(60))
    before = (tmp_path / "log.jsonl").read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("ric_diffusion.io.files.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        run(toy, tmp_path, resume=True)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_nan_loss_stops_the_run_and_spares_the_checkpoint(toy, tmp_path, whole):
    def poison(calls):
        return torch.tensor(float("nan")) if calls >= 25 else None

    with pytest.raises(FloatingPointError) as caught:
        run(toy, tmp_path / "out", on_loss=poison)
    assert str(caught.value) == (
        "loss is nan at step 14, as in the 2 before: what is trained is finite, so the model's own "
        "weights are not, or overflow on this data; use fp32, or fetch the model again"
    )
    assert steps_done(tmp_path / "out") == 12
    assert run(toy, tmp_path / "out", resume=True) == whole


def test_nan_gradient_of_a_finite_loss_likewise(toy, tmp_path, whole):
    # Without a look at the gradient, step 12 would put NaN into parameters, average and checkpoint.
    class Breaks(toy.Toy):
        def loss(self, batch):
            found = super().loss(batch)
            return Spoil.apply(found) if self.calls >= 25 else found

    model = Breaks(noise=0.3)
    with pytest.raises(FloatingPointError, match=r"^gradient is nan at step 14, .* overflows on"):
        Trainer(model, toy.COUNT, CONFIG, tmp_path / "out", digest="toy").run()
    assert steps_done(tmp_path / "out") == 12
    assert run(toy, tmp_path / "out", resume=True) == whole


class Spoil(torch.autograd.Function):
    """The identity, with NaN for a gradient."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


def stored_otherwise(toy, tmp_path, change):
    """A run that was stopped, with ``change(tensors)`` done to its checkpoint."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(toy, out, on_loss=stop_at(20))
    file = checkpoint.newest(out / "checkpoints") / "state.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    write_manifest(file.parent, [file.name, "state.json"])
    return out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("parameter.w"), "parameter w is missing"),
        (lambda t: t.pop("average.b"), "average b is missing"),
        (lambda t: t.update({"parameter.v": torch.ones(1)}), "parameter v is none of this model's"),
        (
            lambda t: t.update({"parameter.w": torch.ones(7)}),
            r"parameter w has the shape \(7,\), here \(5,\)",
        ),
        (
            lambda t: t.update({"optimizer.b.exp_avg": torch.ones(7)}),
            r"optimizer\.b\.exp_avg fits no parameter",
        ),
        (lambda t: t.update({"optimizer.v.step": torch.ones(())}), "fits no parameter"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(toy, tmp_path, change, told):
    out = stored_otherwise(toy, tmp_path, change)
    before, model = contents(out), toy.Toy(noise=0.3)
    untouched = model.values()
    with pytest.raises(InputError, match=rf"step-9: stored for another model: .*{told}") as error:
        Trainer(model, toy.COUNT, CONFIG, out, digest="toy", resume=True)
    assert "\n" not in str(error.value)
    assert contents(out) == before and torch.equal(model.values(), untouched)


def test_parameters_are_restored_by_name_whatever_their_order(toy, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "out", on_loss=stop_at(20))

    class Reversed(toy.Toy):
        def named_parameters(self):
            return {"b": self.b, "w": self.w}

    model = Reversed(noise=0.3)
    trainer = Trainer(model, toy.COUNT, CONFIG, tmp_path / "out", digest="toy", resume=True)
    assert trainer.state.step == 9
    trainer.run()
    assert model.values().numpy() == pytest.approx(whole.values.numpy(), abs=1e-6)


def test_names_that_begin_alike_are_told_apart():
    parameters = {name: torch.nn.Parameter(torch.ones(2)) for name in ("a", "a.b", "a.b.exp_avg")}
    optimizer = torch.optim.AdamW(parameters.values())
    for i, parameter in enumerate(parameters.values()):
        parameter.grad = torch.full((2,), float(i + 1))
    optimizer.step()
    tensors = checkpoint.State(parameters, optimizer).tensors()
    other = torch.optim.AdamW(parameters.values())
    checkpoint.State(parameters, other).restore(tensors)
    for parameter in parameters.values():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(other.state[parameter][key], value)
