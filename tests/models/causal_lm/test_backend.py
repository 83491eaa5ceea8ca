"""The backend of language models: what is trained, on what, and that it repeats."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.conditioning.encoder import as_values
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.models import hardware
from ric_diffusion.models.causal_lm import backend as module
from ric_diffusion.models.causal_lm.backend import LlmBackend, LlmConfig, LlmLora
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import token_losses
from ric_diffusion.models.cost import Meter
from ric_diffusion.models.protocol import Backend, Batch
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

MODES = ("embedding", "text")
NONE = Dropout(prompt=0.0, everything=0.0, reward=0.0)
TARGETS = [{"positivity": 1.5}, {"brevity": -1.0}]


@pytest.fixture
def ready(make_backend, texts, tmp_path):
    """A backend by mode and settings, prepared on the ten responses."""
    folder, records = texts

    def make(mode="embedding", **settings) -> Backend:
        backend = make_backend(mode, **settings)
        backend.prepare(records, folder, tmp_path / "cache")
        return backend

    return make


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora": {"rank": 0}}, "lora: rank is 0; give 1 or more"),
        ({"lora": {"alpha": -4}}, "lora: alpha is -4.0; give a number above 0"),
        ({"dropout": {"reward": 2}}, "dropout: reward is 2.0; give 0 to 1"),
        ({"sampling": {"top_p": 0}}, "sampling: top_p is 0.0; give more than 0, at most 1"),
        ({"sampling": {"response_tokens": 4.5}}, "response_tokens: 4.5 is not a whole number"),
    ],
)
def test_settings_that_train_nothing_are_one_line(given, said):
    with pytest.raises(InputError) as error:
        from_dict(given, LlmConfig, "c.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


def batch(seed=0, indices=range(10)):
    return Batch(indices=tuple(indices), generator=torch.Generator().manual_seed(seed))


def snapshot(backend):
    return [p.detach().clone() for p in backend.named_parameters().values()]


@pytest.mark.parametrize("mode", MODES)
def test_training_brings_the_loss_down(ready, mode, tmp_path):
    backend = ready(mode, dropout=NONE)
    before = backend.loss(batch()).item()
    loop = LoopConfig(precision="fp32", steps=30, batch_size=5, learning_rate=1e-2, ema=0.0)
    Trainer(backend, 10, loop,
        tmp_path / "run", digest="x").run()  # fmt: skip
    assert backend.loss(batch()).item() < 0.7 * before


@pytest.mark.parametrize("modulation", [True, False])
def test_generation_hears_what_training_heard(ready, stir, monkeypatch, modulation):
    """Step by step with a cache or all at once, a response has the same logits, steered or not."""
    backend = stir(ready("embedding", modulation=modulation))
    assert (backend.adapter.encoder.steering is not None) == modulation
    found, asked, prompts = [], [{"positivity": 1.5}], ["tell me about the sea."]
    backend.lm.model.register_forward_hook(lambda *call: found.append(call[-1].logits[0]))

    def logits(do, *given):
        found.clear()
        with torch.no_grad():
            do(*given)
        return torch.cat(found)

    def losses(target):
        token_losses(backend.lm, prompts, [target], [""], backend.settings)

    stepwise = logits(backend.sample, prompts, asked, [0])
    said = stepwise.argmax(dim=1).tolist()  # what is read of its text may be other tokens
    assert len(said) > 3
    monkeypatch.setattr(backend.lm.chat, "response", lambda text, limit: said)
    at_once, auto = logits(losses, asked[0]), logits(losses, {})
    assert stepwise.allclose(at_once, atol=1e-4) and not stepwise.allclose(auto, atol=0.1)


def test_steering_is_scaled_from_where_all_is_on_auto(ready, stir):
    backend = stir(ready("embedding"))
    steer, asked = backend.adapter.conditioner.steering, [{"positivity": 1.5}, {}]
    plain, double, none = (steer(asked, strength) for strength in (1.0, 2.0, 0.0))
    auto = steer([{}])
    assert torch.allclose(double - auto, 2 * (plain - auto), atol=1e-5)
    for same in (none[0], none[1], plain[1]):
        assert torch.allclose(same, auto[0], atol=1e-5)
    said = {}
    for strength in (1.0, 40.0):
        backend.sampling = {**backend.sampling, "steering": strength}
        said[strength] = backend.sample(["why?"] * 2, asked, [0, 0])
    assert said[1.0][1] == said[40.0][1] and said[1.0][0] != said[40.0][0]


@pytest.mark.parametrize(("has", "found"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_device_computes_in(ready, monkeypatch, has, found):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: has)
    backend = ready("text", dtype="auto")
    assert backend.config.dtype == found and backend.lm.model.dtype == getattr(torch, found)
    config = LlmConfig(dtype="auto")
    own, precision = backend.lm.family.resolved(config, "fp32", "cpu")
    assert (own, precision) == (replace(config, dtype=found), "fp32")


def test_bfloat16_that_the_device_does_not_have_is_obeyed_with_a_warning(monkeypatch, caplog):
    hardware._warn_of_slow_bf16.cache_clear()
    monkeypatch.setattr(hardware, "has_bf16", lambda device: False)
    config = LlmConfig(dtype="bfloat16")
    assert config.resolved("cpu") == config
    assert "dtype: bf16 is not in this cpu's hardware" in caplog.text
    assert "leave dtype out, or write auto" in caplog.text


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_of_the_frozen_weights_alone(ready, mode, tmp_path, model):
    """It trains as well, and its adapter goes with a model of any precision."""
    backend = ready(mode, dropout=NONE, dtype="bfloat16")
    assert {p.dtype for p in backend.named_parameters().values()} == {torch.float32}
    frozen = [p for p in backend.lm.model.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    before = backend.loss(batch()).item()
    loop = LoopConfig(precision="fp32", steps=30, batch_size=5, learning_rate=1e-2, ema=0.0)
    Trainer(backend, 10, loop,
        tmp_path / "run", digest="x").run()  # fmt: skip
    after = backend.loss(batch()).item()
    assert after < 0.7 * before
    backend.save(tmp_path / "adapter")
    losses = []
    for dtype in (torch.bfloat16, torch.float32):
        lm = RiCCausalLM.from_pretrained(str(model), dtype)
        lm.load_adapter(tmp_path / "adapter")
        other = LlmBackend(lm, backend.config)
        other.records, other.responses, other.z = backend.records, backend.responses, backend.z
        losses.append(other.loss(batch()).item())
        assert len(other.sample(["how?"], [{"brevity": 1.0}], [0])) == 1
    assert losses[0] == pytest.approx(after, rel=5e-3)
    assert losses[1] == pytest.approx(after, rel=0.05)


def test_it_learns_to_do_what_rewards_ask(make_backend, tmp_path):
    """Two responses to one prompt that only the reward tells apart, and where they end."""
    backend = make_backend("embedding", dropout=NONE, lora=LlmLora(rank=8, alpha=16))
    records = []
    for i, text in enumerate(["good", "bad bad"]):
        (tmp_path / f"{i}.txt").write_text(text)
        scores = {"positivity": 0.8 - 1.6 * i, "brevity": -20.0}
        records.append(module.Record(file=f"{i}.txt", captions=("why?",), scores=scores))
    backend.prepare(records, tmp_path, tmp_path)
    loop = LoopConfig(precision="fp32", steps=150, batch_size=2, learning_rate=1e-2, ema=0.0)
    Trainer(backend, 2, loop,
        tmp_path / "run", digest="x").run()  # fmt: skip
    asked = [{"positivity": z, "brevity": 0.0} for z in (2.0, -2.0)]  # auto is not trained here
    said = backend.sample(["why?"] * 2, asked, [0, 0])
    assert said == ["good", "bad bad"]


@pytest.mark.parametrize("mode", MODES)
def test_training_repeats_bit_for_bit(ready, mode, tmp_path):
    for run in ("a", "b"):
        torch.manual_seed(ord(run))  # nobody may draw from the global generator
        np.random.seed(ord(run))
        backend = ready(mode)
        Trainer(
            backend,
            10,
            LoopConfig(precision="fp32", steps=3, batch_size=4),
            tmp_path / run,
            digest="x",
        ).run()
        backend.save(tmp_path / run / "adapter")
    for file in (tmp_path / "a" / "adapter").glob("*.safetensors"):
        one, other = load_file(file), load_file(tmp_path / "b" / "adapter" / file.name)
        assert one.keys() == other.keys() and len(one) > 4
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_seed_draws_the_first_weights(make_backend):
    state = torch.random.get_rng_state()
    one, same, other = (snapshot(make_backend(seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("mode", MODES)
def test_only_lora_and_encoder_learn(ready, stir, mode):
    backend = stir(ready(mode))
    backend.loss(batch()).backward()
    for name, p in backend.lm.model.named_parameters():
        assert (p.grad is not None) == p.requires_grad == ("lora_" in name), name
    assert not any("lm_head" in n for n, p in backend.lm.model.named_parameters() if "lora_" in n)
    encoder = dict(backend.adapter.conditioner.named_parameters())
    assert bool(encoder) == (mode == "embedding")
    assert len(list(backend.named_parameters().values())) == 2 * 7 * 2 + len(encoder)
    assert all(
        p.grad.isfinite().all() and p.grad.abs().sum() > 0
        for p in backend.named_parameters().values()
    )


def test_the_loss_is_that_of_the_response_alone(ready, texts):
    """Against each sequence by itself, from the tokens of the model's own template."""
    backend = ready("text", dropout=NONE)
    folder, records = texts
    lm, total, count = backend.lm, 0.0, 0
    for record, z in zip(records, backend.targets(range(len(records))), strict=True):
        text = backend.adapter.conditioner.grammar.format(record.captions[0], z)
        turn = [{"role": "user", "content": text}]
        start = lm.tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
        turn.append({"role": "assistant", "content": (folder / record.file).read_text()})
        ids = lm.tokenizer.apply_chat_template(turn)["input_ids"]
        with torch.no_grad():
            log_p = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert ids[: len(start)] == start and ids[-1] == lm.chat.end
        for i in range(len(start), len(ids)):
            total -= log_p[i - 1, ids[i]].item()
            count += 1
    assert backend.loss(batch()).item() == pytest.approx(total / count, rel=1e-5)


def test_prompts_and_targets_are_the_records(ready, monkeypatch, texts, space):
    backend = ready(dropout=NONE)
    _, records = texts
    seen = []
    monkeypatch.setattr(
        module, "token_losses", lambda lm, *asked: seen.append(asked) or [torch.zeros(1)]
    )
    backend.loss(batch(indices=[3, 0]))
    ((prompts, targets, responses, _),) = seen
    assert prompts == [records[i].captions[0] for i in (3, 0)]
    assert responses == ["yes\nno", "a wonderful cake!"]
    wanted = space.normalize([[records[i].scores[n] for n in space.names] for i in (3, 0)])
    assert np.allclose(as_values(targets, space.names).numpy(), wanted, atol=1e-5)


def test_left_out_rewards_are_auto(ready):
    backend = ready(dropout=Dropout(prompt=0.0, everything=0.0, reward=1.0))
    (own,) = token_losses(
        backend.lm, ["how do i bake a cake?"], [{}], ["a wonderful cake!"], backend.settings
    )
    assert backend.loss(batch(indices=[0])).item() == pytest.approx(own.mean().item(), rel=1e-5)


def test_nothing_to_train_on_is_refused(make_backend, texts, tmp_path):
    with pytest.raises(InputError, match="no records are left to train on") as error:
        make_backend("text").prepare([], texts[0], tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_without_adapter_is_no_backend(lm):
    with pytest.raises(InputError, match="no adapter"):
        LlmBackend(lm)


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_goes_on_where_it_was(ready, stir, mode, tmp_path):
    backend = stir(ready(mode))
    backend.save(tmp_path / "adapter")
    other = ready(mode, seed=7)
    other.load(tmp_path / "adapter")
    ours, theirs = snapshot(backend), snapshot(other)
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(p.requires_grad for p in other.named_parameters().values())
    assert torch.equal(backend.loss(batch()), other.loss(batch()))
    prompts = ["why?"] * 2
    said = backend.sample(prompts, TARGETS, [0, 1])
    assert said == other.sample(prompts, TARGETS, [0, 1])
    lm = RiCCausalLM.from_pretrained(backend.adapter.base_model)
    lm.load_adapter(tmp_path / "adapter")
    assert LlmBackend(lm).sample(prompts, TARGETS, [0, 1]) == said


OTHERS = {
    "rank": {"lora": LlmLora(rank=2, alpha=8)},
    "alpha": {"lora": LlmLora(rank=4, alpha=4)},
    "mode": {"mode": "text"},
    "mapping": {"mapping": "linear"},
    "sampling": {"sampling": Sampling(temperature=0.0, prompt_tokens=48, response_tokens=23)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_adapter_of_another_shape_is_not_loaded(make_backend, adapters, name):
    backend = make_backend(**OTHERS[name])
    before, adapter = snapshot(backend), backend.adapter
    with pytest.raises(InputError) as error:
        backend.load(adapters["embedding"])
    assert "\n" not in str(error.value)
    assert backend.adapter is adapter is backend.lm.adapter
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(backend), strict=True))


def test_a_loaded_adapter_brings_its_statistics(ready, stir, model, tmp_path):
    backend = ready("text")
    rng = np.random.default_rng(1)
    wide = RewardSpace.fit({n: rng.normal(0, 40, 50) for n in backend.adapter.space.names})
    LlmBackend.create(str(model), wide, backend.config).save(tmp_path / "wide")
    before = backend.z
    backend.load(tmp_path / "wide")
    assert backend.adapter.space == wide and not np.array_equal(backend.z, before)


def test_everything_that_learns_is_on_the_device(model, space, make_backend):
    backend = LlmBackend.create(str(model), space, make_backend().config, device="meta")
    assert {p.device.type for p in backend.named_parameters().values()} == {"meta"}


def test_bf16_is_nearly_the_same_loss(ready):
    backend = ready()
    exact = backend.loss(batch()).item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = backend.loss(batch())
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(exact, rel=0.05)


def test_passes_through_the_network_are_counted(ready):
    backend, meter = ready(), Meter()
    with meter.running(backend.network()):
        backend.loss(batch())
    assert meter.read().forwards == 30
    with meter.running(backend.network()):
        backend.sample(["why?"] * 2, TARGETS, [0, 0])
    assert 32 <= meter.read().forwards <= 30 + 2 * backend.settings.response_tokens


def test_samples_on_disk(ready, tmp_path):
    backend = ready()
    for text in ("plain", "two\r\nlines\n", "naïve café 🙂", ""):
        backend.medium.write(text, tmp_path / "a.txt")
        assert backend.medium.read(tmp_path / "a.txt") == text
    assert backend.medium.suffix == ".txt"
    assert (
        backend.medium.reject_reason(" \n") == "empty"
        and backend.medium.reject_reason("yes") is None
    )
    assert backend.medium.digest("a") == backend.medium.digest("a") != backend.medium.digest("b")


def test_features_tell_texts_apart(ready):
    features = ready().features(["the sea is blue", "the sea is blue", "the sea is red", "no", ""])
    assert features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1)
    cosines = features @ features.T
    assert cosines[0, 1] == pytest.approx(1)
    assert 0.3 < cosines[0, 2] < 0.9
    assert cosines[0, 3] == cosines[0, 4] == cosines[3, 4] == 0


def test_prompts_are_kept_by_the_base_models_likelihood(ready, stir, lm):
    backend = stir(ready())
    prompts = ["why?", "how do i bake a cake?", "tell me about the sea."]
    samples = ["the sea", "because", "with eggs, flour and sugar."]
    errors = np.array(
        [
            [token_losses(lm, [p], [{}], [s], backend.settings)[0].mean().item() for p in prompts]
            for s in samples
        ]
    )
    wanted = [(errors[i, i] < np.delete(errors[i], i)).mean() for i in range(3)]
    found = backend.prompt_r_precision(prompts, samples)
    assert found.tolist() == wanted
    with backend.lm.without_adapter():
        likelihood = backend.log_likelihood(prompts, samples)
    assert np.allclose(likelihood, -np.diag(errors), atol=1e-5)
    assert backend.prompt_r_precision(["why?"] * 2, samples[:2]).shape == (2,)
