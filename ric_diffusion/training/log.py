"""The log of a run: scalars by step, as lines of JSON and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from ric_diffusion.io.files import write_text
from ric_diffusion.io.journal import read_lines


class Log:
    """Scalars to ``log.jsonl`` and, beside it, to TensorBoard; closed at the end of a with block.

    A log that is there goes on behind ``step``: what was logged of later steps is dropped, since a
    resumed run does them again.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = out / "log.jsonl"
        lines = [_line(entry) for entry in read_lines(path) if entry["step"] <= step]
        write_text(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def __call__(self, step: int, **scalars: float) -> None:
        self._file.write(_line({"step": step, **scalars}))
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _line(entry: dict[str, float]) -> str:
    return json.dumps(entry) + "\n"
