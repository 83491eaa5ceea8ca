"""The text encoder alone learns to carry numbers to the end of its texts.

A U-Net hears of a text by attention, and by what it pools over all of its tokens; a number that is
only in the state of its own last digit is a fortieth of that. CLIP's pretraining has an encoder sum
a text up in its end-of-text tokens. Here, behind a number, every state up to the last is what it is
without reward words, and in addition has the value along a direction of its label: no reward is
needed for that, and no picture. All else that the encoder says of a text stays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.protocol import Batch
from scratch import NumberReader, padded_ids

LENGTH = 1.5  # of one z; a state of emoji-64's has a length of 14
KEPT_WEIGHT, CARRIED_WEIGHT = 20.0, 3.0
LAST_KEPT_WEIGHT = 400.0  # in the end: a model that was trained on these states has to know them


class CarryTrainer:
    """A backend for the training loop, whose records are texts."""

    buckets = None

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        texts: Sequence[str],
        labels: Sequence[str],
        seed: int,
    ) -> None:
        """Of the ``texts`` those that leave room for it are given numbers behind ``labels``, whose
        directions are drawn by ``seed``."""
        self.text_encoder = text_encoder.train().requires_grad_(True)
        self.before = copy.deepcopy(text_encoder).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.texts = texts
        self.kept_weight = KEPT_WEIGHT
        self.reader = NumberReader(text_encoder.config.hidden_size, labels, tokenizer)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(text_encoder.config.hidden_size, len(labels), generator=generator)
        self.directions = torch.linalg.qr(drawn).Q.T  # (L, D), orthonormal
        longest = max(len(self.reader.ids(f"<{label}> -2.9")) for label in labels)
        room = tokenizer.model_max_length - 2 - self.reader.most * longest
        self.short = [text for text in texts if len(self.reader.ids(text)) <= room]
        if not self.short:
            raise InputError(f"no caption leaves room for {self.reader.most} numbers; give some "
                             f"of {room} tokens or less")  # fmt: skip

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return dict(self.text_encoder.named_parameters())

    def loss(self, batch: Batch) -> torch.Tensor:
        """What texts without numbers lose, and what those with numbers lack, both relative to the
        mean square of a state; and the squared error of the values, in z."""
        which = torch.randint(len(self.short), (len(batch.indices),), generator=batch.generator)
        texts = ["", *(self.short[i] for i in which.tolist())]
        spoken, where, values = self.reader.draw(texts, batch.generator)
        plain = padded_ids(self.tokenizer, [self.texts[i] for i in batch.indices])
        with torch.no_grad():
            old = self.before(
                torch.cat([plain, padded_ids(self.tokenizer, texts)])
            ).last_hidden_state
        new = self.text_encoder(torch.cat([plain, spoken])).last_hidden_state
        count, size = len(plain), old.square().mean()
        kept = (new[:count] - old[:count]).square().mean() / size

        said = _from(where, new.shape[1])  # (B, T, L): behind the number of a label
        aims = LENGTH * (said * values[:, None]) @ self.directions
        errors = (new - old)[count:] - aims  # (B, T, D)
        along = errors @ self.directions.T  # (B, T, L)
        across = errors - along @ self.directions
        # Judged at the last token of each value, and at all behind the last of them.
        judged = (said.sum(-1) == (where > 0).sum(-1)[:, None]).float()
        judged.scatter_(1, where, 1.0)
        judged[:, 0] = 0.0  # the place that stands for no number
        total = judged.sum()
        carried = (along.square().mean(-1) * judged).sum() / total / LENGTH**2
        same = (across.square().mean(-1) * judged).sum() / total / size
        return self.kept_weight * kept + CARRIED_WEIGHT * carried + same


def _from(where: torch.Tensor, length: int) -> torch.Tensor:
    """Positions (B, L), 0 for none -> (B, T, L): 1 from there on."""
    place = torch.arange(length)[None, :, None]
    return ((where[:, None] > 0) & (place >= where[:, None])).float()
