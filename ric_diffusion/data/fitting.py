"""From scores to a reward space: which rewards are compared within their prompts, and the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from numpy.typing import ArrayLike

from ric_diffusion.data.scoring import described
from ric_diffusion.rewards import RewardSpace
from scorers import Scorer

CentreBy = Literal["all", "prompt"]


def fit_space(
    scorers: Sequence[Scorer],
    scores: Mapping[str, ArrayLike],
    prompts: Sequence[str],
    centre_by: CentreBy | None,
) -> RewardSpace:
    """The reward space of N samples: their scores by reward, (N,) each, and their canonical
    captions.

    ``centre_by``: what every reward's scores are compared with: those of ``"all"`` samples, or of
    the same ``"prompt"``. None is as each scorer declares, and ``"all"`` for one that declares
    ``"prompt"`` where no prompt has two samples.

    The same samples in the same order give the same bits, whoever scored them. InputError if a
    reward does not vary, or not within prompts, or if ``"prompt"`` has nothing to compare.
    """
    repeated = len(set(prompts)) < len(prompts)
    return RewardSpace.fit(
        {scorer.name: scores[scorer.name] for scorer in scorers},
        prompts=prompts,
        within=[
            scorer.name
            for scorer in scorers
            if centre_by == "prompt"
            or (centre_by is None and repeated and compares_within_prompt(scorer))
        ],
        **described(scorers),
    )


def compares_within_prompt(scorer: Scorer) -> bool:
    """Whether it declares that its scores of two prompts say nothing about each other."""
    return getattr(scorer, "compares_within", None) == "prompt"
