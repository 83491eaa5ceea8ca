"""What ``ric serve`` is asked and what it answers: the JSON of its requests, with their bounds.

FastAPI evaluates the annotations, and its OpenAPI document shows the docstrings.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ric_diffusion.api.values import COMMON
from ric_diffusion.io.bounds import LATEST_START, MOST_SEED

MAX_PROMPT = 2000  # characters; tokenizers take as many tokens as they like of it
MAX_COUNT, MAX_POINTS, MAX_SAMPLES = 16, 21, 64
MAX_STEPS, MAX_SCALE, MAX_SIDE = 200, 100.0, 2048
MAX_NAMES = 64  # rewards in one request
STEPS = "denoising steps; these and what follows are the adapter's own by default"

Name = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=MAX_PROMPT)]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Values = Annotated[dict[Name, float], Field(max_length=MAX_NAMES)]
Scale = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE)]
Side = Annotated[int, Field(ge=8, le=MAX_SIDE, multiple_of=8)]
Scores = dict[str, float | None]


class Message(BaseModel):
    """Unknown fields, numbers as text, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Asked(Message):
    """What all that is drawn has. What is left out comes from the adapter."""

    adapter: Name | None = Field(None, description="one that /adapters names; the first by default")
    mapping: Name | None = Field(None, description="how a preference becomes targets")
    refine: Annotated[int, Field(ge=1, le=20)] | None = Field(
        None, description="draw each sample up to so many times more and keep the nearest"
    )
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = Field(None, description=STEPS)
    guidance_scale: Scale | None = None
    true_cfg_scale: Scale | None = Field(None, description="of FLUX.1: a second pass a step")
    contrast: Scale | None = Field(
        None, description="guidance steers away from so many times the opposite of the targets"
    )
    prompt_guidance: Scale | None = Field(
        None, description="how strongly guidance pulls to the prompt, if less than to the rewards"
    )
    reward_start: Annotated[float, Field(ge=0, le=LATEST_START)] | None = Field(
        None, description="the share of the steps after which rewards speak"
    )
    width: Side | None = None
    height: Side | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of sampling, of which None is not given."""
        return {name: getattr(self, name) for name in COMMON}


class GenerateRequest(Asked):
    """Samples of a prompt, or of several. With `like`, what is not given is as it was there."""

    prompt: Prompt | None = Field(None, description="what to draw, or to respond to")
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_COUNT)] | None = Field(
        None, description="several in its place"
    )
    like: str | None = Field(
        None,
        description="a PNG in base64 that `ric` made, to draw again; the adapter that made it is "
        "found among the server's",
    )
    seed: Seed | None = Field(None, description="of the first sample of a prompt; 0 by default")
    preference: Values | None = Field(None, description="weights by reward, as sliders set them")
    targets: Values | None = Field(None, description="or values in z by reward")
    negative_targets: Values | None = Field(None, description="values in z to steer away from")
    negative_prompt: Text | None = None
    init_image: str | None = Field(
        None,
        description="a file of a picture in base64 to begin with, its middle cut to the size that "
        "is drawn",
    )
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="how much of `init_image` is drawn anew; 0.5 by default"
    )
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = Field(
        1,
        description=f"samples of each prompt; their seeds follow the first one's. {MAX_COUNT} at "
        "most of all prompts together",
    )

    @property
    def samples(self) -> int:
        """How many of all prompts together."""
        return self.count * len(self.prompts or [None])


class SweepRequest(Asked):
    """The same prompt and seed while the sliders move."""

    prompt: Prompt
    seed: Seed = 0
    points: Annotated[int, Field(ge=2, le=MAX_POINTS)] = 11
    along: Name | None = Field(
        None, description="the one reward to move; by default the preference, first to last"
    )


class ScoreRequest(Message):
    """Samples to score by the rewards of an adapter: pictures, or texts for a language model."""

    images: Annotated[list[str], Field(min_length=1, max_length=MAX_SAMPLES)] | None = Field(
        None, description="files of pictures, in base64"
    )
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_SAMPLES)] | None = None
    prompts: Annotated[list[Text], Field(max_length=MAX_SAMPLES)] | None = Field(
        None, description="one for each sample, where a scorer reads them"
    )
    adapter: Name | None = None


class Sample(Message):
    """A picture (a PNG in base64, which holds all that is said here) or a text, with what was asked
    and obtained: targets and ``obtained`` in z, scores in each scorer's unit, null where there is
    none."""

    image: str | None = None
    text: str | None = None
    prompt: str
    seed: int
    targets: dict[str, float]
    scores: Scores
    obtained: Scores
    refinement: dict[str, Any] | None = Field(None, description="how it came near its targets")


class GenerateAnswer(Message):
    """Samples in the order of the prompts and their seeds; ``notes``: what is to be said of them, a
    line each."""

    model: str
    samples: list[Sample]
    notes: list[str]


class Point(Message):
    """One place of the sliders, with the picture drawn there: a PNG in base64, which holds what
    made it and so can be drawn again by `like`."""

    image: str
    preference: dict[str, float] | None
    targets: dict[str, float]
    scores: Scores
    obtained: Scores
    refinement: dict[str, Any] | None = None


class SweepAnswer(Message):
    """The points in order, and all pictures side by side as one, the ``sheet``."""

    model: str
    prompt: str
    seed: int
    units: dict[str, str]
    points: list[Point]
    sheet: str
    notes: list[str]


class ScoreAnswer(Message):
    """By reward, for each sample: its scores in ``units``, and in z, null where it has none."""

    units: dict[str, str]
    scores: list[Scores]
    obtained: list[Scores]
    notes: list[str]


class RewardAbout(Message):
    """A reward: mean and standard deviation of its scores, which z counts from and in, and the
    range in z that targets make sense in."""

    name: str
    unit: str
    mean: float
    std: float
    lowest: float
    highest: float


class AdapterAbout(Message):
    """An adapter that requests may name."""

    name: str
    base_model: str
    mode: str
    mapping: str
    sampling: dict[str, Any]
    rewards: list[RewardAbout]


class AdaptersAnswer(Message):
    """The model, its adapters, and the mappings there are."""

    model: str
    family: str
    medium: str
    adapters: list[AdapterAbout]
    mappings: list[str]


class Problem(Message):
    """Why there is no answer, in one line."""

    error: str
