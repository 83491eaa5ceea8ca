"""The first losses of a fixed model and seed: what a change of the arithmetic shows up in."""

import json

import numpy as np
import pytest

from ric_diffusion.data.records import Record
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.family import family_of
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

LOSSES = {
    "embedding": [8.193148, 8.476495, 7.962193, 9.176075],
    "text": [8.183266, 8.496858, 7.989627, 9.186092],
}


@pytest.mark.parametrize("mode", LOSSES)
def test_losses(root, tiny, tmp_path, mode):
    scores = np.arange(float(tiny.COUNT))
    space = RewardSpace.fit({"first": scores, "second": np.sin(scores)})
    records = [
        Record(
            file=f"{i}.png",
            captions=(tiny.NAMES[i % 4], "emoji"),
            scores={"first": float(i), "second": float(np.sin(i))},
        )
        for i in range(tiny.COUNT)
    ]
    config = DiffusionConfig(
        mode=mode,
        lora=LoraConfig(rank=4, alpha=4, targets=("attention", "feed_forward", "convolution")),
        min_snr_gamma=None,
    )
    model = str(root / "model")
    backend = family_of(model).create_backend(model, space, config, seed=1)
    backend.prepare(records, root / "pictures", tmp_path / "cache")
    loop = LoopConfig(
        steps=4, batch_size=4, learning_rate=0.01, log_every=1, seed=2, precision="fp32"
    )
    Trainer(backend, len(records), loop, tmp_path, digest="golden").run()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log] == pytest.approx(LOSSES[mode], abs=1e-4)
