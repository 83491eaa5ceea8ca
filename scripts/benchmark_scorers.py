"""Print how fast the scorers of pictures are beside their encoder alone, batched and shared.

    python scripts/benchmark_scorers.py --threads 2
    python scripts/benchmark_scorers.py --memory      # of the weights, which takes no time

Weights are random, of OpenAI's ViT-L/14 in open_clip, for batches, and in transformers, for passes
that are shared; numbers cost what they cost. What is compared takes turns, every time on pictures
in another order, and the median of the ratios of neighbours is what counts. It takes 8 GB, and on
two CPU cores some minutes a pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import scorers
from benchmark_call import keep_freed_memory, seconds
from scorers.aesthetic import HEAD
from scorers.clip import DEFAULT_CLIP
from scorers.hardware import Precision

sys.path[:0] = [str(Path(__file__).parent / "research")]

from scratch import clip_bpe, clip_tokenizer  # noqa: E402

PROMPT = "a photo of a mountain lake, number {}"
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
VIT_L |= {"num_attention_heads": 16, "image_size": 224, "patch_size": 14}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
TEXT_L |= {"num_attention_heads": 12, "max_position_embeddings": 77}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
SIGLIP |= {"num_attention_heads": 16, "image_size": 384, "patch_size": 14}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what is measured. ``clip`` is open_clip's name; the others are transformers' settings."""

    clip: str = DEFAULT_CLIP
    vision: dict[str, int]
    text: dict[str, int]
    pictures: int  # in a batch
    alone: int  # of them, one by one
    precision: Precision = "auto"
    side: int  # pixels of a picture


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Pictures a second of the aesthetic scorer in batches and one by one, and of its encoder."""

    scorer: float
    single: float
    encoder: float


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Seconds of the aesthetic scorer on a batch, and of it with two others on its encoder."""

    one: float
    three: float


def pictures(sizes: Sizes) -> list[Image.Image]:
    """Noise on slopes, as many as there are in a batch."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 255, sizes.side)[:, None, None]
    shape = (sizes.side, sizes.side, 3)
    drawn = (slope * rng.random(3) + rng.normal(0, 20, shape) for _ in range(sizes.pictures))
    return [Image.fromarray(array.clip(0, 255).astype(np.uint8)) for array in drawn]


def head_in(folder: Path) -> Path:
    path = folder / "head.safetensors"
    save_file(HEAD.build().state_dict(), path)
    return path


def batching(sizes: Sizes, pairs: int) -> Iterator[Batching]:
    """So many comparisons, after one that warms up."""
    images = pictures(sizes)
    with tempfile.TemporaryDirectory() as root:
        file = Path(root, "clip.safetensors")
        save_file(open_clip.create_model(sizes.clip, pretrained=None).state_dict(), file)
        scorer: Any = scorers.load(
            "aesthetic",
            clip=sizes.clip,
            clip_weights=str(file),
            head=str(head_in(Path(root))),
            precision=sizes.precision,
            batch_size=sizes.pictures,
        )
        encoder = scorer._clip
        pixels = torch.stack([encoder._pixels(image) for image in images])
        pixels = pixels.to(encoder._compute.device)

        def bare() -> None:
            with torch.inference_mode(), encoder._compute.autocast():
                encoder._model.encode_image(pixels)

        for pair in range(pairs + 1):
            images = images[1:] + images[:1]
            some = images[: sizes.alone]
            found = Batching(
                encoder=sizes.pictures / seconds(bare),
                scorer=sizes.pictures / seconds(lambda images=images: scorer(images)),
                single=sizes.alone / seconds(lambda some=some: [scorer([image]) for image in some]),
            )
            if pair:
                yield found


def sharing(sizes: Sizes, pairs: int) -> Iterator[Sharing]:
    """So many comparisons, after one that warms up."""
    images = pictures(sizes)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "clip")
        tokenizer = clip_tokenizer(*clip_bpe(), 77)
        tokenizer.save_pretrained(folder)
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = transformers.CLIPConfig(
            vision_config=sizes.vision,
            text_config={**sizes.text, **ids, "vocab_size": len(tokenizer)},
            projection_dim=HEAD.width,
        )
        transformers.CLIPModel(config).save_pretrained(folder)
        side = sizes.vision["image_size"]
        transformers.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ).save_pretrained(folder)
        head = str(head_in(Path(root)))
        given: dict[str, Any] = {"precision": sizes.precision}
        given |= {"batch_size": sizes.pictures}
        using = [
            scorers.load("aesthetic", clip=str(folder), head=head, **given),
            scorers.load("clip_score", clip=str(folder), **given),
            scorers.load("pickscore", model=str(folder), **given),
        ]

        def score(these: list[scorers.Scorer]) -> Callable[[], Any]:
            nonlocal images
            images = images[1:] + images[:1]
            prompts = [PROMPT.format(i) for i in range(len(images))]
            return lambda images=images: [scorer(images, prompts) for scorer in these]

        for pair in range(pairs + 1):
            found = Sharing(one=seconds(score(using[:1])), three=seconds(score(using)))
            if pair:
                yield found


def memory() -> dict[str, int]:
    """Bytes of each scorer's weights in float32, of the models they have by default."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision |= {"num_attention_heads": 16, "image_size": 224, "patch_size": 16}
    reader = {"vocab_size": 30524, "encoder_hidden_size": 1024, "is_decoder": True}
    with torch.device("meta"):
        vit_l = [open_clip.create_model(DEFAULT_CLIP, device="meta")]
        vit_h = [open_clip.create_model("ViT-H-14", device="meta")]
        siglip = [transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIGLIP))]
        blip = [
            transformers.BlipVisionModel(transformers.BlipVisionConfig(**vision)),
            transformers.BlipTextModel(
                transformers.BlipTextConfig(
                    **reader, intermediate_size=3072, num_attention_heads=12
                ),
                add_pooling_layer=False,
            ),
        ]
    parts = {
        "aesthetic": vit_l,
        "aesthetic_v2_5": siglip,
        "clip_iqa": vit_l,
        "clip_score": vit_l,
        "hps": vit_h,
        "image_reward": blip,
        "pickscore": vit_h,
    }
    return {
        name: sum(4 * p.numel() for model in models for p in model.parameters())
        for name, models in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=32, help="in a batch")
    parser.add_argument("--alone", type=int, default=8, help="of them, one by one")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    parser.add_argument("--memory", action="store_true", help="of the weights; nothing is run")
    options = parser.parse_args()
    if options.memory:
        for name, size in memory().items():
            print(f"{name}: {size / 1e9:.1f} GB")
        return
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    sizes = Sizes(
        vision=VIT_L,
        text=TEXT_L,
        pictures=options.pictures,
        alone=options.alone,
        precision=options.precision,
        side=512,
    )
    batched, shared = [], []
    for batch in batching(sizes, options.pairs):
        print(
            f"pictures/s: scorer {batch.scorer:.2f}, one by one {batch.single:.2f}, its encoder "
            f"{batch.encoder:.2f}",
            flush=True,
        )
        batched.append(batch)
    for both in sharing(sizes, options.pairs):
        print(f"one scorer {both.one:.2f} s, three {both.three:.2f} s", flush=True)
        shared.append(both)
    print(
        f"ViT-L/14, {options.pictures} pictures, precision {options.precision}, "
        f"{torch.get_num_threads()} threads; medians"
    )
    found = {
        "batched / one by one": (b.scorer / b.single for b in batched),
        "scorer / its encoder": (b.scorer / b.encoder for b in batched),
        "aesthetic, clip_score and pickscore / aesthetic": (s.three / s.one for s in shared),
    }
    for name, ratios in found.items():
        print(f"{name}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
