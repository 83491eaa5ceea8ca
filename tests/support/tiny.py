"""Everything the command line needs, as small as can be: a stock Stable Diffusion folder with
random weights, captioned pictures, the labelled folder, a training config and an adapter of each
mode. Made once for a session, through the command line itself where it makes them."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from ric_diffusion.cli import main
from scratch import TextToImageTrainer
from support.model import SCHEDULER, TEXT, UNET, autoencoder

REWARDS = ["compressibility", "colorfulness"]
SCORERS = ["compressibility:resize=none", "colorfulness"]
NAMES = ["red apple", "cat face", "rocket", "pizza"]
COUNT = 14


def pictures():
    """COUNT pictures of 64x64, from plain and grey to noisy and colourful, not in that order."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        noise, colour = (5 * i) % COUNT, i
        base = np.full((64, 64, 3), 128.0)
        base[16:48, 16:48] += 9 * colour * np.array([1.0, -0.5, -1.0])
        base += rng.normal(0, 1 + 4 * noise, (64, 64, 1))
        yield Image.fromarray(base.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path):
    folder.mkdir(parents=True)
    rows = []
    for i, picture in enumerate(pictures()):
        picture.save(folder / f"{i}.png")
        name = NAMES[i % len(NAMES)]
        style = "flat" if i < 5 else "noisy"
        rows.append({"file_name": f"{i}.png", "captions": [name, f"a {name}"], "style": style})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_model(folder: Path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.stack(
            [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures()]
        )
        model = TextToImageTrainer(
            autoencoder(),
            images,
            [[NAMES[i % len(NAMES)]] for i in range(COUNT)],
            REWARDS,
            text_encoder=TEXT | {"max_position_embeddings": 64},
            unet=UNET,
            scheduler=SCHEDULER,
        )
        model.save(folder)


def config(root: Path, mode: str, **changes):
    """A training config as plain data; ``changes`` replace whole entries."""
    return {
        "model": str(root / "model"),
        "data": str(root / "labelled"),
        "diffusion": {
            "mode": mode,
            "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "convolution"]},
            "sampling": {"guidance_scale": 3.0, "num_inference_steps": 3},
        },
        "loop": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 0.01,
            "log_every": 1,
            "validate_every": 3,
            "precision": "bf16" if mode == "text" else "fp32",
        },
        "prompts": ["red apple", "pizza"],
        **changes,
    }


def write_config(path: Path, data) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def make(root: Path) -> Path:
    """The lot under ``root``; what is there already is left as it is."""
    if (root / "done").exists():
        return root
    root.mkdir()
    torch.set_num_threads(1)
    write_model(root / "model")
    write_pictures(root / "pictures")
    label = ["label", str(root / "pictures"), "--out", str(root / "labelled")]
    assert main([*label, "--scorers", *SCORERS]) == 0
    for mode in ("embedding", "text"):
        path = write_config(root / f"{mode}.yaml", config(root, mode))
        assert main(["train", str(path), "--out", str(root / mode)]) == 0
    (root / "done").touch()
    return root
