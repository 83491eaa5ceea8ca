"""The diffusion backend: what is trained, on what, and that it repeats."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.conditioning.captions import Captions
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Meter
from ric_diffusion.models.diffusion import backend as backend_module
from ric_diffusion.models.diffusion.arguments import NO_CLIP_SKIP
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.protocol import Backend, Batch
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

MODES = ("embedding", "text")
NONE = Dropout(prompt=0.0, everything=0.0, reward=0.0)
TARGETS = [{"colorfulness": 1.5}, {"compressibility": -1.0}]


@pytest.fixture
def ready(make_backend, pictures, tmp_path):
    """A backend by mode and settings, prepared on the twelve pictures."""
    folder, records = pictures

    def make(mode="embedding", **settings) -> Backend:
        backend = make_backend(mode, **settings)
        backend.prepare(records, folder, tmp_path / "cache")
        return backend

    return make


def batch(seed=0, indices=range(12)):
    return Batch(indices=tuple(indices), generator=torch.Generator().manual_seed(seed))


def snapshot(backend):
    return [p.detach().clone() for p in backend.named_parameters().values()]


@pytest.mark.parametrize("mode", MODES)
def test_training_brings_the_loss_down(ready, mode, tmp_path):
    backend = ready(mode, dropout=NONE)
    with torch.no_grad():
        before = float(np.mean([backend.loss(batch(seed)) for seed in range(2)]))
    loop = LoopConfig(
        precision="fp32", steps=30, batch_size=6, learning_rate=2e-2, warmup=3, ema=0.0
    )
    Trainer(backend, 12, loop, tmp_path / "run", digest="x").run()
    with torch.no_grad():
        after = float(np.mean([backend.loss(batch(seed)) for seed in range(2)]))
    assert after < 0.9 * before


@pytest.mark.parametrize("mode", MODES)
def test_training_repeats_bit_for_bit(ready, mode, tmp_path):
    for run in ("a", "b"):
        torch.manual_seed(ord(run))  # nobody may draw from the global generator
        np.random.seed(ord(run))
        backend = ready(mode, mirror=True)
        Trainer(
            backend,
            12,
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
def test_only_lora_and_encoder_learn(ready, mode):
    backend = ready(mode)
    backend.loss(batch()).backward()
    pipe = backend.pipe
    for name, p in pipe.unet.named_parameters():
        assert (p.grad is not None) == p.requires_grad == ("lora_" in name), name
        if "lora_B" in name:
            assert p.grad.abs().sum() > 0, name
    for part in (pipe.vae, pipe.text_encoder):
        assert not any(p.requires_grad or p.grad is not None for p in part.parameters())
    learned = {id(p) for p in backend.named_parameters().values()}
    lora = {id(p) for n, p in pipe.unet.named_parameters() if "lora_" in n}
    encoder = {id(p) for _, p in backend.adapter.conditioner.named_parameters()}
    assert learned == lora | encoder and bool(encoder) == (mode == "embedding")
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in backend.named_parameters().values()
    )


def test_a_new_adapter_changes_nothing_yet(make_backend, stock, draw):
    pipe = make_backend("text").pipe
    assert torch.allclose(draw(pipe), draw(stock, **pipe.adapter.sampling), atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_training_sees_the_context_that_inference_sees(ready, mode):
    backend = ready(mode)
    prompts = ["red apple " * 40, "blue <colorfulness> 9.9"]
    with torch.no_grad():
        found = backend.context(prompts, TARGETS).states
        assert torch.equal(found, backend.pipe.encode_context(prompts, TARGETS).states)
        assert torch.equal(found, backend.context(prompts, TARGETS).states)  # from memory


def test_the_memory_of_text_states_is_bounded(ready):
    backend = ready("text")
    backend.contexts.limit = 4 * backend.context(["apple"], [{}]).nbytes
    for i in range(20):
        prompts = [f"{i} apple", f"{i // 2} car"]
        with torch.no_grad():
            found = backend.context(prompts, TARGETS)
            wanted = backend.pipe.encode_context(prompts, TARGETS)
            assert torch.equal(found.states, wanted.states)
        assert len(backend.contexts.rows) <= 4
    assert len(backend.contexts.rows) >= 2


@pytest.mark.parametrize("mode", MODES)
def test_later_runs_read_what_text_encoders_said(ready, mode, tmp_path, monkeypatch):
    backend = ready(mode)
    wanted = [backend.loss(batch(seed)).item() for seed in range(3)]
    backend.save(tmp_path / "adapter")
    other = ready(mode)
    with monkeypatch.context() as patch:
        patch.setattr(type(FAMILY), "encode", None)
        assert [other.loss(batch(seed)).item() for seed in range(3)] == wanted


def test_text_states_are_in_the_encoders_precision_whatever_the_passes_are_in(ready):
    backend = ready()
    with torch.no_grad():
        wanted = backend.pipe.encode_context(["red apple"], [{}]).states
        with torch.autocast("cpu", torch.bfloat16):
            found = backend.context(["red apple"], [{}]).states
    assert torch.equal(found[:, : wanted.shape[1] - 2], wanted[:, :-2])


def test_scores_become_z_and_captions_prompts(ready, monkeypatch, pictures, space):
    """The loss is asked for exactly what the records say."""
    backend = ready("embedding", dropout=NONE, first_caption_probability=0.5)
    _, records = pictures
    seen = []
    monkeypatch.setattr(backend, "context", lambda *asked: seen.append(asked))
    nothing = SimpleNamespace(loss=lambda *given: torch.zeros(()))
    monkeypatch.setattr(backend, "objective", nothing)
    for seed in range(90):
        backend.loss(batch(seed))
    used = Counter()
    for prompts, targets in seen:
        for record, prompt, target in zip(records, prompts, targets, strict=True):
            assert prompt in record.captions
            used[record.file, prompt] += 1
            wanted = space.normalize([[record.scores[name] for name in space.names]])[0]
            assert list(target) == list(space.names)
            assert list(target.values()) == pytest.approx(wanted.tolist())
    assert all(used[record.file, caption] for record in records for caption in record.captions)
    three = [r for r in records if len(r.captions) == 3]
    first = sum(used[r.file, r.captions[0]] for r in three) / (90 * len(three))
    assert abs(first - (0.5 + 0.5 / 3)) < 0.1


@pytest.mark.parametrize(("probability", "count"), [(1.0, 1), (0.0, 3)])
def test_how_often_the_name_is_used(ready, probability, count):
    backend = ready(first_caption_probability=probability)
    draws = [(i / 10, j / 10) for i in range(10) for j in range(10)]
    assert len({backend._caption(2, d) for d in draws}) == count
    assert {backend._caption(0, d) for d in draws} == {"red apple"}


def test_a_picture_without_a_caption_is_trained_without_a_prompt(make_backend, pictures, tmp_path):
    folder, records = pictures
    backend = make_backend("text")
    backend.prepare([replace(records[0], captions=())], folder, tmp_path)
    assert backend.loss(batch(indices=[0, 0])).isfinite()


def test_mirror_images_and_resolution(make_backend, pictures, tmp_path):
    folder, records = pictures
    for mirror, views in ((True, 2), (False, 1)):
        backend = make_backend("text", mirror=mirror, resolution=32)
        backend.prepare(records, folder, tmp_path)
        assert backend.latents.views == views
        assert backend.latents.moments(range(12), [views - 1] * 12).shape == (12, 2, 4, 4, 4)
        assert backend.loss(batch()).isfinite()


def test_nothing_to_train_on_is_refused(make_backend, pictures, tmp_path):
    with pytest.raises(InputError, match="no records are left to train on") as error:
        make_backend("text").prepare([], pictures[0], tmp_path)
    assert "\n" not in str(error.value)


def test_a_pipeline_without_adapter_is_no_backend(pipe):
    with pytest.raises(InputError, match="no adapter"):
        DiffusionBackend(pipe)


@pytest.mark.parametrize("mode", MODES)
def test_each_sample_has_its_own_seed(ready, stir, mode):
    backend = stir(ready(mode))
    both = backend.sample(["red apple", "blue car"], TARGETS, [3, 4])
    (alone,) = backend.sample(["blue car"], TARGETS[1:], [4])
    assert [image.size for image in both] == [(64, 64)] * 2
    assert np.abs(np.asarray(both[1], int) - np.asarray(alone, int)).max() <= 1
    (other,) = backend.sample(["blue car"], TARGETS[1:], [5])
    assert np.abs(np.asarray(other, int) - np.asarray(alone, int)).max() > 1


def test_what_does_not_fit_into_memory_is_drawn_in_parts(ready, stir, monkeypatch):
    backend, counts = stir(ready()), []
    prompts, targets = ["red apple", "blue car", "apple"], [*TARGETS, {}]
    wanted = backend.sample(prompts, targets, [3, 4, 5])
    call = type(backend.pipe).__call__

    def small(self, prompt, **given):
        counts.append(len(prompt))
        if len(prompt) > 1:
            raise torch.OutOfMemoryError
        return call(self, prompt, **given)

    monkeypatch.setattr(type(backend.pipe), "__call__", small)
    found = backend.sample(prompts, targets, [3, 4, 5])
    assert counts == [3, 1, 1, 1]
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_a_loaded_adapter_can_be_sampled_from(adapters, pipe):
    pipe.load_adapter(adapters["embedding"])
    backend = DiffusionBackend(pipe)
    assert len(backend.sample(["red apple"], [{}], [0])) == 1


def test_a_loaded_adapter_samples_as_its_pipeline_does(make_backend, tmp_path):
    sampling = {"guidance_scale": 2.0, "num_inference_steps": 2, "contrast": 1.5}
    make_backend("embedding", sampling=sampling).save(tmp_path / "adapter")
    other = make_backend("embedding", sampling=sampling)
    other.load(tmp_path / "adapter")
    given = {"targets": TARGETS[:1], "generator": torch.Generator().manual_seed(0)}
    (wanted,) = other.pipe(["red apple"], **given, **sampling).images
    (found,) = other.sample(["red apple"], TARGETS[:1], [0])
    assert np.array_equal(found, wanted)


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
    for a, b in zip(
        backend.sample(["apple"] * 2, TARGETS, [0, 1]),
        other.sample(["apple"] * 2, TARGETS, [0, 1]),
        strict=True,
    ):
        assert np.array_equal(np.asarray(a), np.asarray(b))


OTHERS = {
    "layers": {"lora": LoraConfig(rank=4, alpha=8, targets=("attention",))},
    "rank": {
        "lora": LoraConfig(rank=2, alpha=8, targets=("attention", "feed_forward", "convolution"))
    },
    "alpha": {
        "lora": LoraConfig(rank=4, alpha=4, targets=("attention", "feed_forward", "convolution"))
    },
    "mode": {"mode": "text"},
    "mapping": {"mapping": "linear"},
    "sampling": {"sampling": {"guidance_scale": 3.0, "num_inference_steps": 3}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_adapter_of_another_shape_is_not_loaded(make_backend, adapters, name):
    backend = make_backend(**OTHERS[name])
    before, adapter = snapshot(backend), backend.adapter
    with pytest.raises(InputError) as error:
        backend.load(adapters["embedding"])
    assert "\n" not in str(error.value)
    assert backend.adapter is adapter is backend.pipe.adapter
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(backend), strict=True))


def test_an_adapter_of_other_rewards_is_not_loaded(model, adapters, make_backend, space):
    config = make_backend().config
    for names in (["compressibility", "colorfulness"], ["colorfulness"]):
        backend = FAMILY.create_backend(str(model), space.subset(names), config)
        with pytest.raises(InputError, match="colorfulness"):
            backend.load(adapters["embedding"])


def test_a_loaded_adapter_reads_scores_by_its_own_statistics(ready, stir, model, tmp_path, space):
    wide = RewardSpace.fit({n: np.linspace(0, 40, 50 + i)[:50] for i, n in enumerate(space.names)})
    backend = ready("text")
    other = FAMILY.create_backend(str(model), wide, backend.config)
    other.save(tmp_path / "wide")
    before = backend.z
    backend.load(tmp_path / "wide")
    assert backend.adapter.space == wide
    wanted = wide.normalize([list(r.scores.values()) for r in backend.records])
    assert np.array_equal(backend.z, wanted)
    assert not np.array_equal(backend.z, before)


def test_upstream_words_are_a_preset(make_backend, tmp_path):
    backend = make_backend("text", grammar="upstream")
    backend.save(tmp_path / "a")
    about = json.loads((tmp_path / "a" / "ric_adapter.json").read_text())
    assert about["conditioning"]["grammar"] == {
        "names": ["colorfulness", "compressibility"],
        "labels": ["rm1", "rm2"],
        "separator": "",
    }
    texts = backend.adapter.conditioner.texts(["a cat."], TARGETS[:1], [backend.pipe.tokenizer])
    assert texts == ["a cat.<rm1> 1.5"]


def test_bf16_is_nearly_the_same_loss(ready):
    backend = ready("embedding", min_snr_gamma=5.0)
    exact = backend.loss(batch()).item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = backend.loss(batch())
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(exact, rel=0.05)
    rough.backward()
    assert all(p.grad.isfinite().all() for p in backend.named_parameters().values())


def test_everything_that_learns_is_on_the_device(model, space, make_backend):
    """The optimizer and the average are made before the first loss."""
    backend = FAMILY.create_backend(str(model), space, make_backend().config, device="meta")
    assert {p.device.type for p in backend.named_parameters().values()} == {"meta"}


def test_the_base_models_own_adapter_is_left_aside(adapters, pipe, space, make_backend, tmp_path):
    pipe.load_adapter(adapters["text"])
    pipe.save_pretrained(tmp_path / "with")
    assert RiCStableDiffusionPipeline.from_pretrained(tmp_path / "with").adapter is not None
    backend = FAMILY.create_backend(str(tmp_path / "with"), space, make_backend().config)
    fresh = make_backend()
    ours, theirs = backend.pipe.unet.state_dict(), fresh.pipe.unet.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert backend.adapter.conditioner.mode == "embedding"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resolution": 5}, "resolution is 5; give a multiple of 8 from 16 to 8192"),
        ({"resolution": 60}, "resolution is 60; give"),
        ({"min_snr_gamma": -1.0}, "min_snr_gamma is -1.0; give a number above 0"),
        ({"resolution": 80000}, "resolution is 80000; give a multiple of 8 from 16 to 8192"),
        ({"timestep_shift": 1e308}, "timestep_shift is 1e+308; give 100 at most"),
        ({"timestep_shift": -1.0}, "timestep_shift is -1.0; give a number above 0"),
        ({"dropout": {"prompt": 1.5}}, "dropout: prompt is 1.5; give 0 to 1"),
        ({"max_upscale": 1e9}, "max_upscale is 1000000000.0; give 1000 at most"),
        ({"lora": {"rank": 10**6}}, "rank is 1000000; give 4096 at most"),
        ({"noise_offset": -0.1}, "noise_offset is -0.1; give 0 or more"),
        (
            {"min_snr_gamma": 5.0, "debiased_estimation": True},
            "min_snr_gamma and debiased_estimation both weigh the noise levels; give one",
        ),
        ({"lora": {"use_dora": True}}, "lora.use_dora: DoRA cannot be trained: B·A with one rank"),
        ({"lora": {"rank_pattern": {"to_q": 4}}}, "lora.rank_pattern: ranks by layer cannot be"),
        (
            {"compile": True, "base_precision": "nf4"},
            "compile goes with weights in full or half precision, and base_precision is nf4",
        ),
        ({"first_caption_probability": 2.0}, "first_caption_probability is 2.0; give 0 to 1"),
        ({"dropout": {"reward": 1.5}}, "dropout: reward is 1.5; give 0 to 1"),
        ({"dropout": {"prompt": 0.6, "everything": 0.5}}, "prompt and everything are 1.1 together"),
        ({"captions": {"tag_dropout": -0.1}}, "captions: tag_dropout is -0.1; give 0 to 1"),
        ({"captions": {"shuffle": True, "keep": -1}}, "captions: keep is -1; give 0 or more"),
        ({"captions": {"keep": 2}}, "keep is 2; it goes with shuffle or tag_dropout"),
        ({"captions": {"dropout": 0.1}}, "captions.dropout: whole prompts are left out by dropout"),
        ({"lora": {"rank": 0}}, "rank is 0; give 1 or more"),
        ({"lora": {"alpha": 0}}, "alpha is 0.0; give a number above 0"),
        ({"name_share": 0.5}, "name_share: is called first_caption_probability now"),
    ],
)
def test_settings_that_train_nothing_are_one_line(given, said):
    with pytest.raises(InputError) as error:
        from_dict(given, DiffusionConfig, "c.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sampling_that_the_family_does_not_have_is_one_line():
    settings = DiffusionConfig(sampling={"num_inference_step": 4})
    with pytest.raises(InputError) as error:
        FAMILY.check_settings(settings, "c.yaml: ")
    assert str(error.value) == (
        "c.yaml: diffusion.sampling: unknown field 'num_inference_step'; did you mean "
        "'num_inference_steps'?"
    )


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001; give 1000 at most"),
        ({"guidance_scale": 1e30}, "guidance_scale is 1e+30; give 1000 at most"),
        ({"width": 8200}, "width is 8200; give 8192 at most"),
        ({"num_inference_steps": 4.5}, "num_inference_steps is 4.5; give a whole number above 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; give a whole number above 0"),
        ({"clip_skip": 1.5}, "clip_skip is 1.5; give a whole number above 0"),
        ({"clip_skip": 1}, NO_CLIP_SKIP),
        ({"contrast": -1}, "contrast -1: give a number from 0 to 1000"),
        ({"prompt_guidance": 0.5}, "prompt_guidance 0.5: give a number from 1 to 1000"),
        ({"reward_start": -0.5}, "reward_start -0.5: give a number from 0 to 0.99"),
        ({"reward_start": 1}, "reward_start is 1; give 0.99 at most"),
        ({"guidance_scale": True}, "guidance_scale is True; give a number"),
        ({"guidance_scale": "high"}, "guidance_scale is 'high'; give a number"),
        ({"contrast": float("nan")}, "contrast is nan; give a number"),
        ({"width": 60}, "width is 60; give Stable Diffusion 1.x and 2.x a multiple of 8"),
    ],
)
def test_a_value_of_sampling_that_is_of_another_type_is_one_line(sampling, said):
    with pytest.raises(InputError) as error:
        FAMILY.check_settings(DiffusionConfig(sampling=sampling), "c.yaml: ")
    assert str(error.value) == f"c.yaml: diffusion.sampling.{said}"


@pytest.mark.parametrize("name", ["everything", "reward"])
def test_sliders_that_would_never_see_a_reward_are_refused(name):
    nothing = {"prompt": 0.0, "everything": 0.0, "reward": 0.0}
    FAMILY.check_settings(DiffusionConfig(dropout=Dropout(**nothing | {name: 0.99})))
    with pytest.raises(InputError, match=r"c.yaml: diffusion.mapping 'front2': choose one of l"):
        FAMILY.check_settings(DiffusionConfig(mapping="front2"), "c.yaml: ")
    said = rf"c.yaml: diffusion.dropout.{name} is 1; give less"
    with pytest.raises(InputError, match=said):
        FAMILY.check_settings(DiffusionConfig(dropout=Dropout(**nothing | {name: 1.0})), "c.yaml: ")


@pytest.mark.parametrize(
    ("own", "given", "found"),
    [
        ({"prompt_guidance": 1.5}, {"guidance_scale": 1}, {"prompt_guidance": 1}),
        ({"prompt_guidance": 1.5}, {}, {"prompt_guidance": 1.5}),
        ({"guidance_scale": 4}, {"prompt_guidance": 4.5}, "prompt_guidance 4.5: give a number"),
        ({}, {"prompt_guidance": 9}, "prompt_guidance 9: give a number from 1 to guidance_scale"),
        ({}, {"guidance_scale": 1, "contrast": 2}, "contrast: give guidance_scale above 1, not 1"),
        ({"contrast": 2}, {"guidance_scale": 1}, {}),
    ],
)
def test_arguments_that_do_not_go_together_are_told_of_before_anything_is_drawn(own, given, found):
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            FAMILY.merged(own, given)
    else:
        assert FAMILY.merged(own, given) == {**own, **given, **found}


def test_sampling_may_hold_what_is_no_number():
    FAMILY.check_sampling({"clip_skip": None, "sigmas": [1.0, 0.5], "guidance_scale": 3, "eta": 0})


@pytest.mark.parametrize(
    ("captions", "starts", "stored"),
    [(Captions(prefix="a photo of "), "a photo of ", True), (Captions(shuffle=True), "", False)],
)
def test_captions_are_made_into_prompts(
    make_backend, pictures, tmp_path, monkeypatch, captions, starts, stored
):
    folder, records = pictures
    whole = Dropout(prompt=0.0, everything=0.0, reward=0.0)
    backend = make_backend(captions=captions, dropout=whole, first_caption_probability=1.0)
    backend.prepare(records, folder, tmp_path / "cache")
    seen, context = [], backend.context
    monkeypatch.setattr(
        backend, "context", lambda prompts, z: seen.extend(prompts) or context(prompts, z)
    )
    backend.loss(Batch(indices=(0, 2), generator=torch.Generator().manual_seed(0)))
    assert seen == [f"{starts}{records[i].captions[0]}" for i in (0, 2)]
    backend.contexts.store()
    # Nothing is kept for later of prompts that will be others.
    assert any((tmp_path / "cache").glob("texts-*/*")) is stored


def test_all_weights_are_trained_in_full_precision(make_backend, pictures):
    backend = make_backend("text", train="full", lora=LoraConfig(), base_precision="auto")
    folder, records = pictures
    backend.prepare(records, folder, folder / "cache-full")
    named, unet = backend.named_parameters(), backend.pipe.unet
    assert named.keys() == {f"network.{name}" for name, _ in unet.named_parameters()}
    assert all(p.dtype == torch.float32 for p in named.values())
    batch = Batch(indices=(0, 1), generator=torch.Generator().manual_seed(0))
    backend.loss(batch).backward()
    assert all(p.grad is not None for p in named.values())
    others = [*backend.pipe.vae.parameters(), *backend.pipe.text_encoder.parameters()]
    assert not any(p.requires_grad for p in others)


def test_all_weights_go_on_with_those_of_a_model(
    make_backend, make_parts, pipe, adapters, tmp_path
):
    full = {"mode": "text", "train": "full", "lora": LoraConfig()}
    backend = make_backend(**full)
    with torch.no_grad():
        for parameter in backend.pipe.unet.parameters():
            parameter += 0.1
    backend.save(tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "model" / "ric_adapter"):
        again = make_backend(**full)
        again.load(folder)
        stored, found = backend.pipe.unet.state_dict(), again.pipe.unet.state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in stored.items())
    pipe.load_adapter(adapters["text"])
    pipe.save_pretrained(tmp_path / "lora")
    with pytest.raises(InputError, match="has a LoRA, where train: full goes on with a model's"):
        backend.load(tmp_path / "lora")
    unet = make_parts(layers_per_block=2)["unet"]
    unet.save_pretrained(tmp_path / "model" / "unet")
    with pytest.raises(InputError, match="model: its unet is of another architecture"):
        backend.load(tmp_path / "model")


TOKENS = {"train": "tokens", "lora": LoraConfig()}


def test_tokens_alone_are_trained(make_backend, pictures):
    backend = make_backend(**TOKENS)
    folder, records = pictures
    backend.prepare(records, folder, folder / "cache-tokens")
    encoder = backend.adapter.conditioner.encoder
    named = backend.named_parameters()
    assert named.keys() == {f"conditioner.{name}" for name, _ in encoder.named_parameters()}
    backend.loss(Batch(indices=(0, 1), generator=torch.Generator().manual_seed(0))).backward()
    assert encoder.value.grad.abs().max() > 0 and encoder.to_time.weight.grad.abs().max() > 0
    assert not any(p.requires_grad or p.grad is not None for p in backend.pipe.unet.parameters())


def test_tokens_are_written_without_a_lora_and_read_again(
    make_backend, stir, adapters, pipe, draw, tmp_path
):
    backend = stir(make_backend(**TOKENS, modulation=False))
    folder = tmp_path / "tokens"
    backend.save(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"ric_adapter.json", "reward_encoder.safetensors", "manifest.json", "README.md"}
    before = {name: p.clone() for name, p in pipe.unet.named_parameters()}
    plain = draw(pipe)
    pipe.load_adapter(folder)
    assert pipe.adapter.frozen and not pipe.adapter.lora
    one, other = (draw(pipe, targets={"colorfulness": z}) for z in (-1.5, 1.5))
    assert not torch.equal(one, other)
    assert all(torch.equal(p, before[name]) for name, p in pipe.unet.named_parameters())
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), plain)
    again = make_backend(**TOKENS, modulation=False, seed=1)
    again.load(folder)
    wanted = backend.named_parameters()
    assert all(torch.equal(p, wanted[name]) for name, p in again.named_parameters().items())
    with pytest.raises(InputError, match="has no LoRA, only reward tokens; give train: tokens"):
        make_backend().load(folder)
    with pytest.raises(InputError, match="has a LoRA; give train: lora"):
        again.load(adapters["embedding"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": "tokens", "mode": "text"}, "train: tokens trains reward tokens, which mode"),
        ({"train": "tokens", "lora": LoraConfig(rank=4)}, "tokens changes nothing of the denoiser"),
        ({"train": "full", "lora": LoraConfig(rank=4)}, "full changes all weights of the denoiser"),
    ],
)
def test_settings_that_do_not_go_with_what_is_trained(settings, told):
    with pytest.raises(ValueError, match=told):
        DiffusionConfig(**settings)


def test_a_compiled_pass_is_the_pass(ready, stir, monkeypatch):
    """Traced as torch.compile does it, and run by Python: what a compiler makes of it is its own
    affair, and takes minutes."""
    torch.compiler.reset()
    calls, compile = [], torch.compile
    monkeypatch.setattr(backend_module, "check_compiler", lambda device: None)

    def traced(forward):
        done = compile(forward, backend="eager")

        def call(*args, **kwargs):
            calls.append(len(args))
            return done(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", traced)
    plain, compiled = stir(ready()), stir(ready(compile=True))
    meter = Meter()
    with meter.running(compiled.network()):
        for seed in range(4):
            if seed == 2:  # what validation does in between: other hooks, and no compiled passes
                with compiled.pipe.without_adapter():
                    pass
                compiled.sample(["a red apple"], [{}], [0])
            found = [one.loss(batch(seed, range(seed, seed + 4))) for one in (plain, compiled)]
            for loss in found:
                loss.backward()
            assert torch.allclose(*found, rtol=1e-5)
    grads = [[p.grad for p in one.named_parameters().values()] for one in (plain, compiled)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))
    assert len(calls) == 4
    assert meter.read().forwards == 4 * 4 * 3 + 2 * 2  # two steps of guided sampling


def test_without_a_compiler_compiling_is_one_line(monkeypatch):
    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(InputError, match=r"^c\.yaml: compile: there is no C\+\+ compiler here"):
        from_dict({"compile": True}, DiffusionConfig, "c.yaml")
