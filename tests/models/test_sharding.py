"""What the config of accelerate may ask for; what shards do is in tests/e2e/test_sharded.py."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.family import family_named
from ric_diffusion.models.sharding import Sharding, sharding_asked

SHARDING = Sharding(device=torch.device("cpu"))
CONFIG = Path(__file__).parents[2] / "scripts" / "configs" / "accelerate" / "fsdp2.yaml"


@pytest.fixture
def asked(monkeypatch):
    """asked(precision, FSDP_…=…): what is asked for where accelerate's environment is this."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    def ask(precision, **environment):
        given = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **environment}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return sharding_asked(precision)

    return ask


def test_what_is_asked_for(asked):
    found = asked("bf16")
    assert (found.device.type, found.blocks, found.gathered) == ("cpu", None, None)
    found = asked(
        "bf16",
        ACCELERATE_MIXED_PRECISION="bf16",
        FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
        FSDP_TRANSFORMER_CLS_TO_WRAP="ResnetBlock2D,UpBlock2D",
    )
    assert found.blocks == ("ResnetBlock2D", "UpBlock2D") and found.gathered == torch.bfloat16
    assert asked("fp32", ACCELERATE_USE_FSDP="false") is None


def test_the_config_that_comes_along(asked):
    given = launch_command_parser().parse_args(["--config_file", str(CONFIG), "program.py"])
    environment = prepare_multi_gpu_env(_validate_launch_command(given)[0])
    environment["FSDP_SYNC_MODULE_STATES"] = "false"  # asks for a GPU; no part of FSDP2
    asked_for = {k: v for k, v in environment.items() if k.startswith(("FSDP_", "ACCELERATE_"))}
    assert asked_for["ACCELERATE_USE_FSDP"] == "true"
    assert asked("fp32", **asked_for) == SHARDING


def test_one_process_has_no_shards(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert sharding_asked("fp32") is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FSDP_VERSION", "1", "fsdp_version is 1; give 2"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading is true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "give diffusion.gradient_checkpointing"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params is true; give false"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "fsdp_reshard_after_forward is false; give true"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision is bf16; the run computes in fp32"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "mixed_precision is fp16"),
    ],
)
def test_what_is_not_supported_is_one_line(asked, name, value, said):
    with pytest.raises(InputError, match=said) as refused:
        asked("fp32", **{name: value})
    assert str(refused.value).startswith("accelerate's config: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("flux", {"base_precision": "nf4"}, "base_precision: weights in nf4 are not put into"),
        ("stable-diffusion", {"compile": True}, "compile: not with FSDP's shards"),
        ("causal-lm", {}, "FSDP is for models that make pictures"),
    ],
)
def test_settings_that_do_not_go_with_shards(family, settings, said, monkeypatch):
    monkeypatch.setattr(DiffusionConfig, "_check_compile", lambda self: None)
    chosen = family_named(family)
    with pytest.raises(InputError, match=said):
        chosen.create_backend("emoji-64", None, chosen.settings(**settings), sharding=SHARDING)
