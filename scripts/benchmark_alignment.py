"""Our method against its alternatives: hypervolume with interval against what it cost.

    python scripts/benchmark_alignment.py --out runs/alignment

Trains what is not there yet (offline and online adapters in both selections, reward words, SFT, one
LoRA per reward, DDPO for five preferences), evaluates everything on the same prompts, seeds and
rewards, and writes table.md, metrics.json, index.html and front.png. Every part can be interrupted
and goes on where it was. On two CPU cores DDPO takes hours, the rest about one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ric_diffusion import config as configs
from ric_diffusion.cli import main as ric
from ric_diffusion.commands.model import load_pipeline
from ric_diffusion.commands.online import OnlineRun
from ric_diffusion.commands.train import TrainConfig
from ric_diffusion.cost import Cost
from ric_diffusion.data.records import read_labelled
from ric_diffusion.diffusion.adapter import Adapter
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.baselines.base import BaseModel, Tuned, load_base
from ric_diffusion.evaluation.baselines.best_of_n import BestOfN
from ric_diffusion.evaluation.baselines.ddpo import DdpoConfig
from ric_diffusion.evaluation.baselines.ddpo_run import train_ddpo
from ric_diffusion.evaluation.baselines.sft import best_records, best_records_for, train_sft
from ric_diffusion.evaluation.baselines.soups import Soup
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.files import write_json
from ric_diffusion.training.loop import LoopConfig
