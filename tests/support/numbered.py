"""Files of samples by their seed: their names begin with a number and the prompt."""

from pathlib import Path


def sample_file(folder: Path, seed: int = 0, suffix: str = ".png") -> Path:
    """The one file of this seed in a folder."""
    [path] = Path(folder).glob(f"*seed{seed}{suffix}")
    return path
