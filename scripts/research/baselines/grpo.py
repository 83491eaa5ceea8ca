"""Reinforcement learning of language models, one preference a run: TRL's GRPO (Shao et al. 2024,
arXiv 2402.03300) on the weighted z of several rewards, which makes it a MORLHF.

The algorithm is TRL's with its defaults (loss, scaling of the rewards by group, temperature 1).
Ours are the LoRA, the prompts, the rewards, and a folder that can be interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback

from baselines.base import Preference, plain_backend
from baselines.families import save_run
from ric_diffusion.adapters import lora
from ric_diffusion.data.scoring import scores_of
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.io.progress import Tracker, tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint
from ric_diffusion.training.log import Log

LOGGED = {
    "entropy": "entropy",
    "kl": "kl",
    "length": "completions/mean_length",
    "gradient": "grad_norm",
}


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """One step: ``groups`` prompts, ``group_size`` responses to each, one update on all of them,
    ``minibatch`` passed through the network at once.

    ``beta`` weighs the divergence from the base model, which costs one more pass per response; the
    default is what RiC's authors train their MORLHF with. Without it the responses to rewards as
    simple as a count of words are soon of a word. The rate stays the same, so that a run can be
    made longer.
    """

    steps: int = 100
    groups: int = 8
    group_size: int = 8
    minibatch: int = 16
    learning_rate: float = 1e-4
    beta: float = 0.2
    max_grad_norm: float = 1.0
    seed: int = 0
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        configs.at_least(self, 1, "steps", "groups", "minibatch")
        configs.at_least(self, 0, "beta")
        configs.at_least(self, 2, "group_size")  # a reward is compared with those of its group
        configs.above_zero(self, "learning_rate", "max_grad_norm")
        if self.responses % self.minibatch:
            raise ValueError(f"minibatch is {self.minibatch}; give a divisor of groups x group_size"
                             f" = {self.responses}")  # fmt: skip

    @property
    def responses(self) -> int:
        """Of one step."""
        return self.groups * self.group_size


def train_grpo(
    model: str,
    space: RewardSpace,
    preference: Preference,
    prompts: Sequence[str],
    scorers: Sequence[Any],
    llm: LlmConfig,
    config: GrpoConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train a LoRA for one preference; returns the cost. Of ``llm``, only what ``used`` leaves.

    Leaves the LoRA in ``out``, where ``lora_file`` says, ``log.jsonl`` with a line per step and
    ``cost.json``. ``resume`` goes on after an interruption, bit for bit, or with more ``steps``
    than before. InputError without TRL, for a model without a chat template, or if ``out`` holds
    another run.
    """
    check_trl()
    folder = RunFolder(out, "grpo")
    folder.check_free(resume=resume)
    weights, llm = weights_of(preference, space), used(llm)
    backend = plain_backend(model, space, llm, seed=config.seed, device=device)
    if backend.lm.tokenizer.chat_template is None:
        raise InputError(f"{model}: has no chat template, which GRPO renders its prompts with")
    settings = configs.to_dict(config)
    del settings["steps"], settings["checkpoint_minutes"]  # a run may be made longer
    folder.begin(
        {
            "grpo": settings,
            "llm": llm,
            "reward_space": configs.digest(space.to_dict()),
            "preference": dict(zip(space.names, weights.tolist(), strict=True)),
            "prompts": list(prompts),
            "weights": configs.digest(backend.model.family.digests(backend.model)),
        },
        resume=resume,
    )
    parameters = dict(backend.named_parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
    )
    state = checkpoint.State(parameters, optimizer)
    meter = Meter(checkpoint.resume(out / checkpoint.FOLDER, state, digest=folder.digest))
    run = _Run(config, state, meter, out, folder.digest, space.names)
    rewards = [
        Reward(backend, space, name, scorer)
        for name, scorer in zip(space.names, meter.metered(scorers), strict=True)
    ]
    if state.step < config.steps:
        # TRL draws from the global generators, which are as they were before afterwards.
        with meter.running(backend.network()), torch.random.fork_rng():
            _train(backend, rewards, weights, prompts, config, run)
    save_run(backend, out)
    write_json(out / COST, meter.read().to_dict())
    return meter.read()


def check_trl() -> None:
    """InputError where it is not installed."""
    if util.find_spec("trl") is None:
        raise InputError("GRPO needs trl, which is not installed; pip install -e '.[dev]'")


def used(llm: LlmConfig) -> LlmConfig:
    """What of a config matters here: what conditions on rewards does not, nor how it then draws."""
    sampling = Sampling(response_tokens=llm.sampling.response_tokens)
    return LlmConfig(dtype=llm.dtype, lora=llm.lora, sampling=sampling)


class Reward:
    """A scorer as TRL calls it: the z of what our own sampler would have made of a completion.

    An empty response, or one that the scorer has no number for, gets the lowest z of the batch:
    nothing at all is the briefest answer there is.
    """

    def __init__(self, backend: Any, space: RewardSpace, name: str, scorer: Any) -> None:
        self.backend, self.scorer = backend, scorer
        self.space = space.subset([name])
        self.__name__ = name  # TRL logs it under this

    def __call__(
        self, prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], **others: Any
    ) -> list[float]:
        asked = [turns[-1]["content"] for turns in prompts]
        texts = [self.backend.text_of(ids) for ids in completion_ids]
        z = self.space.normalize(scores_of(texts, asked, [self.scorer]), asked)[:, 0]
        rejected = np.array([self.backend.medium.reject_reason(text) is not None for text in texts])
        usable = ~rejected & np.isfinite(z)
        if not usable.any():
            raise FloatingPointError("every response is empty; lower the learning rate")
        z[~usable] = z[usable].min()
        found: list[float] = z.tolist()
        return found


class Reference(torch.nn.Module):
    """The network as it was before its LoRA, without a copy of it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Any) -> Any:
        with lora.disabled(self.network):
            return self.network(**inputs)


def order_of(count: int, size: int, seed: int) -> list[int]:
    """``size`` of ``count`` prompts by number: one seeded permutation after the other."""
    epochs = range(math.ceil(size / count))
    return np.concatenate(
        [np.random.default_rng([seed, epoch]).permutation(count) for epoch in epochs]
    )[:size].tolist()


def _train(
    backend: Any,
    rewards: Sequence[Reward],
    weights: np.ndarray,
    prompts: Sequence[str],
    config: GrpoConfig,
    run: _Run,
) -> None:
    """The steps that are left. They are a training of their own to TRL, on the prompts that are
    left, under an optimizer that knows what came before: so nothing of TRL's has to be stored."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    network, done = backend.lm.model, run.state.step
    network.is_quantized = False  # one that was unpacked from GGUF still says that it is
    # Where our sampler stops; TRL reads it from there.
    network.generation_config.eos_token_id = backend.lm.chat.stops
    order = order_of(len(prompts), config.steps * config.groups, config.seed)
    rows = [[{"role": "user", "content": prompts[i]}] for i in order[done * config.groups :]]
    settings = GRPOConfig(
        output_dir=str(run.out),
        max_steps=config.steps - done,
        per_device_train_batch_size=config.minibatch,
        gradient_accumulation_steps=config.responses // config.minibatch,
        num_generations=config.group_size,
        max_completion_length=backend.settings.response_tokens,
        reward_weights=weights.tolist(),
        shuffle_dataset=False,  # they are in order
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=network.device.type == "cpu",
        bf16=False,  # the network's own precision
        gradient_checkpointing=False,  # it would pass everything twice
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=network,
        reward_funcs=list(rewards),
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": rows}),
        processing_class=backend.lm.tokenizer,
        callbacks=[run],
        optimizers=(run.state.optimizer, None),
    )
    if config.beta:  # TRL would load the base model once more
        trainer.beta, trainer.ref_model = config.beta, Reference(network)
    trainer.remove_callback(PrinterCallback)
    with (
        Log(run.out, done) as run.log,
        tracking("grpo", config.steps, unit="step", initial=done) as run.progress,
    ):
        trainer.train()


class _Run(TrainerCallback):
    """Seeds each step, and keeps log and checkpoints; ``log`` and ``progress`` are open while it
    trains."""

    log: Log
    progress: Tracker

    def __init__(
        self,
        config: GrpoConfig,
        state: checkpoint.State,
        meter: Meter,
        out: Path,
        digest: str,
        names: Sequence[str],
    ) -> None:
        self.config, self.state, self.meter, self.names = config, state, meter, names
        self.out, self.digest = out, digest
        self.saved = time.monotonic()

    def on_step_begin(self, *given: Any, **others: Any) -> None:
        """All of a step's randomness comes from (seed, step)."""
        words = np.random.SeedSequence([self.config.seed, self.state.step])
        torch.manual_seed(int(words.generate_state(1, np.uint64)[0]) >> 1)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **others: Any
    ) -> None:
        """Once after each step, and once more at the end, without a reward."""
        if "reward" not in logs:
            return
        self.state.step += 1
        scalars = {"reward": logs["reward"]}
        scalars |= {f"z/{name}": logs[f"rewards/{name}/mean"] for name in self.names}
        scalars |= {name: float(logs[key]) for name, key in LOGGED.items() if key in logs}
        if not math.isfinite(scalars["gradient"]):
            raise FloatingPointError(
                f"gradient is {scalars['gradient']} in step {self.state.step}: lower the learning "
                "rate"
            )
        self.log(self.state.step, **scalars)
        self.progress.advance(1, reward=f"{scalars['reward']:.3f}")
        waited = time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes
        if waited or self.state.step == self.config.steps:
            folder = self.out / checkpoint.FOLDER
            checkpoint.save(folder, self.state, digest=self.digest, cost=self.meter.read())
            self.saved = time.monotonic()
