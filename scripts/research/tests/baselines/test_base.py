"""The base model as a method, LoRA files, and the backend without rewards."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from baselines.base import (
    BaseModel,
    Tuned,
    plain_backend,
    read_lora,
    z_of,
)
from baselines.families import lora_file, merged, save_run
from ric_diffusion.adapters import lora
from ric_diffusion.adapters.format import read_diffusers
from ric_diffusion.io.errors import InputError

PROMPTS = ["red apple", "pizza"]
SEEDS = [3, 4]
EQUAL = {"bright": 1.0, "warm": 1.0}


def stock(model, sampling):
    pipe = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe(PROMPTS, generator=generators, **sampling).images


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(module, then):
    return all(torch.equal(value, then[key]) for key, value in module.state_dict().items())


def test_the_base_model_is_the_stock_pipeline(model, sampling, pixels, sampler):
    base = BaseModel(sampler)
    expected = pixels(stock(model, sampling))
    for preference in (EQUAL, {"warm": 1.0}):
        assert np.array_equal(pixels(base.draw(preference, PROMPTS, SEEDS)), expected)


def test_a_pipeline_with_an_adapter_is_no_base_model(pipe, sampling, sampler):
    pipe.adapter = SimpleNamespace(sampling={}, encoder=None)
    with pytest.raises(InputError, match="unload_adapter"):
        BaseModel(sampler)


def test_one_file_answers_every_preference(sampler, space, lora_files, pixels):
    method = Tuned(sampler, space, [(EQUAL, lora_files["bright"])])
    one, other = (
        pixels(method.draw(preference, PROMPTS, SEEDS))
        for preference in ({"bright": 1.0}, {"warm": 1.0})
    )
    assert np.array_equal(one, other)
    assert not np.array_equal(one, pixels(BaseModel(sampler).draw(EQUAL, PROMPTS, SEEDS)))


def test_of_several_files_the_nearest_answers(pipe, sampler, space, lora_files, pixels):
    corners = [({name: 1.0}, lora_files[name]) for name in space.names]
    method = Tuned(sampler, space, corners)
    before = weights(pipe.unet)
    for preference, name in (
        ({"bright": 7.0, "warm": 3.0}, "bright"),
        ({"bright": 0.4, "warm": 0.6}, "warm"),
        (EQUAL, "bright"),  # as near to both: the first
    ):
        alone = Tuned(sampler, space, [(EQUAL, lora_files[name])])
        found = pixels(method.draw(preference, PROMPTS, SEEDS))
        assert np.array_equal(found, pixels(alone.draw(EQUAL, PROMPTS, SEEDS)))
        assert same(pipe.unet, before)


def test_an_error_leaves_the_weights_as_they_were(pipe, lora_files, sampler):
    before = weights(pipe.unet)
    with pytest.raises(RuntimeError), merged(pipe.unet, read_lora(sampler, lora_files["warm"])):
        assert not same(pipe.unet, before)
        raise RuntimeError
    assert same(pipe.unet, before)


def test_a_lora_file_is_plain_diffusers(model, space, config, pipe, tmp_path):
    backend = plain_backend(model, space, config, seed=0, device="cpu")
    with torch.no_grad():
        for parameter in backend.named_parameters().values():
            parameter += 0.1
    save_run(backend, tmp_path)
    file = tmp_path / lora_file(backend.model.family)
    stored, ours = read_diffusers(file), lora.trained(backend.pipe.unet)
    assert stored.tensors.keys() == ours.tensors.keys() and stored.scale == 2.0
    assert all(torch.equal(stored.tensors[key], value) for key, value in ours.tensors.items())
    plain = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    plain.load_lora_weights(file.parent, weight_name=file.name)
    name = stored.modules[0]
    with merged(pipe.unet, stored):
        merged_weight = pipe.unet.get_submodule(name).weight.clone()
    plain.fuse_lora()
    layer = plain.unet.get_submodule(name)
    assert torch.allclose(layer.base_layer.weight, merged_weight, atol=1e-6)


def test_files_of_another_shape_are_refused(lora_files, tmp_path, sampler):
    with pytest.raises(InputError, match="not a LoRA file"):
        read_lora(sampler, tmp_path / "none.safetensors")
    other = torch.nn.ModuleDict()
    with pytest.raises(InputError, match="lacks"):
        lora.check_fit(other, read_lora(sampler, lora_files["warm"]))


def test_the_plain_backend_reads_the_prompt_alone(model, pipe, space, config, pictures, tmp_path):
    folder, records = pictures
    backend = plain_backend(model, space, config, seed=0, device="cpu")
    stock_states, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    assert torch.equal(backend.context(PROMPTS, [{}, {}]).states, stock_states)
    backend.prepare(records, folder, tmp_path)
    asked = [{"bright": 1.0, "warm": -1.0}] * len(PROMPTS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        _, targets = backend.config.dropout(PROMPTS, asked, generator)
        assert targets == [{}, {}]


def test_blank_pictures_and_missing_scores_have_no_z(space):
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    samples = [Image.fromarray(picture) for picture in noise] + [Image.new("RGB", (8, 8))]
    scorers = [
        lambda images, prompts: np.array([140.0, np.nan, 100.0, 120.0]),
        lambda images, prompts: np.array([10.0, 0.0, np.inf, 0.0]),
    ]
    z = z_of(samples, ["a"] * 4, scorers, space)
    assert z[0] == pytest.approx([1.0, 1.0])
    assert np.isnan(z[1:]).all()
