import copy

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion import latents
from ric_diffusion.models.diffusion.latents import Latents, framed
from ric_diffusion.models.protocol import weights_digest


@pytest.fixture(scope="module")
def vae(stock):
    return copy.deepcopy(stock.vae)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / "pictures" / f"{i}.png" for i in range(5)]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return paths


def cached_latents(vae, *args, **settings):
    return latents.cached_latents(Latents.of(vae), *args, **settings)


@pytest.fixture
def encoded(monkeypatch):
    """The number of pictures that went through the autoencoder in each call of ``encode``."""
    counts = []

    encode = Latents.encode

    def counting(self, images):
        counts.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Latents, "encode", counting)
    return counts


def test_moments_of_every_picture_and_its_mirror_image(vae, files, tmp_path, encoded):
    moments = cached_latents(vae, files, 32, tmp_path / "c", mirrored=True, batch_size=2)
    assert moments.shape == (5, 2, 2, 4, 4, 4) and moments.dtype == torch.float32
    assert encoded == [2, 2, 2, 2, 1, 1]
    image = torch.from_numpy(np.array(Image.open(files[3]))).permute(2, 0, 1)[None]
    scale = vae.config.scaling_factor
    for view, pixels in enumerate((image, image.flip(-1))):
        with torch.no_grad():
            posterior = vae.encode(pixels / 127.5 - 1).latent_dist
        assert torch.allclose(moments[3, view, 0], posterior.mean[0] * scale, atol=1e-5)
        assert torch.allclose(moments[3, view, 1], posterior.std[0] * scale, atol=1e-5)
    assert (moments[:, :, 1] > 0).all()


def test_the_second_time_nothing_is_encoded(vae, files, tmp_path, encoded):
    first = cached_latents(vae, files, 32, tmp_path, mirrored=False)
    assert first.shape == (5, 1, 2, 4, 4, 4) and encoded == [5]
    assert torch.equal(cached_latents(vae, files, 32, tmp_path, mirrored=False), first)
    assert encoded == [5]
    # What the files say counts, not where they lie.
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in files]
    assert torch.equal(cached_latents(vae, moved, 32, tmp_path, mirrored=False), first)
    assert encoded == [5]


def test_a_change_is_encoded_anew(vae, files, tmp_path, encoded):
    def run(size=32, mirrored=False, vae=vae, paths=files):
        encoded.clear()
        moments = cached_latents(vae, paths, size, tmp_path, mirrored=mirrored)
        return moments, sum(encoded)

    first, count = run()
    assert count == 5
    assert run(size=16)[1] == 5
    assert run(mirrored=True)[1] == 10
    backwards, count = run(paths=files[::-1])
    assert count == 5 and torch.equal(backwards, first.flip(0))
    assert run(paths=files[:4])[1] == 4

    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    assert run(vae=other)[1] == 5
    other = copy.deepcopy(vae)
    other.register_to_config(scaling_factor=2 * vae.config.scaling_factor)
    scaled, count = run(vae=other)
    assert count == 5 and torch.allclose(scaled, 2 * first)

    Image.new("RGB", (32, 32), "red").save(files[2])
    changed, count = run()
    assert count == 5
    assert [torch.equal(a, b) for a, b in zip(changed, first, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert run()[1] == 0


def test_an_interrupted_run_leaves_no_cache(vae, files, tmp_path):
    files[4].write_bytes(b"no picture")
    with pytest.raises(ValueError, match="picture"):
        cached_latents(vae, files, 32, tmp_path / "cache", mirrored=False, batch_size=2)
    assert not list(tmp_path.glob("cache/*"))


def test_a_picture_covers_the_square_and_is_cropped_at_the_centre():
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = 200
    square = framed(Image.fromarray(wide), 32)
    assert square.shape == (3, 32, 32) and square.dtype == torch.uint8
    assert (square == 200).all()
    half = framed(Image.fromarray(wide), 16)
    assert half.shape == (3, 16, 16) and (half[:, :, 4:12] == 200).all()
    big = framed(Image.new("RGB", (10, 20), (1, 2, 3)), 64)
    assert [int(channel.unique()) for channel in big] == [1, 2, 3]


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(framed(Image.fromarray(pixels), 16).permute(1, 2, 0).numpy(), pixels)


def test_equal_weights_have_equal_digests(vae):
    digest = weights_digest(vae)
    assert weights_digest(copy.deepcopy(vae)) == digest
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.decoder.conv_out.bias[0] += 1e-6
    assert weights_digest(other) != digest
    assert weights_digest(copy.deepcopy(vae).half()) != digest
    scalar = torch.nn.BatchNorm1d(2)  # has a tensor without dimensions
    assert weights_digest(scalar) == weights_digest(copy.deepcopy(scalar))


@pytest.mark.parametrize(
    ("dtype", "upcast"),
    [(torch.float16, True), (torch.float16, False), (torch.bfloat16, True)],
)
def test_an_autoencoder_that_overflows_in_fp16_encodes_in_full(vae, dtype, upcast):
    half = copy.deepcopy(vae).to(dtype)
    half.register_to_config(force_upcast=upcast)
    full = upcast and dtype == torch.float16  # bfloat16 has the range of float32
    before = weights_digest(half)
    dtypes = []
    half.encoder.conv_in.register_forward_pre_hook(lambda _, given: dtypes.append(given[0].dtype))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    found = Latents.of(half).encode(images)
    assert dtypes == [torch.float32 if full else dtype] and found.dtype == torch.float32
    assert half.dtype == dtype and weights_digest(half) == before
    exact = Latents.of(copy.deepcopy(half).float()).encode(images)
    assert torch.equal(found, exact) == full


def test_large_pictures_are_encoded_a_few_at_a_time(vae, monkeypatch):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    counts = []
    hook = vae.encoder.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    whole = Latents.of(vae).encode(images)
    monkeypatch.setattr(latents, "PIXELS_AT_ONCE", 2 * 32 * 32)
    parts = Latents.of(vae).encode(images)
    hook.remove()
    assert counts == [5, 2, 2, 1] and torch.allclose(whole, parts, atol=1e-5)


def test_a_picture_that_the_autoencoder_makes_no_numbers_of_is_named(vae, files, tmp_path):
    broken = copy.deepcopy(vae)

    def overflow(_encoder, _given, found):
        found[1] = torch.inf
        return found

    broken.encoder.register_forward_hook(overflow)
    with pytest.raises(InputError) as error:
        cached_latents(broken, files, 32, tmp_path / "c", mirrored=False, batch_size=3)
    assert str(error.value).startswith(f"{files[1]}: the autoencoder overflows on this picture in ")
    assert "\n" not in str(error.value) and not list(tmp_path.glob("c/*"))
