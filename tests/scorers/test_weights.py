import pickle

import pytest
import torch
from safetensors.torch import save_file

import scorers
from scorers.weights import digest, read_state_dict


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {"b": torch.randn(3, 4, generator=generator), "a": torch.tensor(2.5)}


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "bin"])
def test_reads_tensors(state, tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    read = read_state_dict(path, where="test: head")
    assert {key: value.tolist() for key, value in read.items()} == {
        key: value.tolist() for key, value in state.items()
    }
    assert digest(read) == digest(state)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(state, tmp_path, kind):
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    loot = {**state, "c": Evil(trap)}
    if kind == "torch":
        torch.save(loot, path)
    else:
        path.write_bytes(pickle.dumps(loot, protocol=2))
    with pytest.raises(scorers.ScorerError, match=r"^test: head=.*evil.pth.*refused"):
        read_state_dict(path, where="test: head")
    assert not trap.exists()
    torch.load(path, weights_only=False) if kind == "torch" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap does work


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("w.safetensors", b"nonsense", "unreadable"),
        ("w.pth", b"", "unreadable"),
        ("w.ckpt", b"", ".ckpt"),
        ("w.npz", b"", ".npz"),
        ("w", b"", "without suffix"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(scorers.ScorerError) as caught:
        read_state_dict(tmp_path / name, where="test: head")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere.pth", "", None, 3])
def test_no_such_file(path):
    with pytest.raises(scorers.ScorerError, match="no such file"):
        read_state_dict(path, where="test: head")


def test_the_digest_sees_all_that_matters(state):
    changed = [
        {**state, "a": torch.tensor(2.50001)},
        {**state, "b": state["b"].reshape(4, 3)},
        {**state, "b": state["b"].double()},
        {"a": state["a"], "c": state["b"]},
        {"a": state["a"]},
    ]
    digests = {digest(state), digest(state, "other"), *map(digest, changed)}
    assert len(digests) == len(changed) + 2
    assert digest(dict(reversed(state.items()))) == digest(state)
    assert digest({"b": state["b"].T.contiguous().T, "a": state["a"]}) == digest(state)


def test_the_digest_takes_half_precision():
    ones = torch.ones(2)
    assert digest({"a": ones.bfloat16()}) != digest({"a": ones.half()})
