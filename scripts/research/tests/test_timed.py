"""Training by the clock: shares of the minutes, steps that fit into them."""

import time
from dataclasses import replace

import pytest
import torch

import timed
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.training.schedule import learning_rate
from timed import Clock, TimedPhase, seconds_per_step, steps_within

PHASE = TimedPhase(share=1.0, batch_size=4, learning_rate=0.1, warmup=0.1, average=0.1)


class Slow:
    """A step takes ``seconds``."""

    buckets = None

    def __init__(self, seconds=0.0):
        self.numbers, self.seconds, self.steps = torch.nn.Parameter(torch.zeros(3)), seconds, 0

    def named_parameters(self):
        return {"numbers": self.numbers}

    def loss(self, batch):
        self.steps += 1
        time.sleep(self.seconds)
        return (self.numbers - 1).square().mean()


@pytest.mark.parametrize("steps", [1000, 4000, 16000])
def test_the_rate_depends_on_the_fraction_of_the_time_alone(steps):
    loop = PHASE.loop(steps)
    rates = [learning_rate(loop, int(part * steps)) for part in (0.05, 0.1, 0.55, 0.775)]
    assert rates == pytest.approx([0.05, 0.1, 0.05, 0.1 * (1 - 0.5**0.5) / 2], rel=0.1)
    assert learning_rate(loop, steps - 1) < 0.001
    assert loop.ema == pytest.approx(1 - 1 / (0.1 * steps))
    assert loop.batch_size == 4 and loop.trackers == ()


def test_a_phase_of_one_step():
    loop = PHASE.loop(1)
    assert loop.ema == 0.0 and learning_rate(loop, 0) == 0.1


@pytest.mark.parametrize(
    "wrong, said", [({"share": 0}, "share is 0"), ({"warmup": 1.0}, "warmup is 1.0; give 0 or")]
)
def test_a_phase_that_cannot_be(wrong, said):
    given = {"share": 1, "batch_size": 4, "learning_rate": 0.1} | wrong
    with pytest.raises(InputError, match=said):
        config.from_dict(given, TimedPhase, "x.yaml")


def test_steps_are_as_many_as_fit_and_change_no_weight():
    trainer = Slow(0.01)
    begun = time.monotonic()
    steps = steps_within(trainer, 8, PHASE, 1.0)
    measuring = time.monotonic() - begun
    assert not trainer.numbers.any()  # though it was trained to find out
    assert timed.WARMING < trainer.steps <= timed.WARMING + timed.MEASURED
    assert 0.25 < measuring + 0.01 * steps <= 1.0  # a busy machine makes a step longer


def test_one_step_at_least_however_short_the_time():
    trainer = Slow()
    assert steps_within(trainer, 8, PHASE, 0.0) == 1
    assert trainer.steps == timed.WARMING + 1


def test_a_step_that_fails_leaves_the_weights_as_they_were():
    trainer = Slow()
    trainer.loss = lambda batch: (trainer.numbers * float("nan")).mean()
    with pytest.raises(FloatingPointError):
        seconds_per_step(trainer, 8, replace(PHASE, learning_rate=1.0), 0.0)
    assert torch.equal(trainer.numbers, torch.zeros(3))


def test_what_is_late_takes_from_all_that_comes_after_it(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(2.0, {"first": 1.0, "second": 2.0, "rest": 1.0})
    assert clock.seconds("first") == 30.0
    now[0] += 60.0
    assert clock.spent == 60.0
    assert clock.seconds("second") == 40.0 and clock.seconds("rest") == 60.0
    now[0] += 61.0
    assert clock.seconds("rest") == 0.0
