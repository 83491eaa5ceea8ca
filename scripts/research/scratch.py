"""Training a small Stable Diffusion from scratch: text encoder and U-Net on cached latents."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from autoencoder import to_pixels
from ric_diffusion.data.images import open_image
from ric_diffusion.data.records import Record, read_folder
from ric_diffusion.io.files import replacing_folder
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.latents import framed
from ric_diffusion.models.diffusion.objective import DiscreteDiffusion
from ric_diffusion.models.protocol import Batch

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
READ_WEIGHT = 0.1
VALUE_RANGE = 3.0  # z
ENCODED_AT_ONCE = 64


def clip_bpe() -> tuple[list[str], list[tuple[str, str]]]:
    """CLIP's 512 byte symbols and 48 894 merges, from the copy inside open_clip_torch."""
    import open_clip
    from open_clip.tokenizer import bytes_to_unicode

    path = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    symbols = list(bytes_to_unicode().values())
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : 49152 - 256 - 2 + 1])]
    return symbols + [s + "</w>" for s in symbols], merges


def clip_tokenizer(
    symbols: list[str], merges: list[tuple[str, str]], max_length: int
) -> CLIPTokenizer:
    vocabulary = [*symbols, *("".join(m) for m in merges), BOS, EOS]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=max_length,
    )


def pruned_tokenizer(texts: Iterable[str], max_length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with only the merges that ``texts`` use: same splits, a tenth of the rows.

    Any other text still has tokens, down to single bytes.
    """
    symbols, merges = clip_bpe()
    full = clip_tokenizer(symbols, merges, max_length)
    by_result = {"".join(m): m for m in merges}
    words = sorted({word for text in texts for word in text.split()})
    waiting = list(set(chain.from_iterable(full.tokenize(word) for word in words)))
    used: set[tuple[str, str]] = set()
    while waiting:
        merge = by_result.get(waiting.pop())
        if merge is not None and merge not in used:
            used.add(merge)
            waiting += merge
    return clip_tokenizer(symbols, [m for m in merges if m in used], max_length)


def compact_tokenizer(folder: Path) -> None:
    """Write a saved tokenizer again without the indent of every merge, which more than doubles the
    file."""
    file = folder / "tokenizer.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    file.write_text(text, encoding="utf-8")


def padded_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """(B, T): cut and padded to the tokenizer's length."""
    found = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return torch.as_tensor(found.input_ids)


class NumberReader(torch.nn.Module):
    """An auxiliary head that makes the text encoder tell numbers apart; thrown away afterwards.

    Reward words end a text, as in ``red apple <colorfulness> 1.5``; at the last token of each
    value a linear map of the hidden state has to give the value in the row of its label and 0 in
    all others. An encoder trained on names alone maps 1.5 and -0.5 to nearly the same state.
    """

    def __init__(self, width: int, labels: Sequence[str], tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.head = torch.nn.Linear(width, len(labels))
        self.labels = labels
        self.tokenizer = tokenizer

    def draw(self, texts: Sequence[str], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Texts with 1 to 3 random reward words -> ids (B, T), value positions and aims (B, L)."""
        length = self.tokenizer.model_max_length
        ids = torch.full((len(texts), length), self.tokenizer.eos_token_id)
        where = torch.zeros(len(texts), len(self.labels), dtype=torch.long)
        aims = torch.zeros(len(texts), len(self.labels))
        for row, text in enumerate(texts):
            count = int(torch.randint(1, self.most + 1, (), generator=generator))
            chosen = torch.randperm(len(self.labels), generator=generator)[:count].tolist()
            values = (torch.rand(count, generator=generator) * 2 - 1) * VALUE_RANGE
            words = [
                self.ids(f"<{self.labels[label]}> {value:.1f}")
                for label, value in zip(chosen, values.tolist(), strict=True)
            ]
            room = length - 2 - sum(map(len, words))
            line = [self.tokenizer.bos_token_id, *self.ids(text)[:room]]
            for label, value, word in zip(chosen, values.tolist(), words, strict=True):
                line += word
                where[row, label] = len(line) - 1
                aims[row, label] = round(value, 1)
            ids[row, : len(line)] = torch.tensor(line)
        return ids, where, aims

    @property
    def most(self) -> int:
        """How many numbers a text has at most."""
        return min(3, len(self.labels))

    def ids(self, text: str) -> list[int]:
        """Without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def loss(self, states: torch.Tensor, where: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        """Squared error at the value positions; ``states`` (B, T, D)."""
        labels = where.shape[1]
        at = states.float().gather(1, where[..., None].expand(-1, -1, states.shape[-1]))
        read = F.linear(at, self.head.weight.float(), self.head.bias.float())  # (B, L, L)
        wanted = torch.diag_embed(aims)
        present = (where > 0).float()[..., None]
        return ((read - wanted).square() * present).sum() / (present.sum() * labels)


class TextToImageTrainer:
    """Text encoder and U-Net together, on latents encoded once for both mirror images.

    A backend for the training loop; ``save`` writes the whole pipeline.
    """

    buckets = None
    largest_file: int | None = None

    def __init__(
        self,
        vae: AutoencoderKL,
        images: torch.Tensor,
        captions: Sequence[Sequence[str]],
        labels: Sequence[str],
        *,
        text_encoder: Mapping[str, Any],
        unet: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        prompt_dropout: float = 0.1,
        first_caption_probability: float = 0.6,
    ) -> None:
        """``images`` (N, 3, H, W) uint8; ``captions`` per picture, the name first: it is used
        ``first_caption_probability`` of the time, any of them otherwise. ``labels``: the reward
        labels behind which the text encoder learns to read numbers. The rest are diffusers' and
        transformers' own settings."""
        words = [word for each in captions for word in each] + [*labels, "0 1 2 3 4 5 6 7 8 9"]
        self.tokenizer = pruned_tokenizer(words, text_encoder["max_position_embeddings"])
        self.vae = vae
        self.latents = scaled_latents(vae, images)
        self.captions = captions
        self.text_encoder = small_text_encoder(self.tokenizer, text_encoder)
        self.unet = UNet2DConditionModel(**unet)
        FAMILY.prepare_cpu_training(self.unet)
        self.scheduler = DDIMScheduler(**scheduler)
        self.reader = NumberReader(text_encoder["hidden_size"], labels, self.tokenizer)
        self.prompt_dropout = prompt_dropout
        self.first_caption_probability = first_caption_probability
        self.states: dict[str, torch.Tensor] = {}  # by caption, once the text encoder is frozen

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        parts = {"unet": self.unet}
        if not self.states:
            parts |= {"text_encoder": self.text_encoder, "reader": self.reader}
        return {
            f"{part}.{name}": parameter
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def freeze_text(self) -> None:
        """Train the U-Net alone from here on: every caption is encoded once, which saves almost
        half of a step."""
        self.text_encoder.eval().requires_grad_(False)
        texts = sorted({"", *chain.from_iterable(self.captions)})
        for i in range(0, len(texts), ENCODED_AT_ONCE):
            part = texts[i : i + ENCODED_AT_ONCE]
            states = self.text_encoder(padded_ids(self.tokenizer, part)).last_hidden_state
            self.states |= dict(zip(part, states, strict=True))

    def caption(self, index: int, draws: Sequence[float]) -> str:
        """One caption of a picture, or none, by three uniform draws."""
        drop, other, which = draws
        names = self.captions[index]
        if drop < self.prompt_dropout:
            return ""
        return (
            names[0] if other < self.first_caption_probability else names[int(which * len(names))]
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        generator, rows = batch.generator, list(batch.indices)
        draws = torch.rand(len(rows), 4, generator=generator).tolist()
        texts = [self.caption(i, d[:3]) for i, d in zip(rows, draws, strict=True)]
        latents = self.latents[rows, [int(d[3] < 0.5) for d in draws]]
        if self.states:
            context = torch.stack([self.states[text] for text in texts])
            return self._denoising(latents, context, generator)
        read_ids, where, aims = self.reader.draw(texts[: len(texts) // 8 + 1], generator)
        states = self.text_encoder(
            torch.cat([padded_ids(self.tokenizer, texts), read_ids])
        ).last_hidden_state
        context = states[: len(texts)]
        denoising = self._denoising(latents, context, generator)
        return denoising + READ_WEIGHT * self.reader.loss(states[len(texts) :], where, aims)

    def _denoising(
        self, latents: torch.Tensor, context: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.unet(noisy, t, encoder_hidden_states=context).sample

        return DiscreteDiffusion.of(self.scheduler).loss(predict, latents, generator)

    def save(self, folder: Path) -> None:
        """Write a stock pipeline folder in safetensors: U-Net and autoencoder in half precision,
        which diffusers loads as float32; the text encoder in full, as transformers keeps what it
        finds and a half-precision encoder would not run beside them. No file holds more than
        ``largest_file`` bytes of weights, where that is given."""
        pipe = StableDiffusionPipeline(
            vae=copy.deepcopy(self.vae).half(),
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=copy.deepcopy(self.unet).half(),
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        with replacing_folder(folder) as temporary:
            pipe.save_pretrained(
                temporary, safe_serialization=True, max_shard_size=self.largest_file
            )
            compact_tokenizer(temporary / "tokenizer")


def small_text_encoder(tokenizer: CLIPTokenizer, settings: Mapping[str, Any]) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    # Attention as matrix products: see prepare_cpu_training.
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def read_pictures(folder: Path, size: int) -> tuple[list[Record], torch.Tensor]:
    """Records of a captioned folder and their pictures, (N, 3, size, size) uint8."""
    records = read_folder(folder)
    return records, torch.stack([framed(open_image(folder / r.file), size) for r in records])


@torch.no_grad()
def encoded(vae: AutoencoderKL, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> (N, C, h, w): posterior means, not scaled."""
    parts = [vae.encode(to_pixels(part)).latent_dist.mode() for part in images.split(batch_size)]
    return torch.cat(parts)


@torch.no_grad()
def scaled_latents(vae: AutoencoderKL, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> (N, 2, C, h, w): posterior means of each picture and its mirror image.

    Sets the autoencoder's ``scaling_factor`` so that they have unit variance.
    """
    latents = torch.stack([encoded(vae, x, batch_size) for x in (images, images.flip(-1))], dim=1)
    vae.register_to_config(scaling_factor=round(float(1.0 / latents.std()), 5))
    return latents * vae.config.scaling_factor


def megabytes(folder: Path) -> float:
    """Size of all files in a folder, in 10^6 bytes."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
