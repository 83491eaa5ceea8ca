"""Pictures that are not square: at what sizes they are drawn, and every family trained on them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion.data.records import Record
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families import flux, sd, sd3, sdxl, z_image
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from ric_diffusion.models.protocol import Batch
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from support import flux as flux_parts
from support import sd3 as sd3_parts
from support import sdxl as sdxl_parts
from support import z_image as z_image_parts

SIZES = [(48, 48), (32, 64), (96, 192), (64, 32), (96, 96)]  # with 48 px: three buckets
DRAWN = [(48, 48), (32, 64), (32, 64), (64, 32), (48, 48)]


def labelled(folder, sizes, caption="red apple"):
    """Pictures of noise and their records."""
    rng = np.random.default_rng(0)
    records = []
    for i, (width, height) in enumerate(sizes):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        scores = {"colorfulness": 10.0 + i, "compressibility": 9.0 - i}
        records.append(Record(file=f"{i}.png", captions=(caption,), scores=scores))
    return records


@pytest.fixture(scope="module")
def oblong(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oblong")
    return folder, labelled(folder, SIZES)


FAMILIES = {
    "sd": (sd.FAMILY, None),
    "sdxl": (sdxl.FAMILY, sdxl_parts.parts),
    "sd3": (sd3.FAMILY, sd3_parts.parts),
    "flux": (flux.FAMILY, flux_parts.parts),
    "z-image": (z_image.FAMILY, z_image_parts.parts),
}


@pytest.fixture(params=FAMILIES)
def backend(request, make_parts, space):
    family, parts = FAMILIES[request.param]
    pipe = family.pipelines[TEXT_TO_IMAGE](**(parts or make_parts)())
    config = DiffusionConfig(lora=LoraConfig(rank=2, alpha=2), resolution=48)
    return DiffusionBackend.create(pipe, "m", space, config)


def test_every_family_trains_on_every_bucket(backend, oblong, tmp_path, monkeypatch):
    folder, records = oblong
    assert backend.prepare(records, folder, tmp_path) == 5
    assert [tuple(size) for size in backend.pictures.drawn.tolist()] == DRAWN
    seen = []
    predict = type(backend.pipe.family).predict

    def look(self, pipe, noisy, t, context):
        found = predict(self, pipe, noisy, t, context)
        seen.append((tuple(noisy.shape[-2:]), tuple(found.shape[-2:])))
        return found

    monkeypatch.setattr(type(backend.pipe.family), "predict", look)
    loop = LoopConfig(steps=3, batch_size=2, accumulate=2, precision="fp32", learning_rate=1e-2)
    before = [p.detach().clone() for p in backend.named_parameters().values()]
    Trainer(backend, 5, loop, tmp_path / "run", digest="x").run()
    assert {given for given, _ in seen} == {(6, 6), (8, 4), (4, 8)}
    assert all(given == found for given, found in seen)
    after = list(backend.named_parameters().values())
    assert all(parameter.isfinite().all() for parameter in after)
    assert not any(torch.equal(a, b) for a, b in zip(before[-3:], after[-3:], strict=True))


def test_what_a_picture_is_drawn_at_decides_what_it_is_trained_as(make_backend, oblong, tmp_path):
    """The loss of a tall picture alone is that of the same pixels encoded by hand."""
    folder, records = oblong
    backend = make_backend(resolution=48, mirror=False)
    backend.prepare(records, folder, tmp_path)
    drawn = Image.open(folder / "2.png").resize((32, 64), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(drawn)).permute(2, 0, 1)[None]
    wanted = backend.pipe.family.latents(backend.pipe).encode(pixels)
    assert torch.allclose(backend.latents.moments([2], [0]), wanted, atol=1e-5)


def test_a_resumed_run_in_buckets_is_the_same_run(make_backend, oblong, tmp_path):
    folder, records = oblong
    loop = LoopConfig(steps=6, batch_size=2, precision="fp32", checkpoint_minutes=0)

    def run(out, steps, resume=False):
        backend = make_backend(resolution=48)
        backend.prepare(records, folder, tmp_path / "cache")
        trainer = Trainer(backend, 5, loop, tmp_path / out, digest="x", resume=resume)
        trainer.config = replace(loop, steps=steps)
        trainer.run()
        return [p.detach() for p in trainer.state.parameters.values()]

    whole = run("whole", 6)
    trained = make_backend(resolution=48)
    trained.prepare(records, folder, tmp_path / "cache")
    cut = Trainer(trained, 5, loop, tmp_path / "cut", digest="x")
    for _ in range(4):
        cut.step()
    cut.save()
    assert all(torch.equal(a, b) for a, b in zip(whole, run("cut", 6, resume=True), strict=True))


def test_what_is_cut_away_from_whole_pictures_is_refused(make_backend, tmp_path):
    records = labelled(tmp_path, [(48, 48), (48, 64), (40, 48)])
    with pytest.raises(InputError) as error:
        make_backend(resolution=32).prepare(records, tmp_path, tmp_path / "cache")
    assert str(error.value) == (
        f"{tmp_path}: was labelled whole, and training at 32 px cuts more than 10% away from 2 of "
        "3 pictures, 25% from 1.png; label again with --framing square"
    )
    write_json(tmp_path / "framing.json", {"rule": "bucket", "resolution": 48, "step": 8})
    with pytest.raises(InputError, match="was labelled for buckets of 48 px, and training at 32"):
        make_backend(resolution=32).prepare(records, tmp_path, tmp_path / "cache")
    write_json(tmp_path / "framing.json", {"rule": "square"})
    backend = make_backend(resolution=32)
    assert backend.prepare(records, tmp_path, tmp_path / "cache") == 3
    assert backend.pictures.boxes.tolist() == [[0, 0, 48, 48], [0, 8, 48, 56], [0, 4, 40, 44]]
    assert backend.buckets.tolist() == [0, 0, 0]


def test_small_and_long_pictures_are_left_out_and_told_of(make_backend, tmp_path, caplog):
    records = labelled(tmp_path, [(48, 48), (23, 23), (24, 24), (16, 96), (32, 64)])
    backend = make_backend(resolution=48)
    with caplog.at_level(logging.WARNING):
        assert backend.prepare(records, tmp_path, tmp_path / "cache") == 3
    assert [r.file for r in backend.records] == ["0.png", "2.png", "4.png"]
    assert backend.z.shape == (3, 2) and backend.buckets.tolist() == [1, 1, 0]
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}: 2 of 5 pictures left out, 1 that training would enlarge more than 2 "
        "times and 1 longer than 4 to 1"
    ]
    with pytest.raises(InputError, match=r"2 of 2 pictures left out.*raise max_upscale$"):
        make_backend(resolution=96).prepare(records[1:3], tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("mirror", "caption", "views"),
    [
        (None, "red apple", 2),
        (None, "an apple, LEFT of a car", 1),
        (None, "alright, leftover copyright", 2),
        (True, "the right hand", 2),
        (False, "red apple", 1),
    ],
)
def test_mirror_images_unless_captions_name_sides(
    make_backend, tmp_path, caplog, mirror, caption, views
):
    records = labelled(tmp_path, [(32, 32)], caption)
    backend = make_backend("text", mirror=mirror, resolution=32)
    with caplog.at_level(logging.INFO):
        backend.prepare(records, tmp_path, tmp_path / "cache")
    assert backend.latents.views == views
    told = [r.getMessage() for r in caplog.records if "mirror" in r.getMessage()]
    assert len(told) == (mirror is None and views == 1)


def test_a_picture_on_its_side_is_drawn_upright(make_backend, tmp_path):
    records = [replace(record, file="0.jpg") for record in labelled(tmp_path, [(32, 64)])]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "0.png").save(tmp_path / "0.jpg", exif=exif)
    backend = make_backend(resolution=48)
    backend.prepare(records, tmp_path, tmp_path / "cache")
    assert backend.pictures.sizes.tolist() == backend.pictures.drawn.tolist() == [[64, 32]]
    wanted = np.array(Image.open(tmp_path / "0.jpg").transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(backend.pictures.draw(0).permute(1, 2, 0).numpy(), wanted)


def test_a_picture_damaged_after_labelling_is_named(make_backend, tmp_path):
    records = labelled(tmp_path, [(32, 32), (32, 32)])
    whole = (tmp_path / "1.png").read_bytes()
    for kept in (100, len(whole) // 2):  # in its header, and in its pixels
        (tmp_path / "1.png").write_bytes(whole[:kept])
        with pytest.raises(InputError) as error:
            make_backend(resolution=32).prepare(records, tmp_path, tmp_path / f"c{kept}")
        assert str(error.value).startswith(f"{tmp_path / '1.png'}: broken picture (")
        assert str(error.value).endswith("run `ric label` again")


def test_sdxl_is_told_the_size_and_the_crop_of_every_picture(space, tmp_path, monkeypatch):
    """As train_text_to_image_lora_sdxl.py of diffusers tells them, whose mirror image comes before
    its crop."""
    records = labelled(tmp_path, [(96, 96), (120, 96), (96, 110)])
    write_json(tmp_path / "framing.json", {"rule": "square"})
    pipe = sdxl.FAMILY.pipelines[TEXT_TO_IMAGE](**sdxl_parts.parts())
    config = DiffusionConfig(lora=LoraConfig(rank=2, alpha=2), resolution=48)
    backend = DiffusionBackend.create(pipe, "m", space, config)
    backend.prepare(records, tmp_path, tmp_path / "cache")
    told = backend.pictures.told([0, 1, 1, 2], [1, 0, 1, 0]).tolist()
    assert told == [
        [96, 96, 0, 0, 48, 48],
        [96, 120, 0, 6, 48, 48],
        [96, 120, 0, 6, 48, 48],
        [110, 96, 4, 0, 48, 48],
    ]
    seen, forward = [], pipe.unet.forward

    def look(*args, **kwargs):
        seen.append(kwargs["added_cond_kwargs"]["time_ids"].tolist())
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", look)
    backend.loss(Batch(indices=(2, 0), generator=torch.Generator().manual_seed(0)))
    assert seen == [[told[3], told[0]]]
    # Left of a mirror image is where right was: a box that is not in the middle.
    off = replace(
        backend.pictures, boxes=np.array([[0, 0, 96, 96], [4, 0, 100, 96], [0, 0, 96, 96]])
    )
    assert off.told([1, 1], [0, 1])[:, 3].tolist() == [2, 10]
