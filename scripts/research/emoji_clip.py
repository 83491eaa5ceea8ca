"""A small CLIP from scratch: a convolutional and a text tower on captioned emoji."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from ric_diffusion.io.files import replacing_folder, write_json
from ric_diffusion.models.protocol import Batch
from scorers.encoder import Encoder
from scratch import compact_tokenizer, pruned_tokenizer

MEAN = STD = (0.5, 0.5, 0.5)
LARGEST_SCALE = 100.0  # of cosines, as OpenAI's CLIP bounds it
SETTLING = 64  # batches that the statistics of batch normalisation are taken over
AS_NAMED, SHORTENED = 0.5, 0.75  # caption: the name below the first draw, some keywords above both


def roughened(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures as a small diffusion model may draw them: (B, 3, H, W) uint8 -> the same, float32
    from 0 to 1.

    Mirrored, placed elsewhere in another size, with wavy outlines, blurred, noisy, and one in four
    as a JPEG. Colours stay: prompts name them. The ground that a move leaves is white.
    """
    count, _, height, width = images.shape
    draws = torch.rand(count, 6, generator=generator)
    mirrored = 1 - 2 * (draws[:, 0] < 0.5).float()
    zoom = (draws[:, 1] - 0.5).mul(0.6).exp()
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0], place[:, 1, 1] = mirrored * zoom, zoom
    place[:, :, 2] = 0.3 * (draws[:, 2:4] - 0.5)
    grid = F.affine_grid(place, list(images.shape), align_corners=False)  # (B, H, W, 2)
    waves = 0.05 * torch.randn(count, 2, 5, 5, generator=generator)
    waves = F.interpolate(waves, (height, width), mode="bicubic", align_corners=True)
    ink = F.grid_sample(
        1 - images / 255,
        grid + waves.permute(0, 2, 3, 1),
        padding_mode="zeros",
        align_corners=False,
    )
    coarse = F.interpolate(F.avg_pool2d(ink, 4), (height, width), mode="bilinear")
    ink = ink.lerp(coarse, draws[:, 4, None, None, None].square())
    noise = torch.randn(ink.shape, generator=generator) * 0.08 * draws[:, 5, None, None, None] ** 2
    seen = (1 - ink + noise).clamp(0, 1)
    for row in range(0, count, 4):
        quality = int(torch.randint(20, 96, (), generator=generator))
        seen[row] = _as_jpeg((255 * seen[row]).round().to(torch.uint8), quality) / 255
    return seen


def _as_jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """(3, H, W) uint8 -> what is left of it."""
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def drawn_caption(captions: Sequence[str], draws: Sequence[float]) -> str:
    """One caption of a picture, the name first among its captions: that, any of them, or some of
    the keywords that the last one may list after the name. ``draws``: at least 8, from 0 to 1."""
    which, chosen, *kept = draws
    if which < AS_NAMED:
        return captions[0]
    name, *keywords = captions[-1].split(", ")
    if which < SHORTENED or not keywords:
        return captions[int(chosen * len(captions))]
    some = [word for word, keep in zip(keywords, kept, strict=False) if keep < 0.6]
    # A keyword alone, such as "animal", belongs to hundreds of names.
    return ", ".join(some if len(some) > 1 else [name, *some])


def contrastive_loss(
    pictures: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, names: Sequence[int]
) -> torch.Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, arXiv 2103.00020) of unit vectors (B, D), in which
    pictures and captions of one name are no negatives of each other."""
    logits = scale * pictures @ texts.T  # (B, B)
    name = torch.as_tensor(names)
    same = (name[:, None] == name).fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    rows = torch.arange(len(name))
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2


class ClipTrainer:
    """Both towers on roughened pictures and drawn captions; a backend for the training loop.

    ``save`` writes a folder that open_clip loads as ``local-dir:FOLDER``.
    """

    buckets = None

    def __init__(
        self,
        settings: Mapping[str, Any],
        images: torch.Tensor,
        captions: Sequence[Sequence[str]],
        names: Sequence[str],
    ) -> None:
        """``settings`` are open_clip's ``model_cfg`` without what the tokenizer decides; ``images``
        (N, 3, H, W) uint8; ``captions`` and ``names`` of each."""
        words = [word for each in captions for word in each] + ["0 1 2 3 4 5 6 7 8 9"]
        self.tokenizer = pruned_tokenizer(words, settings["text_cfg"]["context_length"])
        text = {
            **settings["text_cfg"],
            "vocab_size": len(self.tokenizer),
            "hf_tokenizer_name": "in this folder",  # open_clip looks nowhere else
        }
        self.settings = {**settings, "text_cfg": text}
        self.model = open_clip.model.CLIP(**self.settings).train()
        self.images, self.captions = images, captions
        numbers = {name: index for index, name in enumerate(dict.fromkeys(names))}
        self.names = [numbers[name] for name in names]

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return dict(self.model.named_parameters())

    def loss(self, batch: Batch) -> torch.Tensor:
        rows = list(batch.indices)
        draws = torch.rand(len(rows), 8, generator=batch.generator).tolist()
        texts = [drawn_caption(self.captions[i], d) for i, d in zip(rows, draws, strict=True)]
        pictures = self._seen(rows, batch.generator)
        return contrastive_loss(
            self.model.encode_image(pictures, normalize=True).float(),
            self.model.encode_text(self._ids(texts), normalize=True).float(),
            self.model.logit_scale.exp().clamp(max=LARGEST_SCALE),
            [self.names[i] for i in rows],
        )

    def _seen(self, rows: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        pixels = roughened(self.images[rows], generator)
        return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    def _ids(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.as_tensor(
            self.tokenizer(
                list(texts), padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
        )

    @torch.no_grad()
    def settle(self, batch_size: int, generator: torch.Generator) -> None:
        """Take the statistics of batch normalisation anew, over ``SETTLING`` batches: those from
        training are of the weights before they were averaged. Afterwards the model is in
        evaluation."""
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
        self.model.train()
        for _ in range(SETTLING):
            rows = torch.randint(len(self.images), (batch_size,), generator=generator)
            self.model.encode_image(self._seen(rows.tolist(), generator))
        self.model.eval()

    def save(self, folder: Path) -> None:
        """Write weights in half precision, which open_clip loads as float32, config and tokenizer,
        none of which is pickled."""
        halves = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict().items()
        }
        preprocessing = {
            "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest",
        }  # fmt: skip
        with replacing_folder(folder) as temporary:
            save_file(halves, temporary / "open_clip_model.safetensors")
            config = {"model_cfg": self.settings, "preprocess_cfg": preprocessing}
            write_json(temporary / "open_clip_config.json", config)
            self.tokenizer.save_pretrained(temporary)
            compact_tokenizer(temporary)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How pictures of M names find their captions.

    Attributes:
        found: how often the right caption comes before all distractors.
        ranked: how often it comes before a distractor.
        right: mean cosine with the right caption.
        wrong: with the distractors.
    """

    found: float
    ranked: float
    right: float
    wrong: float


def retrieval(
    encoder: Encoder,
    images: Sequence[Image.Image],
    names: Sequence[str],
    distractors: int,
    seed: int,
) -> Retrieval:
    """Of ``images``, each with its name; ``distractors`` are drawn for each picture out of the
    other names. ValueError if there are too few of those."""
    known = list(dict.fromkeys(names))
    if len(known) <= distractors:
        raise ValueError(f"{distractors} distractors are more than {len(known)} names have others")
    cosines = (encoder.encode_images(images) @ encoder.encode_texts(known).T).numpy()  # (N, M)
    rng = np.random.default_rng(seed)
    own, others = np.empty(len(names)), np.empty((len(names), distractors))
    for row, name in enumerate(names):
        right = known.index(name)
        wrong = rng.choice(np.delete(np.arange(len(known)), right), distractors, replace=False)
        own[row], others[row] = cosines[row, right], cosines[row, wrong]
    better = own[:, None] > others
    return Retrieval(
        found=float(better.all(axis=1).mean()),
        ranked=float(better.mean()),
        right=float(own.mean()),
        wrong=float(others.mean()),
    )
