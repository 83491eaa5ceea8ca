"""Training text encoder and U-Net with everything on the device: latents, placed latents, and the
token ids of every caption and reward word, from which a batch is put together in a few operations.

On a GPU the tokenizer, and a Python loop over a batch, would take longer than the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTokenizer

from placement import GRAMMAR, draw_placement, placed
from placement import MOST as WORDS
from ric_diffusion.io.progress import tracked
from ric_diffusion.models.diffusion.objective import DiscreteDiffusion
from ric_diffusion.models.protocol import Batch
from scratch import READ_WEIGHT, VALUE_RANGE, TextToImageTrainer, encoded

TENTHS = round(10 * VALUE_RANGE)  # on either side of 0: what a reward word can say


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of K captions (K, T) and of L reward words of each value (L + 1, V, W), without
    special tokens, and how many there are of each, (K,) and (L + 1, V). The last label stands for
    no word."""

    captions: torch.Tensor
    caption_lengths: torch.Tensor
    words: torch.Tensor
    word_lengths: torch.Tensor
    begin: int
    end: int
    context: int

    @classmethod
    def of(
        cls,
        tokenizer: CLIPTokenizer,
        captions: Sequence[str],
        labels: Sequence[str],
        device: torch.device,
    ) -> Tokens:
        values = [tenths / 10 for tenths in range(-TENTHS, TENTHS + 1)]
        words = [f"<{label}> {value:.1f}" for label in labels for value in values]
        caption_ids, caption_lengths = padded(_ids(tokenizer, captions))
        word_ids, word_lengths = padded([*_ids(tokenizer, words), *([[]] * len(values))])
        shape = (len(labels) + 1, len(values))
        return cls(
            captions=caption_ids.to(device),
            caption_lengths=caption_lengths.to(device),
            words=word_ids.unflatten(0, shape).to(device),
            word_lengths=word_lengths.unflatten(0, shape).to(device),
            begin=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
            context=tokenizer.model_max_length,
        )

    @property
    def none(self) -> int:
        """The label of no word."""
        return len(self.words) - 1

    def lines(
        self, captions: torch.Tensor, labels: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions (B,) followed by reward words, ``labels`` and ``values`` (B, S) -> ids
        (B, context) and where the last token of each word is, (B, S). A caption is cut where there
        is no room for both, words never."""
        lengths = self.word_lengths[labels, values]
        room = self.context - 2 - lengths.sum(1)
        caption_lengths = torch.minimum(self.caption_lengths[captions], room)
        ends = 1 + caption_lengths[:, None] + lengths.cumsum(1)
        place = torch.arange(self.context, device=captions.device)[None]
        ids = torch.full((len(captions), self.context), self.end, device=captions.device)
        ids[:, 0] = self.begin

        def put(tokens: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
            within = (place >= start[:, None]) & (place < end[:, None])
            at = (place - start[:, None]).clamp(0, tokens.shape[1] - 1)
            return torch.where(within, tokens.gather(1, at), ids)

        ids = put(self.captions[captions], torch.ones_like(captions), 1 + caption_lengths)
        for i in range(labels.shape[1]):
            ids = put(
                self.words[labels[:, i], values[:, i]], ends[:, i] - lengths[:, i], ends[:, i]
            )
        return ids, ends - 1


def _ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, verbose=False
    ).input_ids
    return found


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of numbers -> (N, longest), filled with 0, and their lengths (N,)."""
    lengths = torch.tensor([len(row) for row in rows])
    out = torch.zeros(len(rows), max(1, int(lengths.max())), dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return out, lengths


class ResidentTrainer(TextToImageTrainer):
    """As TextToImageTrainer, with numbers in captions from the beginning, on the device that the
    autoencoder and the pictures are on."""

    def __init__(
        self,
        vae: AutoencoderKL,
        images: torch.Tensor,
        captions: Sequence[Sequence[str]],
        labels: Sequence[str],
        *,
        numbers_fraction: float,
        variants: int,
        seed: int,
        **settings: Any,
    ) -> None:
        """``numbers_fraction`` of a batch are one of ``variants`` placements of a picture: smaller
        or larger, moved or turned, with captions that say so. They are drawn by ``seed`` and
        encoded once."""
        super().__init__(vae, images, captions, labels, **settings)
        device = images.device
        self.unet.to(device, memory_format=torch.channels_last)
        self.unet.set_attn_processor(AttnProcessor2_0())
        self.network: Any = self.unet  # or compiled, with the same weights
        self.text_encoder.to(device)
        self.reader.to(device)
        self.numbers_fraction = numbers_fraction
        draws = torch.Generator().manual_seed(seed)
        self.placements = [[draw_placement(draws) for _ in range(variants)] for _ in images]
        columns = list(zip(*self.placements, strict=True))
        latents = [
            encoded(vae, placed(images, column)) * vae.config.scaling_factor
            for column in tracked(columns, "placements", unit="variant")
        ]
        self.placed_latents = torch.stack(latents, dim=1)  # (N, V, C, h, w)
        texts = ["", *dict.fromkeys(chain.from_iterable(captions))]
        self.tokens = Tokens.of(self.tokenizer, texts, [*labels, *GRAMMAR.names], device)
        number = {text: i for i, text in enumerate(texts)}
        owned, counts = padded([[number[text] for text in each] for each in captions])
        self.owned, self.counts = owned.to(device), counts.to(device)
        self.words = torch.stack(
            [torch.stack([self._words(p) for p in each]) for each in self.placements]
        ).to(device)  # (N, V, 2, WORDS): labels and values

    def _words(self, placement: Mapping[str, float]) -> torch.Tensor:
        """(2, WORDS): labels and values of a placement."""
        first = self.tokens.none - len(GRAMMAR.names)
        found = [
            (first + i, TENTHS + round(10 * placement[name]))
            for i, name in enumerate(GRAMMAR.names)
            if name in placement
        ]
        found += [(self.tokens.none, 0)] * (WORDS - len(found))
        return torch.tensor(found).T

    def loss(self, batch: Batch) -> torch.Tensor:
        device = self.latents.device
        # The batch's own lives on the CPU, which takes long for as much noise as this.
        seed = int(torch.randint(2**62, (), generator=batch.generator))
        generator = torch.Generator(device).manual_seed(seed)
        rows = torch.tensor(batch.indices, device=device)
        captions, words, latents = self.draw(rows, generator)
        labels, values = words.unbind(1)
        ids, _ = self.tokens.lines(captions, labels, values)
        read_ids, where, aims = self.draw_words(captions[: len(rows) // 8 + 1], generator)
        states = self.text_encoder(torch.cat([ids, read_ids])).last_hidden_state
        context = states[: len(rows)]

        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            predicted: torch.Tensor = self.network(noisy, t, encoder_hidden_states=context).sample
            return predicted

        objective = DiscreteDiffusion.of(self.scheduler)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        t = objective.times(len(rows), batch.generator).to(device)
        denoising = objective.errors(predict, latents, noise, t).mean()
        return denoising + READ_WEIGHT * self.reader.loss(states[len(rows) :], where, aims)

    def draw(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures (B,) -> the captions to use (B,), 0 for none, the words behind them
        (B, 2, WORDS) and the latents (B, C, h, w), mirrored or placed."""
        drop, other, which, mirror, chance, variant = torch.rand(
            6, len(rows), generator=generator, device=rows.device
        )
        counts, variants = self.counts[rows], self.words.shape[1]
        alias = torch.where(other < self.first_caption_probability, 0.0, which * counts).long()
        captions = self.owned[rows, alias.minimum(counts - 1)]
        captions = torch.where(drop < self.prompt_dropout, 0, captions)
        moved = chance < self.numbers_fraction
        drawn = (variant * variants).long().clamp_max(variants - 1)
        none = torch.tensor([[self.tokens.none], [0]], device=rows.device)
        words = torch.where(moved[:, None, None], self.words[rows, drawn], none)
        latents = self.latents[rows, (mirror < 0.5).long()]
        placed = self.placed_latents[rows, drawn]
        return captions, words, torch.where(moved[:, None, None, None], placed, latents)

    def draw_words(
        self, captions: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What ``NumberReader.draw`` does, for captions (B,): ids (B, T), value positions and aims
        (B, L)."""
        count, labels = len(captions), len(self.reader.labels)
        most, device = min(WORDS, labels), captions.device
        order = torch.rand(count, labels, generator=generator, device=device).argsort(1)[:, :most]
        some = torch.randint(1, most + 1, (count, 1), generator=generator, device=device)
        given = torch.arange(most, device=device) < some
        chosen = torch.where(given, order, self.tokens.none)
        draws = torch.rand(count, most, generator=generator, device=device)
        values = (draws * 2 * TENTHS).round().long()
        ids, last = self.tokens.lines(captions, chosen, values)
        # What stands for no word is behind the labels that are read, and cut off.
        where = torch.zeros(count, self.tokens.none + 1, dtype=torch.long, device=device)
        aims = torch.zeros(count, self.tokens.none + 1, device=device)
        where.scatter_(1, chosen, last)
        aims.scatter_(1, chosen, (values - TENTHS) / 10)
        return ids, where[:, :labels], aims[:, :labels]
