"""What a scorer is: the shape every one has, and the checks the built-in ones share."""

from __future__ import annotations

import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike


MOST_LINE = 300  # characters of a message


def clipped(message: str) -> str:
    """A message of MOST_LINE characters at most: what is wrong and where stands at its beginning,
    how to mend it at its end."""
    if len(message) <= MOST_LINE:
        return message
    return f"{message[: MOST_LINE * 2 // 3]} … {message[3 - MOST_LINE // 3 :]}"


class ScorerError(ValueError):
    """What was asked for is wrong. One line: what was given, where, how to mend it, without the
    middle where that is long."""

    def __str__(self) -> str:
        return clipped(super().__str__())


class WeightsError(ScorerError):
    """What was asked for is right, but its weights cannot be fetched here, or its server does not
    answer."""


class Scorer(Protocol):
    """A callable that labels samples with a number, higher is better."""

    @property
    def name(self) -> str:
        """Its name, and its reward's; ``scorers.load`` knows it by that too, unless it has a
        ``kind``, which then is what ``scorers.load`` takes."""

    @property
    def unit(self) -> str:
        """The unit of its scores, for people to read."""

    @property
    def options(self) -> dict[str, Any]:
        """JSON-able; ``scorers.load(scorer.name, **scorer.options)`` builds the scorer again,
        with ``scorer.kind`` instead where it has one."""

    @property
    def fingerprint(self) -> str:
        """One line naming all that the scores depend on. Equal fingerprints, equal scores."""

    def __call__(self, images: Sequence[Any], prompts: Sequence[str] | None = None) -> np.ndarray:
        """Score N images (or texts), with their N prompts where it reads prompts: float32, (N,)."""


class BaseScorer(ABC):
    """A scorer that gets its arguments checked; subclasses write ``_score``."""

    name: str
    unit: str
    medium: Literal["image", "text"] = "image"
    needs_prompts: bool = False
    # "prompt": scores of pictures of different prompts cannot be compared. A scorer that is none of
    # these and has no such attribute counts as None.
    compares_within: Literal["prompt"] | None = None
    # Whether it takes the picture and little else: no network, no server. Several processes then
    # score faster than several threads of one.
    light: bool = False
    options: dict[str, Any]
    fingerprint: str

    def __call__(self, images: Sequence[Any], prompts: Sequence[str] | None = None) -> np.ndarray:
        """Score N images: float32 of shape (N,), in ``unit``, higher is better.

        ``images`` are PIL images of any mode and size, left as they are. ``prompts`` is None or
        has the images' length; scorers with ``needs_prompts`` want it.
        """
        import numpy as np

        checked = self._check_samples(images)
        checked_prompts = self._check_prompts(prompts, len(checked))
        if not checked:
            return np.zeros(0, dtype=np.float32)
        scores = np.asarray(self._score(checked, checked_prompts), dtype=np.float32)
        if scores.shape != (len(checked),):
            raise ScorerError(
                f"{self.name}: _score gave shape {scores.shape}, expected ({len(checked)},); it "
                f"must give one number per {self.medium}"
            )
        return scores

    @abstractmethod
    def _score(self, images: list[Any], prompts: list[str] | None) -> ArrayLike:
        """Score N >= 1 checked images: N numbers."""

    def _check_samples(self, images: Sequence[Any]) -> list[Any]:
        from PIL import Image

        if isinstance(images, Image.Image):
            raise ScorerError(f"{self.name}: images is one picture; pass a list of them: [image]")
        checked = list(images)
        for index, image in enumerate(checked):
            if not isinstance(image, Image.Image):
                kind = f"{type(image).__module__}.{type(image).__qualname__}"
                raise ScorerError(
                    f"{self.name}: images[{index}] is a {kind}; pass PIL images "
                    f"(PIL.Image.open for a file, PIL.Image.fromarray for a uint8 array)"
                )
            if 0 in image.size:
                width, height = image.size
                raise ScorerError(
                    f"{self.name}: images[{index}] is {width}x{height}, without a pixel; "
                    f"leave it out"
                )
        return checked

    def _check_prompts(self, prompts: Sequence[str] | None, count: int) -> list[str] | None:
        if prompts is None:
            if self.needs_prompts:
                raise ScorerError(
                    f"{self.name}: prompts is None, but this scorer reads prompts; "
                    f"pass one prompt per {self.medium}"
                )
            return None
        if isinstance(prompts, str):
            raise ScorerError(
                f"{self.name}: prompts is one string; pass a list, one prompt per {self.medium}"
            )
        checked = list(prompts)
        if len(checked) != count:
            raise ScorerError(
                f"{self.name}: {self.medium}s and prompts differ in number, {count} and "
                f"{len(checked)}; pass one prompt per {self.medium}"
            )
        for index, prompt in enumerate(checked):
            if self.needs_prompts and not isinstance(prompt, str):
                raise ScorerError(
                    f"{self.name}: prompts[{index}] is {prompt!r}; this scorer needs a string"
                )
        return checked


class TextScorer(BaseScorer):
    """A scorer of texts: ``scorer(texts, prompts)``, the responses of a language model and what
    they respond to."""

    medium = "text"

    @abstractmethod
    def _score(self, texts: list[str], prompts: list[str] | None) -> ArrayLike:
        """Score N >= 1 checked texts: N numbers."""

    def _check_samples(self, texts: Sequence[Any]) -> list[str]:
        if isinstance(texts, str):
            raise ScorerError(f"{self.name}: texts is one string; pass a list of them: [text]")
        checked = list(texts)
        for index, text in enumerate(checked):
            if not isinstance(text, str):
                kind = f"{type(text).__module__}.{type(text).__qualname__}"
                raise ScorerError(
                    f"{self.name}: texts[{index}] is a {kind}; this scorer reads texts, and "
                    f"pictures have scorers of their own"
                )
        return checked


def check_integer(
    scorer: str, option: str, value: Any, low: int, high: int, *, otherwise: str = ""
) -> int:
    """The option's value if it is an int in [low, high], or a ScorerError.

    ``otherwise`` tells in the message what else the option may be.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ScorerError(
            f"{scorer}: {option}={value!r} is not allowed; give an integer from {low} to {high}"
            f"{otherwise}"
        )
    return value


def check_called(kind: str, called: str | None) -> str:
    """The name that a scorer and its reward go by: ``called``, if it is a name that a reward can
    have, or else its ``kind``."""
    if called is None:
        return kind
    if not isinstance(called, str) or not re.fullmatch("[a-z][a-z0-9_]*", called):
        raise ScorerError(
            f"{kind}: called={called!r} is not a name; use small letters, digits and _, a letter "
            f"first"
        )
    return called


def check_batch_size(scorer: str, value: Any) -> int | None:
    """The option's value if it is a number of inputs or None, for what fits; or a ScorerError."""
    if value is None:
        return None
    return check_integer(scorer, "batch_size", value, 1, 65536, otherwise=", or none for what fits")


def first_line(error: BaseException) -> str:
    """An exception as part of a one-line message: its type and its first line."""
    reason, kind = reason_of(error), type(error).__name__
    return reason if reason in (kind, UNSAFE) else f"{kind}: {reason}"


UNSAFE = "it holds more than tensors, which could run code"


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, or its type. Of a pickle that torch refused its
    words are not passed on: they tell how to have it run."""
    if isinstance(error, pickle.UnpicklingError):
        return UNSAFE
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
