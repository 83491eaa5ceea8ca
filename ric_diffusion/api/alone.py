"""A run's folder, had by one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import clear_all_leftovers
from ric_diffusion.io.lock import held
from ric_diffusion.models.hardware import this_process
from ric_diffusion.training.processes import agreed


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Nobody else writes to the folder ``out`` inside the block: this process does, or those that
    ``accelerate launch`` started together, for which the first one has it. What killed processes
    left half written there is removed.

    InputError, in all of them, that names who has it.
    """
    process = this_process()
    with ExitStack() as stack:
        refusal: InputError | None = None
        if process.is_main_process:
            try:
                stack.enter_context(held(out))
            except InputError as error:
                refusal = error
            else:
                clear_all_leftovers(out)
        if not agreed(refusal is None):
            raise refusal or InputError(f"{out}: another process is at work here")
        yield
