"""ric train and ric online in two processes leave what one leaves that takes twice the batches."""

import json

import pytest
from safetensors.torch import load_file

from support.processes import LAUNCH, starter

LOOP = {"steps": 50, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture
def both(ric, tiny, tmp_path):
    """both(verb, config, loop) runs it in two processes and in one; the adapters' folders."""

    def run(verb, config, change):
        with starter() as start:
            path = tiny.write_config(tmp_path / f"{verb}-two.yaml", change(config, accumulate=1))
            two = tmp_path / f"{verb}-two"
            process = start(*LAUNCH, "-m", "ric_diffusion", verb, path, "--out", two)
            out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out == f"{two / 'adapter'}\n"
        path = tiny.write_config(tmp_path / f"{verb}-one.yaml", change(config, accumulate=2))
        assert ric(verb, path, "--out", tmp_path / f"{verb}-one").code == 0
        return tmp_path / f"{verb}-one", two

    return run


def differences(one, two):
    """The largest between tensors of one name, of all the weights of two adapters."""
    for file in ("pytorch_lora_weights.safetensors", "reward_encoder.safetensors"):
        first, second = (load_file(folder / "adapter" / file) for folder in (one, two))
        assert first.keys() == second.keys()
        yield from ((first[name] - second[name]).abs().max().item() for name in first)


def test_training(both, root, tiny):
    given = tiny.config(root, "embedding", prompts=[])

    def change(config, **loop):
        return config | {"loop": LOOP | loop}

    one, two = both("train", given, change)
    assert max(differences(one, two)) <= 1e-5


def test_rounds(both, root, tiny):
    data = tiny.config(root, "embedding")
    given = {name: data[name] for name in ("model", "data", "diffusion")}
    given["adapter"] = str(root / "embedding" / "adapter")
    rounds = {"rounds": 1, "samples": 10, "batch_size": 4}
    rounds["guard"] = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}

    def change(config, **loop):
        return config | {"online": {**rounds, "loop": LOOP | {"steps": 4} | loop}}

    one, two = both("online", given, change)
    assert max(differences(one, two)) <= 1e-5
    selected = [
        json.loads((run / "round-1" / "selected.json").read_text())["samples"] for run in (one, two)
    ]
    assert selected[0] == selected[1] and len(selected[0]) == 10
