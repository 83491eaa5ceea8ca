"""What is NaN or Inf is told before it is a colour, and never passes for a picture."""

import pytest
import torch
from PIL import Image

from ric_diffusion.models.diffusion.sampler import IN_A_ROW, DiffusionSampler, pictures_of

SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}
RED, BLUE = "red apple", "blue car"


@pytest.fixture
def latents(pipe):
    """Of two pictures, of which the second is not finite."""
    given = torch.zeros(2, pipe.vae.config.latent_channels, 8, 8)
    given[1, 0, 3, 3] = torch.inf
    return given


def break_one_channel(pipe):
    """As a NaN in the last bias does: red is 0, green and blue are what they were."""
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] = torch.nan


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_each_picture_is_judged_on_its_own(pipe, latents, output_type):
    output = pipe([RED, BLUE], latents=latents, output_type=output_type, **SAMPLING)
    assert output.finite == [True, False]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_one_channel_of_nan_is_no_picture(pipe):
    break_one_channel(pipe)
    output = pipe(RED, generator=torch.Generator().manual_seed(0), **SAMPLING)
    assert output.images[0].getextrema()[1] != (0, 0)  # so it is not blank
    assert output.finite == [False]
    [picture] = pictures_of(output)
    sampler = DiffusionSampler(pipe)
    assert sampler.medium.reject_reason(picture) == "not finite"
    assert picture.getextrema() == ((0, 0),) * 3
    assert sampler.medium.reject_reason(Image.new("RGB", (64, 64))) == "blank"


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_latents_count_where_the_autoencoder_hides_them(pipe, latents, monkeypatch):
    """As a tiny autoencoder does, which begins with tanh."""
    decode = pipe.vae.decode
    hiding = lambda z, **options: decode(z.nan_to_num(0).tanh(), **options)  # noqa: E731
    monkeypatch.setattr(pipe.vae, "decode", hiding)
    output = pipe([RED, BLUE], latents=latents, **SAMPLING)
    assert output.finite == [True, False]
    assert pipe.vae.decode is hiding


def test_nothing_of_it_stays_in_the_pipeline(pipe):
    pipe(RED, **SAMPLING)
    assert "decode" not in vars(pipe.vae)


@pytest.mark.filterwarnings("error:invalid value")
def test_a_few_are_rejected_and_many_in_a_row_stop(pipe):
    sampler = DiffusionSampler(pipe, SAMPLING)
    whole = pipe.vae.decoder.conv_out.bias.detach().clone()
    break_one_channel(pipe)
    few = IN_A_ROW - 1
    made = sampler.sample([RED] * few, [{}] * few, range(few))
    assert {sampler.medium.reject_reason(picture) for picture in made} == {"not finite"}
    pipe.vae.decoder.conv_out.bias.data.copy_(whole)
    assert sampler.medium.reject_reason(sampler.sample([RED], [{}], [0])[0]) is None
    break_one_channel(pipe)
    sampler.sample([RED] * few, [{}] * few, range(few))
    with pytest.raises(FloatingPointError, match=f"the last {IN_A_ROW} pictures: not finite"):
        sampler.sample([RED], [{}], [0])
