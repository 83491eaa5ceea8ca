"""How surely a vision-language model answers a question about a picture with yes."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakValueDictionary

from scorers import probes
from scorers.base import BaseScorer, ScorerError, check_called, check_integer, first_line
from scorers.hardware import resolve_device
from scorers.rgb import RGB_FINGERPRINT, to_rgb
from scorers.weights import check_shards, digest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

Precision = Literal["float32", "bfloat16", "float16"]

PROMPT = "{prompt}"
SUFFIX = " Please answer yes or no."
ANSWERS = ("yes", "no")

# Judges with different questions to the same weights share them while one of them lives.
_alive: WeakValueDictionary[tuple[object, ...], VisionLanguageModel] = WeakValueDictionary()


class VlmJudge(BaseScorer):
    """P(yes) / (P(yes) + P(no)) of the first token that a model answers to a question about the
    picture, from 0 to 1.

    This is VQAScore (Lin et al. 2024, "Evaluating Text-to-Visual Generation with Image-to-Text
    Generation", arXiv 2404.01291), whose P(yes) is taken of all tokens, between the two answers:
    what a model would rather say than either does not count. As there, the question is followed by
    "Please answer yes or no."

    Options: ``model``, a folder or hub id of any image-text-to-text model of transformers that has
    a chat template and answers without thinking aloud; ``question``, in which ``{prompt}`` stands
    for the picture's prompt; ``called``, the name of the scorer and its reward, so that several can
    be used together, by default vlm_judge; ``precision``, float32, or bfloat16 or float16 for half
    the memory; ``device``, None for cuda where there is one; ``batch_size``, pictures per pass. The
    last two are not in the fingerprint: they move a score by rounding only. Nor is the name.
    """

    kind = name = "vlm_judge"
    unit = "P(yes)"

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        question: str,
        called: str | None = None,
        precision: Precision = "float32",
        device: str | None = None,
        batch_size: int = 8,
    ) -> None:
        self.name = check_called(self.kind, called)
        if not isinstance(question, str) or not question.strip():
            raise ScorerError(f"{self.name}: question={question!r} is no question; give a text")
        if precision not in get_args(Precision):
            raise ScorerError(
                f"{self.name}: precision={precision!r} is not allowed; give one of "
                f"{', '.join(get_args(Precision))}"
            )
        self._batch_size = check_integer(self.name, "batch_size", batch_size, 1, 65536)
        self._question = question
        self.needs_prompts = PROMPT in question
        self._model = load_model(model, precision, device, where=f"{self.name}: model")
        self.options = {
            "model": str(model),
            "question": question,
            "called": called,
            "precision": precision,
            "device": device,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.kind} question={question!r} {self._model.fingerprint}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        import torch

        scores = []
        for start in range(0, len(images), self._batch_size):
            some = slice(start, start + self._batch_size)
            asked = [self._question] * len(images[some])
            if self.needs_prompts and prompts is not None:
                asked = [
                    self._question.replace(PROMPT, self._model.plain(prompt))
                    for prompt in prompts[some]
                ]
            scores.append(self._model.yes(images[some], [one + SUFFIX for one in asked]))
        found: np.ndarray = torch.cat(scores).numpy()
        return found


class VisionLanguageModel:
    """An image-text-to-text model of transformers in evaluation, with its processor.

    Weights are read from safetensors only, and no code that comes with them is run.
    """

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device, *, where: str) -> None:
        import torch
        import transformers

        self._device, self._dtype = device, dtype
        check_shards(name, where=f"{where}={name!r}")
        try:
            self._processor: Any = transformers.AutoProcessor.from_pretrained(
                name, trust_remote_code=False
            )
            with torch.random.fork_rng(devices=[]):  # a head may be drawn, then overwritten
                loaded, info = transformers.AutoModelForImageTextToText.from_pretrained(
                    name,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=dtype,
                    output_loading_info=True,
                )
        except Exception as error:
            raise ScorerError(
                f"{where}={name!r} cannot be loaded ({first_line(error)}); give a folder or hub id "
                f"of an image-text-to-text model with safetensors"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise ScorerError(
                f"{where}={name!r} lacks the weights of {missing[0]}; it is no model of this kind"
            )
        if not getattr(self._processor, "chat_template", None):
            raise ScorerError(
                f"{where}={name!r} has no chat template, so that nobody knows how it is asked; "
                f"give an instruction-tuned model"
            )
        self._tokenizer: Any = self._processor.tokenizer
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._yes, self._no = (self._ids(answer, f"{where}={name!r}") for answer in ANSWERS)
        # The version, since what a network gives cannot be compared exactly: its floats differ by
        # rounding from one machine to the next.
        settings = json.dumps([self._processor.chat_template, self._yes, self._no])
        self.fingerprint = (
            f"model={digest(loaded.state_dict(), settings)} {str(dtype).removeprefix('torch.')} "
            f"transformers-{transformers.__version__} pixels-{self._pixels_digest()} "
            f"{RGB_FINGERPRINT}"
        )
        self._model: Any = loaded.to(device).eval()

    def yes(self, images: Sequence[Image], questions: Sequence[str]) -> torch.Tensor:
        """N pictures and the question to each -> P(yes) (N,), float32 on the CPU."""
        import torch

        # Padded behind what is asked: positions then count as they would without, whether a model
        # learns or rotates them, and what follows a token does not change it.
        inputs = self._processor(
            text=[self._turn(question) for question in questions],
            images=[[to_rgb(image)] for image in images],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(self._device, self._dtype)
        last = inputs["attention_mask"].sum(dim=1) - 1  # (N,) the token that the answer follows
        read = last.unique()  # (K,) sorted; a vocabulary of logits for each token would be much
        with torch.inference_mode():
            if "logits_to_keep" in self._parameters:
                logits = self._model(**inputs, logits_to_keep=read).logits  # (N, K, V)
                column = torch.searchsorted(read, last)
            else:
                logits, column = self._model(**inputs).logits, last  # (N, L, V)
            logits = logits[torch.arange(len(last), device=column.device), column].float()  # (N, V)
            yes, no = (logits[:, ids].logsumexp(dim=1) for ids in (self._yes, self._no))
            return torch.sigmoid(yes - no).cpu()

    def plain(self, prompt: str) -> str:
        """A prompt without the tokens that steer the model: a prompt that has the one of pictures
        would be one picture short."""
        return self._special.sub(" ", prompt)

    def _turn(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        text: str = self._processor.apply_chat_template(turns, add_generation_prompt=True)
        return text

    def _ids(self, answer: str, what: str) -> list[int]:
        """The tokens that an answer may begin with, in any case, behind a space or not."""
        spelled = [
            f"{space}{word}"
            for space in ("", " ")
            for word in (answer, answer.capitalize(), answer.upper())
        ]
        encoded = [self._tokenizer.encode(text, add_special_tokens=False) for text in spelled]
        found = {ids[0] for ids in encoded if len(ids) == 1}  # of more, the first may be any word's
        if not found:
            raise ScorerError(
                f"{what}: its tokenizer has no token for {answer!r}; give another model"
            )
        return sorted(found)

    @cached_property
    def _parameters(self) -> set[str]:
        return set(inspect.signature(self._model.forward).parameters)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        special |= {*self._tokenizer.all_special_tokens}
        if pictures := getattr(self._processor, "image_token", None):
            special.add(pictures)
        longest_first = sorted(special, key=len, reverse=True)
        return re.compile("|".join(re.escape(token) for token in longest_first))

    def _pixels_digest(self) -> str:
        """Of what preprocessing makes of fixed pictures, to a tenth of a grey level or so."""
        seen = []
        for picture in probes.pictures():
            pixels = self._processor.image_processor([picture], return_tensors="pt")["pixel_values"]
            seen.append((pixels.float() * 1000).round().int().numpy().tobytes().hex())
        return probes.digest(seen)


def load_model(
    model: str | os.PathLike[str], precision: Precision, device: str | None, *, where: str
) -> VisionLanguageModel:
    """The model of a folder or hub id; one that is loaded already is used again."""
    import torch

    name, target = str(model), resolve_device(where.partition(":")[0], device)
    folder = Path(name)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stamps = tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
    key = (name, precision, str(target), stamps)
    found = _alive.get(key)
    if found is None:
        found = VisionLanguageModel(name, getattr(torch, precision), target, where=where)
        _alive[key] = found
    return found
