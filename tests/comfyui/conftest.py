"""ComfyUI's engine, once for all tests here."""

from pathlib import Path

import pytest
import torch

import ric_diffusion.comfyui
from support.comfy import Engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory) -> Engine:
    torch.set_num_threads(1)
    made = Engine(tmp_path_factory.mktemp("comfyui"))
    link = made.folder / "custom_nodes" / "reward-sliders"
    link.parent.mkdir()
    link.symlink_to(Path(ric_diffusion.comfyui.__file__).parent)
    made.load_nodes(link)
    return made
