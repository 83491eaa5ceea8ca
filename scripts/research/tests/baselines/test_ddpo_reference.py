"""DDPO against a second implementation, written from the papers' equations alone.

Black et al. 2023 (arXiv 2305.13301) and DDIM (Song et al. 2021, arXiv 2010.02502), in double
precision, with diffusers' own encoding of prompts and call of the network. What it shares with ours
is the first weights, the prompts, and the noise.
"""

import math

import numpy as np
import pytest
import torch

from baselines import ddpo
from baselines.base import plain_backend
from baselines.ddpo import DdpoConfig, OnePreference, RunState, balanced, encoded, iterate
from baselines.policy import Policy, denoising_chain
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig

PROMPTS = ["red apple", "pizza"]
PREFERENCE = np.array([0.3, 0.7])
CONFIG = DdpoConfig(
    batch_size=6,
    minibatch=3,
    inner_epochs=2,
    learning_rate=1e-2,
    clip=1e-3,
    history=5,
    least=4,  # of the 3 that a prompt gets in an iteration: the first compares with the batch
    num_inference_steps=4,
    guidance_scale=2.0,
    lora=LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "convolution")),
)
ITERATIONS = 2


class Reference:
    """Denoising as a decision process (section 4.3): the action of step t is x_{t-1}, drawn from
    N(mu_theta(x_t, c), sigma_t^2), and the reward comes with x_0."""

    def __init__(self, backend):
        self.pipe, self.unet = backend.pipe, backend.pipe.unet
        scheduler = backend.pipe.scheduler
        self.parameters = dict(backend.named_parameters())
        self.unet.double().eval()
        self.states = [
            backend.pipe.encode_prompt([prompt, ""], "cpu", 1, False)[0].double()
            for prompt in PROMPTS
        ]
        self.rewards = {prompt: [] for prompt in range(len(PROMPTS))}
        total, steps = scheduler.config.num_train_timesteps, CONFIG.num_inference_steps
        signal = scheduler.alphas_cumprod.double().tolist()
        self.steps = []  # (t, alpha, alpha', sigma): from x_t, of signal alpha, to alpha'
        for i in range(steps):
            t = total - 1 - i * total // steps
            alpha, after = signal[t], signal[t - total // steps] if i < steps - 1 else 1.0
            variance = (1 - after) / (1 - alpha) * (1 - alpha / after)  # DDIM, eq. 16, eta = 1
            self.steps.append((t, alpha, after, math.sqrt(variance)))

    def gaussian(self, x, prompts, step):
        """What step draws from; DDIM, eq. 12, of the velocity that the network predicts."""
        t, alpha, after, sigma = step
        times = torch.full((len(x),), t)
        given, empty = torch.stack([self.states[p] for p in prompts]).unbind(1)
        with self.pipe.with_adapter():  # whose LoRA is part of the policy
            conditional = self.unet(x, times, given).sample
            unconditional = self.unet(x, times, empty).sample
        w = CONFIG.guidance_scale
        velocity = w * conditional + (1 - w) * unconditional
        x0 = alpha**0.5 * x - (1 - alpha) ** 0.5 * velocity
        noise = alpha**0.5 * velocity + (1 - alpha) ** 0.5 * x
        rest = max(0.0, 1 - after - sigma**2) ** 0.5
        return torch.distributions.Normal(after**0.5 * x0 + rest * noise, max(sigma, 1e-300))

    def log_prob(self, x, action, prompts, step):
        """By the mean over the pixels, which the authors' clip range is for."""
        return self.gaussian(x, prompts, step).log_prob(action).flatten(1).mean(1)

    @torch.no_grad()
    def sample(self, prompts, generator):
        x = torch.randn(len(prompts), 4, 8, 8, generator=generator).double()
        states, log_probs = [x], []
        for step in self.steps:
            noise = torch.randn(x.shape, generator=generator).double()
            action = self.gaussian(x, prompts, step).mean + step[3] * noise
            if step[3]:
                log_probs.append(self.log_prob(x, action, prompts, step))
            states.append(action)
            x = action
        return states, log_probs

    def advantages(self, prompts, rewards):
        """Appendix: rewards normalised by the running statistics of their prompt, those of the
        batch until there are enough."""
        for prompt, reward in zip(prompts, rewards, strict=True):
            self.rewards[prompt] = [*self.rewards[prompt], reward][-CONFIG.history :]
        found = []
        for prompt, reward in zip(prompts, rewards, strict=True):
            known = self.rewards[prompt]
            known = known if len(known) >= CONFIG.least else rewards
            mean = sum(known) / len(known)
            std = math.sqrt(sum((one - mean) ** 2 for one in known) / len(known))
            found.append((reward - mean) / (std + 1e-6))
        return found

    def gradient(self, weights, states, log_probs, prompts, advantages):
        """Of the clipped, importance-weighted objective (eq. 5 with PPO's clipping) of these
        chains under the policy of these weights, to be minimised; and how many ratios left the
        clip range."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        loss, clipped = 0.0, 0
        deciding = [t for t, step in enumerate(self.steps) if step[3]]
        for i, prompt in enumerate(prompts):
            for t in deciding:
                before, action = states[t][i : i + 1], states[t + 1][i : i + 1]
                new = self.log_prob(before, action, [prompt], self.steps[t])[0]
                ratio = torch.exp(new - log_probs[t][i])
                low, high = 1 - CONFIG.clip, 1 + CONFIG.clip
                gain = min(ratio * advantages[i], ratio.clamp(low, high) * advantages[i])
                loss = loss - gain / (len(prompts) * len(deciding))
                clipped += not low <= ratio.item() <= high
        gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        return dict(zip(self.parameters, gradients, strict=True)), clipped


def rewards_of(latents):
    """Something smooth in place of pictures, which are rounded: z (N, 2)."""
    latents = latents.double()
    return torch.stack([latents.mean(dim=(1, 2, 3)), latents[:, 0].square().mean((1, 2))], 1)


@pytest.fixture
def backend(model, space):
    settings = DiffusionConfig(lora=CONFIG.lora, base_precision="fp32")
    return lambda: plain_backend(model, space, settings, seed=5, device="cpu")


@pytest.fixture
def recorded(backend, space, monkeypatch):
    """Our iterations: the weights and the gradient of every update, and the log."""
    ours = backend()
    pipe, parameters = ours.pipe, dict(ours.named_parameters())
    pipe.denoiser.eval()
    optimizer = torch.optim.AdamW(parameters.values(), lr=CONFIG.learning_rate, weight_decay=0.0)
    history = np.full((len(PROMPTS), CONFIG.history), np.nan)
    state, updates, step = RunState(parameters, optimizer, history=history), [], ddpo._step

    def recording(state, config):
        updates.append(
            {
                "weights": {k: p.detach().clone() for k, p in parameters.items()},
                "gradient": {k: p.grad.clone() for k, p in parameters.items()},
            }
        )
        step(state, config)

    monkeypatch.setattr(ddpo, "_step", recording)
    monkeypatch.setattr(ddpo, "decoded", lambda pipe, latents, size: latents)
    monkeypatch.setattr(ddpo, "z_of", lambda latents, *given: rewards_of(latents).numpy())
    task = OnePreference(
        pipe=pipe,
        policy=Policy(
            pipe=pipe,
            chain=denoising_chain(pipe.scheduler, CONFIG.num_inference_steps, CONFIG.eta),
            empty=encoded(pipe, [""]),
            guidance_scale=CONFIG.guidance_scale,
            batch_size=4,
            precision="fp32",
        ),
        config=CONFIG,
        space=space,
        prompts=PROMPTS,
        scorers=[],
        preference=PREFERENCE,
    )
    log = []
    for state.step in range(ITERATIONS):
        log.append(iterate(task, state))
    return updates, log


def test_the_gradients_are_those_of_the_second_implementation(backend, recorded):
    updates, log = recorded
    reference, updates = Reference(backend()), iter(updates)
    for iteration, line in enumerate(log):
        rng = np.random.default_rng([CONFIG.seed, iteration])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        prompts = balanced(len(PROMPTS), CONFIG.batch_size, rng).tolist()
        update = next(updates)
        with torch.no_grad():
            for name, parameter in reference.parameters.items():
                parameter.copy_(update["weights"][name])
        states, log_probs = reference.sample(prompts, generator)
        rewards = (rewards_of(states[-1]) @ torch.tensor(PREFERENCE)).tolist()
        assert line["reward"] == pytest.approx(sum(rewards) / len(rewards), rel=1e-5)
        advantages = reference.advantages(prompts, rewards)
        clipped, count = 0, 0
        for _ in range(CONFIG.inner_epochs):
            order = torch.randperm(len(prompts), generator=generator)
            for rows in order.split(CONFIG.minibatch):
                update = next(updates) if count else update
                expected, outside = reference.gradient(
                    update["weights"],
                    [x[rows] for x in states],
                    [p[rows] for p in log_probs],
                    [prompts[i] for i in rows],
                    [advantages[i] for i in rows],
                )
                found = update["gradient"]
                scale = max(one.abs().max() for one in expected.values())
                assert scale > 0
                for name, gradient in expected.items():
                    difference = (found[name] - gradient).abs().max()
                    assert difference < 1e-4 * scale, (iteration, count, name)
                clipped += outside
                count += 1
        decisions = len(reference.steps) - 1
        assert line["clipped"] == pytest.approx(
            clipped / (CONFIG.inner_epochs * len(prompts) * decisions)
        )
        assert 0 < line["clipped"] < 1  # both branches of the objective were used
    assert next(updates, None) is None
