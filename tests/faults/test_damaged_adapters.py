"""Adapter folders carry a manifest: whatever of them is no longer what was written is named."""

import json
import random
import shutil

import pytest

from ric_diffusion.api.models import load
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.manifest import DamagedError
from ric_diffusion.models.known import BUNDLED
from support import strangers
from support.strangers import ABOUT, DIFFUSERS, ENCODER

MANIFEST, CARD = "manifest.json", "README.md"
FLIPS = 60  # of each file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return strangers.write(tmp_path_factory.mktemp("whole") / "adapter")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "adapter")


@pytest.mark.parametrize("name", [ABOUT, DIFFUSERS, ENCODER, MANIFEST])
def test_every_flipped_bit_is_refused(folder, name):
    path, draw = folder / name, random.Random(0)
    data = path.read_bytes()
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        with pytest.raises(DamagedError) as caught:
            strangers.family().read_adapter(folder)
        line = str(caught.value)
        assert line.startswith(str(folder)) and "\n" not in line
        assert name == MANIFEST or line.startswith(f"{path}: is damaged")
    path.write_bytes(data)
    strangers.family().read_adapter(folder)


@pytest.mark.parametrize("name", [DIFFUSERS, ENCODER])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name}: is missing; make or fetch the adapter again"):
        strangers.family().read_adapter(folder)


def test_a_file_of_another_adapter_is_named(folder, tmp_path):
    other = strangers.write(tmp_path / "other", "text")
    shutil.copy(other / ABOUT, folder)
    with pytest.raises(DamagedError, match=f"{ABOUT}: is damaged"):
        strangers.family().read_adapter(folder)


def test_a_manifest_names_files_of_its_folder_alone(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    stored = json.loads((folder / MANIFEST).read_text())
    stored["sha256"]["../secret"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(stored))
    with pytest.raises(DamagedError, match=r"manifest\.json: is damaged; '\.\./secret' is no file"):
        strangers.family().read_adapter(folder)


def test_the_card_is_written_on_by_hand(folder):
    with (folder / CARD).open("a") as card:
        card.write("The training data are my own drawings, CC0.\n")
    (folder / "notes.txt").write_text("mine")
    strangers.family().read_adapter(folder)


def test_who_writes_an_adapter_again_renews_it(folder, tmp_path):
    adapter, weights = strangers.family().read_adapter(folder)
    strangers.family().save_adapter(adapter, weights, folder)
    strangers.family().read_adapter(folder)
    strangers.change_json(folder / ABOUT, "mapping", to="linear")
    with pytest.raises(InputError, match="is damaged"):
        strangers.family().read_adapter(folder)
    (folder / MANIFEST).unlink()  # as the line says: it was on purpose
    assert strangers.family().read_adapter(folder)[0].mapping == "linear"


def test_the_bundled_one_has_one(tmp_path):
    model = shutil.copytree(BUNDLED["emoji-64"], tmp_path / "model")
    assert set(json.loads((model / "ric_adapter" / MANIFEST).read_text())["sha256"]) == {
        ABOUT,
        DIFFUSERS,
        ENCODER,
    }
    with (model / "ric_adapter" / ENCODER).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InputError, match=f"{ENCODER}: is damaged"):
        load(model)
