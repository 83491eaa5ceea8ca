"""``sample_prompts``: several pictures of every prompt, to label and to train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ric_diffusion.adapters.adapter import ABOUT_FILE
from ric_diffusion.api.models import (
    Dtype,
    Prompts,
    load,
    prompts_of,
    require_pictures,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.data.label import check_shard
from ric_diffusion.io import config
from ric_diffusion.io.bounds import MOST_PER_PROMPT, MOST_RUN_SEED, check_count
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import digests
from ric_diffusion.io.paths import expanded, expanded_name
from ric_diffusion.io.progress import ProgressCallback, reporting
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import family_of, loading
from ric_diffusion.training.prompt_samples import PromptSamples, draw_samples


def sample_prompts(
    model: ModelName,
    prompts: Prompts,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    count: int = 8,
    seed: int = 0,
    shard: tuple[int, int] | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
    progress: ProgressCallback | None = None,
) -> PromptSamples:
    """Draw several pictures of every prompt into a folder that ``label`` reads: what rewards that
    compare within a prompt are trained on.

    Resumable: called again after an interruption, it goes on and ends with the same bytes. Prompts
    may be added, and ``count`` raised. Blank pictures and those of NaN or Inf are not written but
    listed in rejected.json.

    Args:
        model: what ``load`` takes.
        prompts: a file with one prompt to a line, or the prompts.
        out: a new folder, or one that an earlier call began.
        adapter: folder or hub id, whose rewards are left on auto. By default the model alone draws,
            also one that has an adapter of its own, whose sampling arguments then hold.
        count: pictures of each prompt.
        seed: what the seed of each picture follows from, with its prompt and number.
        shard: ``(k, n)`` with 0 ≤ k < n draws the batches k, k + n, k + 2n, … and no more, so that
            n processes share the work; a last call without it makes the folder whole.

    ``sampling`` and ``dtype`` are as ``generate`` has them.

    InputError for what does not fit the model, before anything is written, and if all pictures are
    blank.
    """
    target = expanded(out)
    check_out_folder(target)
    check_shard(shard)
    check_count("count", count, MOST_PER_PROMPT)
    check_count("seed", seed, MOST_RUN_SEED, least=0)
    asked = list(dict.fromkeys(prompts_of(prompts)))
    if not all(prompt.strip() for prompt in asked) or not asked:
        raise InputError("prompts: give one or more, none of them blank")
    checkpoint = Checkpoint.of(model)
    with loading(model, "model"):
        family = family_of(model)
    require_pictures(family, checkpoint.model)
    given = sampling_arguments(family, sampling)
    folder = None
    if adapter is not None:  # before the model, which takes long
        folder = family.fetch_adapter(expanded_name(str(adapter)))
        family.check_adapter(folder)
    pipe = load(model, dtype=dtype)
    own = pipe.adapter.sampling if pipe.adapter else {}
    pipe.unload_adapter()
    weights: list[Any] = [family.digests(pipe)]
    if folder is not None:
        pipe.load_adapter(folder)
        own = pipe.adapter.sampling
        weights.append(digests(sorted([*folder.glob("*.safetensors"), folder / ABOUT_FILE])))
    options = {**own, **given}
    pipe.set_progress_bar_config(disable=True)
    with reporting(progress):
        return draw_samples(
            family.sampler(pipe, options),
            asked,
            target,
            count=count,
            seed=seed,
            shard=shard,
            source={
                **config.to_dict(checkpoint),
                "weights": config.digest(weights),
                "sampling": options,
                "dtype": dtype,
            },
        )
