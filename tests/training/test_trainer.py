"""The trainer does the arithmetic it says it does: against one written out in numpy."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ric_diffusion.io.progress import reporting
from ric_diffusion.training.figures import summary
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.optimizers import OptimizerConfig
from ric_diffusion.training.schedule import Batches, ema_decay, learning_rate
from ric_diffusion.training.trainer import Trainer

BASE = LoopConfig(
    steps=30,
    batch_size=6,
    learning_rate=0.05,
    warmup=4,
    optimizer=OptimizerConfig(arguments={"weight_decay": 0.1}),
    ema=0.9,
    log_every=1,
    precision="fp32",
)


def config(**changes) -> LoopConfig:
    return dataclasses.replace(BASE, **changes)


def train(toy, out, settings, **backend):
    model = toy.Toy(**backend)
    Trainer(model, toy.COUNT, settings, out, digest="d").run()
    return model


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def by_hand(model, count, settings, until=None):
    """AdamW (Loshchilov & Hutter 2019, algorithm 2), clipping and the average, in float64.

    The run, or its steps before ``until``. Returns the parameters, their average, the losses and
    the gradients' norms.
    """
    x, y = model.x.double().numpy(), model.y.double().numpy()
    theta = model.values().double().numpy()
    average, m, v = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    beta1, beta2 = 0.9, 0.999
    weight_decay = settings.optimizer.arguments["weight_decay"]
    losses, norms = [], []
    batches = Batches(settings, np.zeros(count))
    for step in range(until or settings.steps):
        rows = [
            i
            for a in range(settings.accumulate)
            for i in batches.indices(step * settings.accumulate + a)
        ]
        error = x[rows] @ theta[:-1] + theta[-1] - y[rows]
        losses.append(float((error**2).mean()))
        grad = 2 * np.append(error @ x[rows], error.sum()) / len(rows)
        norms.append(float(np.linalg.norm(grad)))
        grad *= min(1.0, settings.max_grad_norm / norms[-1])
        rate = learning_rate(settings, step)
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        theta = theta * (1 - rate * weight_decay)
        m_hat, v_hat = m / (1 - beta1 ** (step + 1)), v / (1 - beta2 ** (step + 1))
        theta = theta - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
        decay = ema_decay(settings, step)
        average = decay * average + (1 - decay) * theta
    return theta, average, losses, norms


@pytest.mark.parametrize("accumulate", [1, 3])
def test_parameters_average_and_losses_are_right(toy, tmp_path, accumulate):
    settings = config(max_grad_norm=2.0, accumulate=accumulate)
    _, average, losses, norms = by_hand(toy.Toy(), toy.COUNT, settings)
    assert min(norms) < 2.0 < max(norms)  # clipped at times, and at times not
    model = train(toy, tmp_path, settings)
    assert model.values().numpy() == pytest.approx(average, abs=1e-5)
    log = log_of(tmp_path)
    assert [line["step"] for line in log] == list(range(1, 31))
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-4)
    assert [line["gradient_norm"] for line in log] == pytest.approx(norms, rel=1e-4)
    rates = [learning_rate(settings, step) for step in range(30)]
    assert [line["learning_rate"] for line in log] == pytest.approx(rates)


def test_no_average_leaves_the_trained_parameters(toy, tmp_path):
    settings = config(ema=0.0)
    theta, *_ = by_hand(toy.Toy(), toy.COUNT, settings)
    assert train(toy, tmp_path, settings).values().numpy() == pytest.approx(theta, abs=1e-5)


def test_clipping_changes_the_run(toy, tmp_path):
    free, tight = config(max_grad_norm=1e9), config(max_grad_norm=0.5)
    a, b = train(toy, tmp_path / "a", free).values(), train(toy, tmp_path / "b", tight).values()
    assert (a - b).abs().max() > 1e-4
    assert b.numpy() == pytest.approx(by_hand(toy.Toy(), toy.COUNT, tight)[1], abs=1e-5)


def test_in_buckets_every_record_of_an_epoch_weighs_the_same(toy, tmp_path):
    """An epoch as one step: its gradient is that of all records at once, though the last batch of a
    bucket is smaller than the others."""
    model, whole = toy.Toy(), toy.Toy()
    model.buckets = np.arange(toy.COUNT) % 3 // 2  # 16 and 7: batches of 5, 5, 5, 1, 5, 2
    settings = config(steps=1, warmup=1, batch_size=5, accumulate=6, max_grad_norm=1e9)
    trainer = Trainer(model, toy.COUNT, settings, tmp_path, digest="d")
    trainer._backward()
    assert sorted(map(len, model.batches)) == [1, 2, 5, 5, 5, 5]
    error = whole.x @ whole.w - whole.y + whole.b
    (error.square().sum() / 30).backward()
    assert torch.allclose(model.w.grad, whole.w.grad, atol=1e-6)


def test_accumulating_equals_a_bigger_batch(toy, tmp_path):
    small = train(toy, tmp_path / "small", config(batch_size=2, accumulate=4))
    big = train(toy, tmp_path / "big", config(batch_size=8))
    assert small.calls == 4 * big.calls
    assert small.values().numpy() == pytest.approx(big.values().numpy(), abs=1e-6)
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("small", "big")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_log_line_is_the_mean_since_the_last(toy, tmp_path):
    train(toy, tmp_path / "each", config(steps=8))
    train(toy, tmp_path / "some", config(steps=8, log_every=3))
    each = [line["loss"] for line in log_of(tmp_path / "each")]
    some = log_of(tmp_path / "some")
    assert [line["step"] for line in some] == [3, 6, 8]  # the last step always has its line
    means = [np.mean(each[:3]), np.mean(each[3:6]), np.mean(each[6:])]
    assert [line["loss"] for line in some] == pytest.approx(means)


def test_losses_are_logged_by_quarter_of_the_noise_levels(toy, tmp_path):
    settings = config(steps=4, log_every=4, batch_size=3, learning_rate=1e-9)  # nothing moves
    train(toy, tmp_path, settings)
    model, by_quarter = toy.Toy(), {}
    batches = Batches(settings, np.zeros(toy.COUNT))
    for micro in range(4):
        for row in batches.indices(micro):
            error = model.x[row] @ model.w - model.y[row]
            by_quarter.setdefault(4 * row // toy.COUNT, []).append(float(error.detach() ** 2))
    names = ("0_25", "25_50", "50_75", "75_100")
    (line,) = log_of(tmp_path)
    found = {name: line.get(f"loss_noise_{name}") for name in names}
    wanted = {name: np.mean(by_quarter[i]) for i, name in enumerate(names) if i in by_quarter}
    assert {name: value for name, value in found.items() if value} == pytest.approx(wanted, 1e-4)
    assert "loss_noise_50_75" not in line  # there was no sample


def test_how_fast_it_was_stands_beside_the_log(toy, tmp_path):
    train(toy, tmp_path, config(steps=5, log_every=2))
    lines = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert all(line["samples_per_second"] > 0 and line["memory_gib"] > 0.05 for line in lines)


def test_one_seed_one_run(toy, tmp_path):
    runs = [
        train(toy, tmp_path / str(i), config(seed=seed), noise=0.3).values()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    logs = [(tmp_path / str(i) / "log.jsonl").read_bytes() for i in range(3)]
    assert logs[0] == logs[1] != logs[2]


def test_global_randomness_has_no_say(toy, tmp_path):
    torch.manual_seed(3)
    a = train(toy, tmp_path / "a", config(), noise=0.3).values()
    torch.manual_seed(4)
    assert torch.equal(a, train(toy, tmp_path / "b", config(), noise=0.3).values())


def test_bf16_computes_in_half_and_keeps_full(toy, tmp_path):
    full = train(toy, tmp_path / "full", config())
    half = train(toy, tmp_path / "half", config(precision="bf16"))
    assert {p.dtype for p in half.named_parameters().values()} == {torch.float32}
    difference = (full.values() - half.values()).abs().max()
    assert 0 < difference < 0.05
    assert all(math.isfinite(line["loss"]) for line in log_of(tmp_path / "half"))


def test_precision_is_each_runs_own(toy, tmp_path):
    # accelerate keeps one precision for a process; a run must not inherit it from the last one.
    a = train(toy, tmp_path / "a", config()).values()
    train(toy, tmp_path / "b", config(precision="bf16"))
    assert torch.equal(a, train(toy, tmp_path / "c", config()).values())


def test_validation_sees_the_average_and_training_does_not(toy, tmp_path):
    model, seen = toy.Toy(), []
    settings = config(steps=10, validate_every=4)

    def validate(step):
        seen.append((step, model.values()))
        return {}

    Trainer(model, toy.COUNT, settings, tmp_path, digest="d", validate=validate).run()
    assert [step for step, _ in seen] == [4, 8]
    for step, values in seen:
        _, average, *_ = by_hand(toy.Toy(), toy.COUNT, settings, until=step)
        assert values.numpy() == pytest.approx(average, abs=1e-5)
    plain = train(toy, tmp_path / "plain", config(steps=10))
    assert torch.equal(model.values(), plain.values())


def test_one_step_at_a_time_is_the_run(toy, tmp_path):
    whole = train(toy, tmp_path / "whole", config(), noise=0.3)
    model = toy.Toy(noise=0.3)
    trainer = Trainer(model, toy.COUNT, config(), tmp_path / "steps", digest="d")
    losses = [trainer.step() for _ in range(config().steps)]
    assert (
        losses
        == [line["loss"] for line in log_of(tmp_path / "whole")]
        == [figures.loss for figures in trainer.state.since_log]
    )
    trained = model.values()
    with trainer.averaged():
        assert torch.equal(model.values(), whole.values())
    assert torch.equal(model.values(), trained) and not torch.equal(trained, whole.values())


def test_progress_is_told_to_whoever_listens(toy, tmp_path, capsys):
    told = []
    with reporting(told.append):
        train(toy, tmp_path, config(steps=3, warmup=0))
    assert [(p.stage, p.done, p.total, p.unit) for p in told] == [
        ("train", done, 3, "step") for done in range(4)
    ]
    assert capsys.readouterr().err == ""


def test_the_bar_shows_the_loss(toy, tmp_path, capsys):
    train(toy, tmp_path, config(steps=3, warmup=0))
    last = log_of(tmp_path)[-1]["loss"]
    assert f"loss={last:.4f}" in capsys.readouterr().err.split("\r")[-1]


@pytest.fixture
def fp16(monkeypatch):
    """Settings that compute in float16. They are refused on a CPU, where that is of no use, but can
    be computed there."""
    monkeypatch.setattr(LoopConfig, "resolved", lambda self, device: self)
    return config(precision="fp16", steps=4, learning_rate=0.01, warmup=0, ema=0.0)


def test_in_fp16_no_gradient_vanishes(toy, tmp_path, fp16):
    """Float16 has no number between 0 and 6e-8."""
    found = []
    for precision in ("fp16", "fp32"):
        model = toy.Toy(on_loss=lambda calls: 1e-7)
        settings = dataclasses.replace(fp16, precision=precision)
        Trainer(model, toy.COUNT, settings, tmp_path / precision, digest="d").run()
        found.append(model.values() - toy.Toy().values())
    assert found[1].abs().max() > 0.02
    assert torch.allclose(*found, atol=1e-4)


def test_in_fp16_a_step_that_overflows_is_left_out(toy, tmp_path, fp16):
    model = toy.Toy(on_loss=lambda calls: 1e4 if calls == 2 else 1e-3)
    trainer = Trainer(model, toy.COUNT, fp16, tmp_path, digest="d")
    values, scales = [], []
    for _ in range(4):
        trainer.step()
        values.append(model.values())
        scales.append(trainer.state.scaler.get_scale())
    assert torch.equal(values[0], values[1]) and not torch.equal(values[1], values[2])
    assert scales == [2.0**16, 2.0**15, 2.0**15, 2.0**15] and trainer.state.step == 4
    trainer.save()
    again = toy.Toy(on_loss=lambda calls: 1e-3)
    resumed = Trainer(again, toy.COUNT, fp16, tmp_path, digest="d", resume=True)
    assert trainer.step() == resumed.step()
    assert resumed.state.scaler.get_scale() == 2.0**15
    assert torch.equal(again.values(), model.values())


def test_in_fp16_gradients_that_never_are_numbers_end_the_run(toy, tmp_path, fp16):
    model = toy.Toy(on_loss=lambda calls: 1e20)
    settings = dataclasses.replace(fp16, steps=40)
    with pytest.raises(FloatingPointError, match=r"gradient is .* at step 19, as in the 2 b"):
        Trainer(model, toy.COUNT, settings, tmp_path, digest="d").run()
    assert torch.equal(model.values(), toy.Toy().values())


def test_a_run_does_not_end_with_a_loss_that_is_no_number(toy, tmp_path):
    """However few steps it has been: what it has trained may be of no use."""
    settings = config(steps=3, warmup=0, checkpoint_minutes=0.0)
    model = toy.Toy(on_loss=lambda calls: math.nan if calls == 3 else None)
    with pytest.raises(FloatingPointError, match="at the last step: what is trained is finite"):
        Trainer(model, toy.COUNT, settings, tmp_path, digest="d").run()
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert "step-2" in kept and "step-3" not in kept


@pytest.mark.parametrize("spoiled", [3, 4])
def test_few_losses_that_are_no_numbers_are_left_out(toy, tmp_path, caplog, spoiled):
    """A step of NaN changes no parameter, counts as a step, and no figure of it is logged."""
    settings = config(steps=8, log_every=8, warmup=0, schedule="constant", checkpoint_minutes=0.0)
    model = toy.Toy(on_loss=lambda calls: math.nan if calls in (spoiled, spoiled + 1) else None)
    trainer = Trainer(model, toy.COUNT, settings, tmp_path, digest="d")
    values = []
    for _ in range(settings.steps):
        trainer.step()
        values.append(model.values())
    same = [torch.equal(a, b) for a, b in pairwise(values)]
    assert [i + 2 for i, equal in enumerate(same) if equal] == [spoiled, spoiled + 1]
    assert f"loss is nan at step {spoiled}, which is left out" in caplog.text
    left_out = trainer.state.since_log[spoiled - 1]
    assert left_out.loss is None and left_out.gradient_norm is None and not any(left_out.counts)
    assert len(trainer.state.since_log) == 8
    figures = summary(trainer.state.since_log)
    assert math.isfinite(figures["loss"]) and math.isfinite(figures["loss_noise_0_25"])


def test_weights_in_training_that_are_no_numbers_are_named(toy, tmp_path):
    model = toy.Toy()
    with torch.no_grad():
        model.w[2] = math.inf
    trainer = Trainer(model, toy.COUNT, BASE, tmp_path, digest="d")
    with pytest.raises(FloatingPointError, match=r"at step 2, as .*: w, which is trained, is not"):
        trainer.run()
