import itertools

import pytest
import torch
from diffusers import AutoencoderKL

from autoencoder import (
    AutoencoderTrainer,
    augmented,
    gradient_l1,
    psnr,
    reconstruct,
    to_pixels,
)
from ric_diffusion.models.protocol import Batch

SETTINGS = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 16,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=8, size=16):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=seeded())


def test_pixels_reach_from_minus_one_to_one():
    pixels = to_pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert torch.allclose(pixels, torch.tensor([-1.0, -0.6, 1.0]), atol=1e-6)


def test_psnr_by_hand():
    """A difference of 10 everywhere: 10 log10(65025 / 100); the mean is over pictures, in dB."""
    zeros = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert psnr(zeros, zeros + 10) == pytest.approx(28.1308, abs=1e-3)
    other = zeros.clone()
    other[0] += 10
    other[1] += 100
    assert psnr(zeros, other) == pytest.approx((28.1308 + 8.1308) / 2, abs=1e-3)
    assert psnr(other, zeros) == psnr(zeros, other)  # no wrap-around of bytes
    assert psnr(zeros, zeros) == pytest.approx(88.1308, abs=1e-3)


def test_image_gradients_by_hand():
    x = torch.zeros(1, 1, 2, 3)
    y = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]])
    assert float(gradient_l1(x, y)) == pytest.approx(1 / 4 + 2 / 3)
    assert float(gradient_l1(y + 5, y)) == 0.0  # a shift of brightness has no edges


def test_augmented_pictures_are_mirrored_moved_or_recoloured():
    images = pictures(400, size=6)
    out = augmented(images, seeded(), shift=1)
    assert out.shape == images.shape and out.dtype == torch.uint8
    seen = []
    for image, made in zip(images, out, strict=True):
        white = torch.nn.functional.pad(image, (1,) * 4, value=255)
        views = {
            (mirror, colours, top, left): view[list(colours)]
            for top, left in itertools.product(range(3), repeat=2)
            for mirror in (False, True)
            for colours in itertools.permutations(range(3))
            for part in [white[:, top : top + 6, left : left + 6]]
            for view in [part.flip(-1) if mirror else part]
        }
        found = [key for key, view in views.items() if torch.equal(view, made)]
        assert len(found) == 1
        seen += found
    assert 140 < sum(mirror for mirror, *_ in seen) < 260
    assert len({place for *_, top, left in seen for place in [(top, left)]}) == 9
    recoloured = sum(colours != (0, 1, 2) for _, colours, *_ in seen)
    assert 50 < recoloured < 120  # a quarter, less the sixth of those that draw no change


def test_a_batch_is_augmented_as_one_picture_after_the_other():
    images, generator, made = pictures(64, size=10), seeded(4), []
    for i, (mirror, down, right, swap) in enumerate(
        torch.rand(64, 4, generator=generator).tolist()
    ):
        white = torch.nn.functional.pad(images[i], (3,) * 4, value=255)
        image = white[:, int(down * 7) :, int(right * 7) :][:, :10, :10]
        image = image.flip(-1) if mirror < 0.5 else image
        made.append(image[torch.randperm(3, generator=generator)] if swap < 0.25 else image)
    assert torch.equal(augmented(images, seeded(4)), torch.stack(made))


def test_augmentation_repeats_and_leaves_the_pictures_alone():
    images = pictures()
    before = images.clone()
    torch.manual_seed(0)
    first = augmented(images, seeded(3))
    torch.manual_seed(1)
    assert torch.equal(augmented(images, seeded(3)), first)
    assert not torch.equal(augmented(images, seeded(4)), first)
    assert torch.equal(images, before)


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    return AutoencoderTrainer(SETTINGS, pictures() // 16 * 16)


def test_it_learns(trainer):
    batch = Batch(indices=tuple(range(8)), generator=seeded())
    before = trainer.loss(batch).item()
    optimizer = torch.optim.Adam(trainer.named_parameters().values(), lr=5e-3)
    for step in range(40):
        trainer.loss(Batch(indices=tuple(range(8)), generator=seeded(step))).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = trainer.loss(Batch(indices=tuple(range(8)), generator=seeded())).item()
    assert after < 0.8 * before


def test_the_loss_repeats(trainer):
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(trainer.loss(Batch(indices=(1, 2), generator=seeded(5))).item())
    assert losses[0] == losses[1]


def test_saved_and_loaded(trainer, tmp_path):
    trainer.save(tmp_path / "vae")
    assert not list((tmp_path / "vae").glob("*.bin"))
    plain = AutoencoderKL.from_pretrained(tmp_path / "vae", use_safetensors=True)
    torch.manual_seed(1)
    other = AutoencoderTrainer(SETTINGS, pictures())
    other.load(tmp_path / "vae")
    images = pictures(3)
    wanted = reconstruct(trainer.vae.eval(), images)
    assert wanted.shape == images.shape and wanted.dtype == torch.uint8
    for vae in (plain, other.vae.eval()):
        assert (reconstruct(vae, images).int() - wanted.int()).abs().max() <= 1
    one_by_one = reconstruct(trainer.vae, images, batch_size=1)
    assert (one_by_one.int() - wanted.int()).abs().max() <= 1
