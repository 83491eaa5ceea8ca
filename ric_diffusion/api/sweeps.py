"""``sweep``: one prompt and seed while the sliders move, as a contact sheet and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.api.models import (
    Dtype,
    ModelLike,
    check_mapping,
    loaded,
    require_adapter,
    require_pictures,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.refinement import distance_of, warn_of_unreached
from ric_diffusion.api.samples import by_reward, warn_of_rejected
from ric_diffusion.data.images import save_png
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import sweep_points
from ric_diffusion.evaluation.refine import by_refinement, check_passes, check_refine
from ric_diffusion.evaluation.report.sheet import draw_sheet, sweep_sheet
from ric_diffusion.evaluation.runner import Sweep, run_sweep
from ric_diffusion.io.files import write_json
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import ProgressCallback, reporting
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import family_of, loading
from ric_diffusion.rewards import RewardSpace

SHEET, DATA = "grid.png", "sweep.json"  # what a sweep's folder holds


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One place of the sliders.

    Attributes:
        sample: the picture.
        preference: the weights, None where one reward is moved alone.
        targets: values in z that were asked for.
        scores: in each scorer's unit, and ``obtained`` in z; None where a sample has none. A reward
            that is compared within its prompt is so among the samples of the sweep.
    """

    sample: Any
    preference: Mapping[str, float] | None
    targets: Mapping[str, float]
    scores: Mapping[str, float | None]
    obtained: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A sweep of one prompt and seed.

    Attributes:
        model: bundled name, folder or hub id.
        prompt: what all of it was made from, with ``seed``.
        seed: the same for all points.
        units: the scorers', by reward.
        points: in the order of the sweep.
        sheet: all pictures side by side, with what was asked and obtained.
    """

    model: str
    prompt: str
    seed: int
    units: Mapping[str, str]
    points: tuple[SweepPoint, ...]
    sheet: Image.Image

    def to_dict(self) -> dict[str, Any]:
        """``sweep.json``: all but the pictures."""
        points = []
        for point in self.points:
            plain: dict[str, Any] = {}
            if point.preference is not None:
                plain["preference"] = dict(point.preference)
            plain |= {
                "targets": dict(point.targets),
                "scores": dict(point.scores),
                "obtained": dict(point.obtained),
            }
            points.append(plain)
        return {
            "model": self.model,
            "prompt": self.prompt,
            "seed": self.seed,
            "units": dict(self.units),
            "points": points,
        }

    def save(self, folder: str | Path) -> None:
        """Write grid.png and sweep.json."""
        save_png(expanded(folder) / SHEET, self.sheet)
        write_json(expanded(folder) / DATA, self.to_dict())


def sweep(
    model: ModelLike,
    prompt: str,
    *,
    adapter: str | Path | None = None,
    points: int = 11,
    along: str | None = None,
    seed: int = 0,
    mapping: str | None = None,
    refine: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> SweepResult:
    """Draw the same prompt and seed at ``points`` places of the sliders.

    Args:
        along: the one reward to move, from its 5th to its 95th percentile, the others on auto. By
            default the preference goes from all weight on the first reward to all on the last.
        out: a folder for grid.png and sweep.json.

    The other arguments are as ``generate`` has them.

    InputError for a model without adapter, and for a language model.
    """
    check_mapping(mapping)
    if refine is not None:
        check_passes(refine)
    if out is not None:
        check_out_folder(expanded(out))
    if isinstance(model, ModelName):  # before a language model is loaded for nothing
        with loading(model, "model"):
            require_pictures(family_of(model), Checkpoint.of(model).model)
    pipe, name = loaded(model, adapter, dtype)
    require_pictures(pipe.family, name)
    require_adapter(pipe, name)
    own, space = pipe.adapter, pipe.adapter.space
    options = {**own.sampling, **sampling_arguments(pipe.family, sampling)}
    asked = sweep_points(pipe.adapters_for([prompt])[0], points, along=along, mapping=mapping)
    scorers, sampler = load_scorers(space, required=False), pipe.family.sampler(pipe, options)
    draw = None
    if refine is not None:
        check_refine(space, {name for point in asked for name in point.targets}, scorers)
        draw = by_refinement(pipe, sampler, scorers, refine, show=True)
    with reporting(progress):
        drawn = run_sweep(sampler, space, asked, [prompt], [seed], scorers, draw=draw)
    result, medium = sweep_result(name, drawn, space), pipe.family.medium
    seeds = [seed] * len(result.points)
    warn_of_rejected(medium, [point.sample for point in result.points], seeds)
    if refine is not None:
        warn_of_unreached(
            medium,
            [(distance_of(point.obtained, point.targets), seed) for point in result.points],
        )
    if out is not None:
        result.save(out)
    return result


def sweep_result(
    model: str,
    drawn: Sweep,
    space: RewardSpace,
    sheet: Image.Image | None = None,
) -> SweepResult:
    """The result of a sweep of one prompt and seed; ``sheet``: by default one row of pictures."""
    [prompt], [seed] = drawn.prompts, drawn.seeds
    if sheet is None:
        sheet = sweep_sheet(drawn, space, f"{prompt} · seed {seed}")
    points = tuple(
        SweepPoint(
            sample=drawn.samples[p][0][0],
            preference=point.preference,
            targets=point.targets,
            scores=by_reward(space, drawn.scores[p, 0, 0]),
            obtained=by_reward(space, drawn.z[p, 0, 0]),
        )
        for p, point in enumerate(drawn.points)
    )
    return SweepResult(
        model=model,
        prompt=prompt,
        seed=seed,
        units=dict(zip(space.names, space.units, strict=True)),
        points=points,
        sheet=sheet,
    )


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    title: str = "",
    captions: Sequence[Sequence[str]] = (),
    row_titles: Sequence[str] = (),
) -> Image.Image:
    """Rows of pictures as one picture.

    Args:
        rows: pictures, as many in each row.
        title: above all of them.
        captions: the lines under each column.
        row_titles: a text beside each row.
    """
    return draw_sheet(rows, title=title, captions=captions, row_titles=row_titles)
