"""What a step depends on: its records, its noise, its learning rate, the decay of the average."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_scheduler

from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.rates import ENDLESS, Schedule
from ric_diffusion.training.schedule import (
    Batches,
    batch_generator,
    ema_decay,
    learning_rate,
    micro_batches,
)


def config(**values) -> LoopConfig:
    return LoopConfig(**{"steps": 100, "batch_size": 4, **values})


def batch_indices(config, count, micro):
    """Of records in one bucket."""
    return Batches(config, np.zeros(count)).indices(micro)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation_across_its_borders(count, batch_size, seed):
    one = config(batch_size=batch_size, seed=seed)
    epochs = 4
    micros = -(-epochs * count // batch_size)
    stream = [i for micro in range(micros) for i in batch_indices(one, count, micro)]
    assert len(stream) == micros * batch_size
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_no_micro_batch_needs_the_ones_before_it():
    one = config(batch_size=7)
    forwards = [batch_indices(one, 23, micro) for micro in range(40)]
    backwards = [batch_indices(one, 23, micro) for micro in reversed(range(40))]
    assert forwards == backwards[::-1]
    np.random.seed(1)  # global randomness has no say
    torch.manual_seed(1)
    assert batch_indices(one, 23, 39) == forwards[39]


def test_epochs_and_seeds_differ():
    stream = [batch_indices(config(batch_size=50, seed=s), 50, e) for s in (0, 1) for e in (0, 1)]
    assert len(set(stream)) == 4


def test_processes_share_out_the_records():
    # One step of 3 processes with 2 micro-batches each is one step of a single process with 6.
    one = config(batch_size=4)
    alone = [batch_indices(one, 24, micro) for micro in range(6)]
    shared = [
        [
            batch_indices(one, 24, micro)
            for micro in micro_batches(
                config(batch_size=4, accumulate=2), 0, process=rank, processes=3
            )
        ]
        for rank in range(3)
    ]
    seen = [set().union(*map(set, batches)) for batches in shared]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert set().union(*seen) == set(range(24))
    assert sorted(b for batches in shared for b in batches) == sorted(alone)


def test_generator_is_named_by_seed_and_micro_batch():
    def draw(seed, micro):
        return tuple(torch.rand(3, generator=batch_generator(config(seed=seed), micro)).tolist())

    assert draw(0, 5) == draw(0, 5)
    assert len({draw(seed, micro) for seed in (0, 1, 2) for micro in range(20)}) == 60


def test_warm_up_then_cosine_to_nothing():
    one = config(steps=110, warmup=10, learning_rate=2.0)
    assert [learning_rate(one, step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate(one, 10) == pytest.approx(2.0)
    assert learning_rate(one, 35) == pytest.approx(2.0 * (1 + math.sqrt(0.5)) / 2)  # a quarter
    assert learning_rate(one, 60) == pytest.approx(1.0)
    assert learning_rate(one, 110) == pytest.approx(0.0, abs=1e-12)
    rates = [learning_rate(one, step) for step in range(111)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_constant_after_warm_up():
    one = config(warmup=2, learning_rate=3.0, schedule="constant")
    assert [learning_rate(one, step) for step in (0, 1, 2, 50, 99)] == [1.5, 3.0, 3.0, 3.0, 3.0]


def test_no_warm_up_starts_at_full_rate():
    assert learning_rate(config(learning_rate=1.0), 0) == 1.0


def test_warm_up_as_long_as_the_run():
    one = config(steps=5, warmup=5, learning_rate=1.0)
    assert [learning_rate(one, step) for step in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )


@pytest.mark.parametrize("name", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_schedules_are_to_the_bit_what_they_always_were(name, warmup):
    one = config(steps=97, warmup=warmup, learning_rate=3e-4, schedule=name)

    def before(step):
        if step < warmup:
            return 3e-4 * (step + 1) / warmup
        if name == "constant":
            return 3e-4
        done = (step - warmup) / max(1, 97 - warmup)
        return 3e-4 * 0.5 * (1.0 + math.cos(math.pi * done))

    assert [learning_rate(one, step) for step in range(97)] == [before(s) for s in range(97)]


ARGUMENTS = {
    "constant_with_warmup": {},
    "linear": {},
    "cosine_with_restarts": {"num_cycles": 3},
    "cosine_with_min_lr": {"min_lr": 0.1},
    "polynomial": {"lr_end": 0.05, "power": 2.0},
    "inverse_sqrt": {"timescale": 20},
    "warmup_stable_decay": {"num_decay_steps": 15, "decay_type": "1-sqrt"},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_behind_the_warm_up_every_schedule_is_transformers_own(name):
    one = config(
        steps=60, warmup=10, learning_rate=0.5, schedule=name, schedule_arguments=ARGUMENTS[name]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(name, optimizer, 10, 60, scheduler_specific_kwargs=ARGUMENTS[name])
    wanted = []
    for _ in range(60):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    found = [learning_rate(one, step) for step in reversed(range(60))][::-1]
    assert found[10:] == pytest.approx(wanted[10:], rel=1e-12)
    assert found[:10] == pytest.approx([0.5 * (step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"schedule": "cosin"}, "'cosin' is not one of the choices; did you mean 'cosine'"),
        ({"schedule": "reduce_lr_on_plateau"}, "is not one of the choices"),
        (
            {"schedule": "polynomial", "schedule_arguments": {"powr": 2}},
            "schedule_arguments.powr: polynomial has no such argument; did you mean 'power'?",
        ),
        (
            {"schedule": "constant", "schedule_arguments": {"power": 2}},
            "schedule_arguments.power: constant has no such argument",
        ),
        ({"schedule": "cosine_with_min_lr"}, "schedule_arguments do not suit cosine_with_min_lr ("),
        (
            {"schedule": "warmup_stable_decay"},
            "schedule_arguments do not suit warmup_stable_decay (",
        ),
        (
            {"schedule": "polynomial", "schedule_arguments": {"lr_end": 9.0}},
            "schedule_arguments do not suit polynomial (lr_end (9.0) must be smaller",
        ),
    ],
)
def test_a_schedule_that_there_is_not_is_one_line(given, told):
    with pytest.raises(InputError) as error:
        from_dict({"steps": 100, "batch_size": 1, **given}, LoopConfig, "c.yaml")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_average_forgets_faster_at_the_start():
    one = config(ema=0.99)
    assert ema_decay(one, 0) == pytest.approx(1 / 10)
    assert ema_decay(one, 1) == pytest.approx(2 / 11)
    assert ema_decay(one, 90) == pytest.approx(91 / 100)
    assert ema_decay(one, 10_000) == 0.99
    assert ema_decay(config(ema=0.0), 50) == 0.0


@pytest.mark.parametrize(
    "field, value",
    [
        ("steps", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("log_every", 0),
        ("warmup", -1),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("max_grad_norm", 0.0),
        ("checkpoint_minutes", -1.0),
        ("ema", 1.0),
        ("steps", 10**10),
        ("batch_size", 10**7),
        ("accumulate", 10**7),
        ("warmup", 2),
        ("seed", 2**63),
        ("learning_rate", 1e300),
    ],
)
def test_settings_that_train_nothing_are_refused(field, value):
    with pytest.raises(InputError, match=rf"c\.yaml: .*{field}"):
        from_dict({"steps": 1, "batch_size": 1, field: value}, LoopConfig, "c.yaml")


def test_an_epochs_order_is_drawn_once():
    for buckets in (np.zeros(100), np.arange(100) % 3):
        batches = Batches(config(), buckets)
        seen = [i for micro in range(batches.per_epoch) for i in batches.indices(micro)]
        assert sorted(seen) == list(range(100))
        assert batches._epoch.cache_info().misses == 1


BUCKETS = np.random.default_rng(3).choice(5, size=97, p=[0.5, 0.3, 0.15, 0.04, 0.01])


def test_every_record_is_seen_once_an_epoch_in_batches_of_one_bucket():
    batches, orders = Batches(config(batch_size=8), BUCKETS), []
    for epoch in range(3):
        micros = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        drawn = [batches.indices(micro) for micro in micros]
        assert all(len({BUCKETS[i] for i in batch}) == 1 for batch in drawn)
        assert sorted(i for batch in drawn for i in batch) == list(range(97))
        counts = np.bincount(BUCKETS)
        full = sum(len(batch) == 8 for batch in drawn)
        assert full == sum(counts // 8) and len(drawn) == sum(-(-counts // 8))
        orders.append([BUCKETS[batch[0]] for batch in drawn])
    assert orders[0] != orders[1] != sorted(orders[1])  # the buckets' batches are mixed, too


def test_a_batch_of_any_bucket_needs_none_before_it():
    forwards = [Batches(config(), BUCKETS).indices(micro) for micro in range(60)]
    one = Batches(config(), BUCKETS)
    assert [one.indices(micro) for micro in reversed(range(60))] == forwards[::-1]
    assert [Batches(config(seed=1), BUCKETS).indices(micro) for micro in range(60)] != forwards


def test_two_processes_together_pass_the_batches_of_one():
    batches = Batches(config(), BUCKETS)

    def passed(accumulate, process, processes):
        one = config(accumulate=accumulate)
        return [
            {
                batches.indices(m)
                for m in micro_batches(one, s, process=process, processes=processes)
            }
            for s in range(9)
        ]

    pairs = zip(passed(2, 0, 2), passed(2, 1, 2), strict=True)
    assert [a | b for a, b in pairs] == passed(4, 0, 1)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_a_longer_run_begins_alike_with_schedules_that_have_no_end(schedule):
    arguments = {
        "cosine_with_min_lr": {"min_lr": 1e-6},
        "warmup_stable_decay": {"num_decay_steps": 10},
    }.get(schedule, {})
    short, longer = (
        LoopConfig(
            steps=steps, batch_size=1, schedule=schedule, schedule_arguments=arguments, warmup=3
        )
        for steps in (20, 40)
    )
    rates = [[learning_rate(config, step) for step in range(20)] for config in (short, longer)]
    assert (rates[0] == rates[1]) is (schedule in ENDLESS)
