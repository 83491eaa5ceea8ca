"""``sweep``: one prompt and seed while the sliders move, as a contact sheet and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from PIL import Image

from ric_diffusion.api.drawing import Asked, Pictures, check_request
from ric_diffusion.api.models import (
    Dtype,
    ModelLike,
    loaded,
    require_adapter,
    require_pictures,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.picture_settings import PictureSettings
from ric_diffusion.api.refinement import Refinement, distance_of, warn_of_unreached
from ric_diffusion.api.samples import (
    GeneratedSample,
    by_reward,
    check_finite,
    warn_of_rejected,
)
from ric_diffusion.data.images import png_bytes
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.numbered import create_all, write_numbered
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import Point, sweep_points
from ric_diffusion.evaluation.method import Draw
from ric_diffusion.evaluation.refine import check_refine, refined_samples
from ric_diffusion.evaluation.report.sheet import draw_sheet, sweep_sheet
from ric_diffusion.evaluation.runner import Sweep, run_sweep
from ric_diffusion.io.files import json_bytes
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import ProgressCallback, reporting
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import family_of, loading
from ric_diffusion.models.protocol import Sampler
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
        refinement: how it came near its targets; None where it was not refined.
        settings: all that the picture depends on, as its PNG says it.
        file: what that is called in the sweep's folder, None if it was not written.
    """

    sample: Any
    preference: Mapping[str, float] | None
    targets: Mapping[str, float]
    scores: Mapping[str, float | None]
    obtained: Mapping[str, float | None]
    refinement: Refinement | None = None
    settings: PictureSettings | None = None
    file: str | None = None


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
        path: the file that the sheet was written to, None if it was not.
    """

    model: str
    prompt: str
    seed: int
    units: Mapping[str, str]
    points: tuple[SweepPoint, ...]
    sheet: Image.Image
    path: Path | None = None

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
            if point.file is not None:
                plain["file"] = point.file
            points.append(plain)
        return {
            "model": self.model,
            "prompt": self.prompt,
            "seed": self.seed,
            "units": dict(self.units),
            "points": points,
        }

    def save(self, folder: str | Path) -> Self:
        """Write each picture as ``generate`` does, then grid.png and sweep.json; returns the same
        sweep with what its files are called. Nothing is replaced: a second sheet in the folder is
        grid-0002.png, beside sweep-0002.json."""
        out, points = expanded(folder), []
        for point in self.points:
            files = IMAGE.files(point.sample, self.generated(point).metadata)
            path = write_numbered(out, self.prompt, self.seed, files)
            points.append(replace(point, file=path.name))
        saved, number = replace(self, points=tuple(points)), 1
        sheet, data = saved.sheet_png(), json_bytes(saved.to_dict())
        while True:
            path, beside = (out / _named(name, number) for name in (SHEET, DATA))
            if create_all({path: sheet, beside: data}):
                return replace(saved, path=path)
            number += 1

    def made_from(self, settings: PictureSettings, mapping: str) -> Self:
        """The same with what each picture was made from: ``settings``, but for its preference,
        which ``mapping`` turned into targets, or its targets."""
        points = [replace(p, settings=_settings(settings, p, mapping)) for p in self.points]
        return replace(self, points=tuple(points))

    def sheet_png(self) -> bytes:
        """grid.png, which holds what sweep.json does."""
        data = self.to_dict()
        about = {name: data[name] for name in ("prompt", "seed", "model")}
        return png_bytes(self.sheet, {**about, "sweep": data})

    def generated(self, point: SweepPoint) -> GeneratedSample:
        """One of the pictures as ``generate`` returns it."""
        return GeneratedSample(
            sample=point.sample,
            prompt=self.prompt,
            seed=self.seed,
            model=self.model,
            targets=point.targets,
            scores=point.scores,
            obtained=point.obtained,
            refinement=point.refinement,
            settings=point.settings,
        )


def _named(name: str, number: int) -> str:
    """``grid.png``, ``grid-0002.png`` and so on."""
    path = Path(name)
    return name if number == 1 else f"{path.stem}-{number:04d}{path.suffix}"


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
    dtype: Dtype | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> SweepResult:
    """Draw the same prompt and seed at ``points`` places of the sliders.

    Args:
        along: the one reward to move, from its 5th to its 95th percentile, the others on auto. By
            default the preference goes from all weight on the first reward to all on the last.
        out: a folder for the pictures at their own size, as ``generate`` writes them, grid.png and
            sweep.json. Nothing that is there is replaced.

    The other arguments are as ``generate`` has them, which makes each of the pictures again.

    InputError for a model without adapter, and for a language model.
    """
    asked = Asked(mapping=mapping, refine=refine)
    check_request([prompt], seed, 1)
    if out is not None:
        check_out_folder(expanded(out))
    if isinstance(model, ModelName):  # before a language model is loaded for nothing
        with loading(model, "model"):
            require_pictures(family_of(model), Checkpoint.of(model).model)
    pipe, checkpoint = loaded(model, adapter, dtype, device)
    require_pictures(pipe.family, checkpoint.model)
    require_adapter(pipe, checkpoint.model)
    space = pipe.adapter.space
    pictures = Pictures(
        pipe, checkpoint, replace(asked, sampling=sampling_arguments(pipe.family, sampling))
    )
    line = sweep_points(pipe.adapters_for([prompt])[0], points, along=along, mapping=mapping)
    scorers, sampler = load_scorers(space, required=False), pictures.sampler()
    draw: Draw | None = None
    refinements: list[Refinement] = []
    if refine is not None:
        check_refine(space, {name for point in line for name in point.targets}, scorers)
        draw, refinements = _refining(pipe, sampler, scorers, refine)
    with reporting(progress):
        # One at a time: a picture must not depend on what is drawn beside it.
        drawn = run_sweep(sampler, space, line, [prompt], [seed], scorers, batch_size=1, draw=draw)
    result, medium = sweep_result(checkpoint.model, drawn, space), pipe.family.medium
    result = result.made_from(pictures.settings(prompt, seed), mapping or pipe.adapter.mapping)
    if refinements:
        pairs = zip(result.points, refinements, strict=True)
        refined = tuple(replace(point, refinement=how) for point, how in pairs)
        result = replace(result, points=refined)
    seeds = [seed] * len(result.points)
    warn_of_rejected(medium, [point.sample for point in result.points], seeds)
    if refine is not None:
        warn_of_unreached(
            medium,
            [(distance_of(point.obtained, point.targets), seed) for point in result.points],
        )
    return result if out is None else result.save(out)


def _refining(
    pipe: Any, sampler: Sampler, scorers: Sequence[Any], passes: int
) -> tuple[Draw, list[Refinement]]:
    """What draws refined samples, and how each of them came near its targets, in the order of
    drawing."""
    refinements: list[Refinement] = []

    def draw(points: Sequence[Point], prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        targets = [point.targets for point in points]
        found = refined_samples(
            pipe, sampler, scorers, prompts, targets, seeds, passes=passes, show=False
        )
        refinements.extend(map(Refinement.of, found))
        return [one.sample for one in found]

    return draw, refinements


def _settings(made: PictureSettings, point: SweepPoint, mapping: str) -> PictureSettings:
    """Those of one point of a sweep. What is refined aims at the targets, which calibration may
    have moved from where the preference is."""
    if point.preference is None or made.refine is not None:
        return replace(made, preference=None, mapping=None, targets=point.targets)
    return replace(made, preference=point.preference, mapping=mapping, targets=None)


def sweep_result(
    model: str,
    drawn: Sweep,
    space: RewardSpace,
    sheet: Image.Image | None = None,
) -> SweepResult:
    """The result of a sweep of one prompt and seed; ``sheet``: by default one row of pictures.
    FloatingPointError if one of them is not finite."""
    [prompt], [seed] = drawn.prompts, drawn.seeds
    for point in drawn.samples:
        check_finite(IMAGE, point[0][0], seed)
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
