import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion.data.records import Record
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import reporting
from ric_diffusion.models.diffusion import latents, pictures
from ric_diffusion.models.diffusion.latents import Latents, cached_latents, framed
from ric_diffusion.models.diffusion.pictures import read_pictures
from ric_diffusion.models.diffusion.shards import DAMAGE, Shard, Shards, keys_of
from ric_diffusion.models.protocol import weights_digest


@dataclass(frozen=True)
class Process:
    """What the cache asks of accelerate's PartialState."""

    process_index: int = 0
    num_processes: int = 1
    wait_for_everyone: Callable[[], object] = lambda: None

    @property
    def is_main_process(self):
        return self.process_index == 0


ALONE = Process()


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


def described(paths, cache, side=32, process=ALONE):
    files, folder = [path.name for path in paths], paths[0].parent
    asked = {"resolution": side, "step": 64, "max_upscale": 2.0}
    records = [Record(file=file) for file in files]
    return read_pictures(folder, records, cache, process, **asked)[0]


def encode(vae, paths, cache, *, mirrored=False, side=32, process=ALONE, **settings):
    """The moments of every picture in every view, (N, M, 2, C, h, w)."""
    pictures = described(paths, cache, side, process)
    found = cached_latents(Latents.of(vae), pictures, cache, process, mirrored=mirrored, **settings)
    rows = range(len(paths))
    views = [found.moments(rows, [view] * len(paths)) for view in range(found.views)]
    return torch.stack(views, dim=1)


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


@pytest.fixture
def two_to_a_shard(monkeypatch):
    monkeypatch.setattr(latents, "SHARD_BYTES", 2 * 2 * 4 * 4 * 4 * 4)


def test_moments_of_every_picture_and_its_mirror_image(vae, files, tmp_path, encoded):
    moments = encode(vae, files, tmp_path / "c", mirrored=True, batch_size=2)
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


def test_the_second_time_nothing_is_encoded_nor_opened(vae, files, tmp_path, encoded, monkeypatch):
    first = encode(vae, files, tmp_path)
    assert first.shape == (5, 1, 2, 4, 4, 4) and encoded == [5]
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "open_image", None)
        assert torch.equal(encode(vae, files, tmp_path), first)
    # What the files say counts, not where they lie; equal pictures are encoded once.
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in files]
    assert torch.equal(encode(vae, [*moved, moved[0]], tmp_path), first[[0, 1, 2, 3, 4, 0]])
    assert encoded == [5]


def test_a_change_alone_is_encoded_anew(vae, files, tmp_path, encoded):
    def run(side=32, mirrored=False, vae=vae, paths=files):
        encoded.clear()
        moments = encode(vae, paths, tmp_path, mirrored=mirrored, side=side)
        return moments, sum(encoded)

    first, count = run()
    assert count == 5
    assert run(side=16)[1] == 5
    assert run(mirrored=True)[1] == 10
    backwards, count = run(paths=files[::-1])
    assert count == 0 and torch.equal(backwards, first.flip(0))
    assert run(paths=files[:4])[1] == 0

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
    assert count == 1
    same = [torch.equal(a, b) for a, b in zip(changed, first, strict=True)]
    assert same == [True, True, False, True, True]
    assert run()[1] == 0


@pytest.mark.usefixtures("two_to_a_shard")
@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_killed_at_any_shard_it_ends_with_the_same_numbers(
    vae, files, tmp_path, encoded, monkeypatch, killed_at
):
    whole = encode(vae, files, tmp_path / "whole")
    assert encoded == [2, 2, 1]  # the pictures of a shard together
    write, count = Shards.write, 0

    def killed(self, keys, tensors):
        nonlocal count
        count += 1
        if count == killed_at:
            raise KeyboardInterrupt
        write(self, keys, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            encode(vae, files, tmp_path / "killed")
    encoded.clear()
    assert torch.equal(encode(vae, files, tmp_path / "killed"), whole)
    # The first shard written is that of the files' digests.
    assert encoded == [[2, 2, 1], [2, 2, 1], [2, 1], [1]][killed_at - 1]


@pytest.mark.usefixtures("two_to_a_shard")
@pytest.mark.parametrize("damage", ["cut short", "empty", "no header", "other bytes", "flipped"])
def test_a_damaged_shard_is_named_and_made_anew(vae, files, tmp_path, encoded, caplog, damage):
    whole = encode(vae, files, tmp_path)
    shards = sorted(tmp_path.glob("latents-*/*.safetensors"))
    assert len(shards) == 3
    victim = shards[0]
    data = victim.read_bytes()
    spoiled = {"cut short": data[:-1], "empty": b"", "no header": data[:20], "other bytes": data}
    spoiled["flipped"] = data[:-1] + bytes([data[-1] ^ 1])
    victim.write_bytes(spoiled[damage].replace(b"moments", b"m\xffments"))
    rows = len(Shards(victim.parent).damaged)
    encoded.clear()
    caplog.clear()
    assert torch.equal(encode(vae, files, tmp_path), whole)
    assert rows == 1 and encoded in ([2], [1])
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [str(victim)]
    caplog.clear()
    assert torch.equal(encode(vae, files, tmp_path), whole) and not caplog.records


def test_a_flipped_bit_in_any_byte_of_a_shard_is_noticed(tmp_path):
    """Or it changes nothing, as in the blanks that pad a header."""
    keys = keys_of([("a",), ("b",)])
    rows = {"moments": torch.arange(12.0).view(2, 6), "size": torch.tensor([3, 4])}
    Shards(tmp_path).write(keys, rows)
    (path,) = tmp_path.iterdir()
    data, unnoticed = path.read_bytes(), 0
    for place in range(len(data)):
        flipped = data[place] ^ (1 << place % 8)
        path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        try:
            shard = Shard(path)
            shard.check()
        except DAMAGE:
            continue
        unnoticed += 1
        assert all(torch.equal(shard.whole(name), tensor) for name, tensor in rows.items())
        assert np.array_equal(shard.keys(), keys)
    assert unnoticed < 8 and len(data) > 300


def test_a_shard_that_was_cut_short_anywhere_is_noticed(tmp_path):
    keys = keys_of([("a",), ("b",)])
    Shards(tmp_path).write(keys, {"moments": torch.arange(12.0).view(2, 6)})
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for size in range(0, len(data), 9):
        path.write_bytes(data[:size])
        assert Shards(tmp_path).damaged == [path]
    path.write_bytes(data + b"x")
    found = Shards(tmp_path)
    assert found.damaged == [path] and len(found) == 0
    found.clear()
    assert not path.exists()


@pytest.mark.usefixtures("two_to_a_shard")
def test_processes_share_the_work_and_make_the_same_numbers(vae, files, tmp_path, encoded):
    whole = encode(vae, files, tmp_path / "whole")
    encoded.clear()
    meeting, found, last = threading.Barrier(2, timeout=30), {}, {}

    def work(number):
        process = replace(
            Process(), process_index=number, num_processes=2, wait_for_everyone=meeting.wait
        )
        with reporting(lambda event: last.update({event.stage: (event.done, event.total)})):
            found[number] = encode(vae, files, tmp_path / "two", process=process)

    workers = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(encoded) == [1, 2, 2]
    assert torch.equal(found[0], whole) and torch.equal(found[1], whole)
    assert last == {"read": (5, 5), "latents": (3, 3)}  # of the first process, which has the more


def test_pictures_of_several_sizes_are_encoded_at_their_own(vae, tmp_path):
    sizes = [(48, 48), (32, 64), (48, 49), (65, 32)]
    for i, size in enumerate(sizes):
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    found = described(paths, tmp_path / "c", 48)
    assert found.drawn.tolist() == [[48, 48], [32, 64], [48, 48], [64, 32]]
    cached = cached_latents(Latents.of(vae), found, tmp_path / "c", ALONE, mirrored=True)
    shapes = [cached.moments([i], [1]).shape for i in range(4)]
    assert shapes == [(1, 2, 4, h // 8, w // 8) for w, h in found.drawn.tolist()]
    pixels = torch.from_numpy(np.array(Image.open(paths[1]))).permute(2, 0, 1)[None]
    alone = Latents.of(vae).encode(pixels.flip(-1))
    assert torch.allclose(cached.moments([1], [1]), alone, atol=1e-6)


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
        encode(broken, files, tmp_path / "c", batch_size=3)
    assert str(error.value).startswith(f"{files[1]}: the autoencoder overflows on this picture in ")
    assert "\n" not in str(error.value) and not list(tmp_path.glob("c/latents-*/*"))
