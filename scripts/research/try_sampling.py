"""Settings of sampling, tried on prompts that nothing is compared on: what they reach and keep.

    python scripts/research/benchmark_alignment.py --out runs/alignment --only ours
    python scripts/research/try_sampling.py --out runs/alignment

Draws the adapter of one of the benchmark's runs, in an own folder of its --out, with each of the
settings of --settings in place of the config's `sampling`, and writes table.md and frontier.png.
The prompts are the last of those that online rounds draw, none of which is compared or calibrated
with. What is drawn is not drawn again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from alignment_runs import AlignmentBenchmark, check_sampling, load
from baselines.families import ADAPTER
from benchmark import BASE, SCORES, BenchmarkMethod, Trained, base_methods, compared, ours
from benchmark_alignment import PARTS, plain
from frontier import frontier_figure, frontier_table
from ric_diffusion.evaluation.report.plots import png
from ric_diffusion.evaluation.runner import VERB, evaluate_methods, folder_of
from ric_diffusion.evaluation.runner import identity_of as of_samples
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_bytes, write_text
from ric_diffusion.io.run import RunFolder
from scorers import ScorerError

CONFIGS = Path(__file__).parent / "configs"
MEND = "give what was changed another name in --settings, or remove the folder to draw it anew"
MADE_BY = "scripts/research/benchmark_alignment.py --only ours"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The file of --settings: by name, what is changed in the benchmark's ``sampling``. Every
    setting is drawn for ``prompts`` prompts, with the benchmark's ``seeds`` to each."""

    prompts: int
    settings: dict[str, dict[str, int | float]]

    def __post_init__(self) -> None:
        configs.at_least(self, 1, "prompts")


def tried(bench: AlignmentBenchmark, asked: Tried, path: Path) -> AlignmentBenchmark:
    """The benchmark with its own prompts. InputError, that begins with the ``path`` of what is
    ``asked``, if there are too few, and for a setting that the pipeline does not take."""
    for name, changes in asked.settings.items():
        own = {**bench.sampling, **changes}
        check_sampling(bench.model.family, own, f"{path}: settings.{name}: ")
    free = bench.prompts.training  # the first of which DDPO draws
    if asked.prompts > len(free):
        raise InputError(f"{path}: prompts is {asked.prompts}, {len(free)} are free; ask for fewer")
    return replace(bench, prompts=replace(bench.prompts, compared=free[-asked.prompts :]))


def methods_of(
    bench: AlignmentBenchmark, asked: Tried, run: str, folder: Path
) -> list[BenchmarkMethod]:
    """The adapter of a run with each of the settings, and the base model, drawn in ``folder``."""
    if not (bench.out / run / ADAPTER).exists():
        raise InputError(f"{bench.out / run}: has no adapter; make it with {MADE_BY}")
    made: list[Trained] = [
        ours(bench, name, run, sampling={**bench.sampling, **changes})
        for name, changes in asked.settings.items()
    ]
    made += base_methods(plain(bench))
    for one in made:
        kept = RunFolder(folder_of(folder, one.method.name), VERB, mend=MEND)
        kept.check_same(of_samples(one.method, bench.evaluation))
    scores = evaluate_methods([one.method for one in made], bench.evaluation, folder)
    pairs = zip(made, scores, strict=True)
    return [BenchmarkMethod(trainings=(one.measured(some),), part=run) for one, some in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", type=Path, default=CONFIGS / "emoji-alignment.yaml")
    parser.add_argument("--settings", type=Path, default=CONFIGS / "emoji-sampling.yaml")
    parser.add_argument("--run", default="online", help="of the benchmark")
    parser.add_argument("--out", type=Path, default=Path("runs/alignment"), metavar="FOLDER",
                        help="the benchmark's")  # fmt: skip
    options = parser.parse_args()
    try:
        asked = configs.load_yaml(options.settings, Tried)
        bench = load(options.config, options.out, ["ours"], PARTS, scores=options.out / SCORES)
        bench = tried(bench, asked, options.settings)
        folder = options.out / "tried" / options.run
        methods = methods_of(bench, asked, options.run, folder)
        result = compared(bench, methods).result
    except (InputError, ScorerError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    write_bytes(folder / "frontier.png", png(frontier_figure(result, BASE)))
    write_text(folder / "table.md", frontier_table(result, BASE))
    print(folder / "table.md")


if __name__ == "__main__":
    main()
