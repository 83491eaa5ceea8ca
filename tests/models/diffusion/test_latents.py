import copy

import numpy as np
import pytest
import torch
from PIL import Image

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
