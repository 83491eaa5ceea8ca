"""Responses to prompts by the model itself, as a folder that can be labelled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ric_diffusion.data.responses import write_responses
from ric_diffusion.io.bounds import MOST_SEED, check_count
from ric_diffusion.io.config import digest
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.protocol import Sampler

VERB = "scripts/sample_responses.py"  # in run.json


@dataclass(frozen=True, kw_only=True)
class ResponseRequest:
    """One response to be drawn; the model reads ``hint`` behind the prompt."""

    sampler: str
    prompt: str
    hint: str
    seed: int

    @property
    def asked(self) -> str:
        return f"{self.prompt} {self.hint}".strip()


def self_sample(
    samplers: Mapping[str, Sampler],
    prompts: Sequence[str],
    out: Path,
    *,
    per_prompt: int,
    hints: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
    source: Mapping[str, Any],
) -> int:
    """Have a model respond to every prompt, ``per_prompt`` times with each of its samplers, which
    differ in temperature; returns how many responses are in ``out``.

    The model reads ``hints`` behind its prompts, in turn, and they are not recorded with them: left
    to itself a model responds too much alike for its rewards to spread. The columns ``sampler``,
    ``hint`` and ``seed`` tell how a response came about, ``cost.json`` what all of them cost.

    Every batch is journalled. Called again after an interruption it goes on, if it is called with
    the same, and with the same ``source``, which identifies the samplers; else InputError names
    what differs.
    """
    if per_prompt < 1:
        raise InputError(f"per_prompt is {per_prompt}; give 1 or more")
    check_count("seed", seed, MOST_SEED - per_prompt + 1, least=0)
    requests = _requests(list(samplers), prompts, hints, per_prompt=per_prompt, seed=seed)
    RunFolder(out, VERB).begin(
        {
            "source": source,
            "samplers": list(samplers),
            "prompts": digest(list(prompts)),
            "hints": digest(list(hints)),
            "per_prompt": per_prompt,
            "seed": seed,
        }
    )
    meter = Meter(_spent(out / COST))
    networks = {sampler.network() for sampler in samplers.values()}
    with closing(Journal(out, "responses")) as journal:
        found = {
            entry["first"] + i: response
            for entry in journal.entries()
            for i, response in enumerate(entry["responses"])
        }
        with (
            meter.running(*networks),
            tracking("respond", len(requests), unit="response", initial=len(found)) as progress,
        ):
            while len(found) < len(requests):
                first = next(i for i in range(len(requests)) if i not in found)
                part = _batch(requests, first, batch_size)
                responses = samplers[part[0].sampler].sample(
                    [request.asked for request in part],
                    [{}] * len(part),
                    [request.seed for request in part],
                )
                # Before the responses: a batch that is lost costs, too.
                write_json(out / COST, meter.read().to_dict())
                journal.append({"first": first, "responses": responses})
                found |= dict(enumerate(responses, start=first))
                progress.advance(len(part))
    return write_responses(
        [(request.prompt, found[i]) for i, request in enumerate(requests)],
        out,
        [{"sampler": r.sampler, "hint": r.hint, "seed": r.seed} for r in requests],
    )


def _requests(
    samplers: Sequence[str],
    prompts: Sequence[str],
    hints: Sequence[str],
    *,
    per_prompt: int,
    seed: int,
) -> list[ResponseRequest]:
    """All prompts in each turn of each sampler; a prompt has another hint in every turn."""
    hints = list(hints) or [""]
    turns = [(name, number) for name in samplers for number in range(per_prompt)]
    return [
        ResponseRequest(
            sampler=name, prompt=prompt, hint=hints[(turn + i) % len(hints)], seed=seed + number
        )
        for turn, (name, number) in enumerate(turns)
        for i, prompt in enumerate(prompts)
    ]


def _batch(requests: Sequence[ResponseRequest], first: int, size: int) -> Sequence[ResponseRequest]:
    """Requests of one sampler, from number ``first`` on."""
    part = requests[first : first + size]
    return [request for request in part if request.sampler == part[0].sampler]


def _spent(path: Path) -> Cost:
    return Cost.from_dict(json.loads(path.read_text())) if path.exists() else Cost()
