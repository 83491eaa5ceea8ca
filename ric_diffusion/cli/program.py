"""What `ric` does with its arguments: runs one verb, and says in one line what went wrong.

Exit codes: 0 done, 2 the user's input is wrong (one line says what, where and how to mend it),
130 interrupted (Ctrl+C) and 143 terminated, both with nothing lost, 1 anything else.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ric_diffusion.cli.arguments import as_option, printable
from ric_diffusion.cli.inputs import check_inputs
from ric_diffusion.cli.parser import build_parser
from ric_diffusion.io.errors import CollapseError, InputError, WorkerError, clipped
from ric_diffusion.io.signals import Stopped, heeded


class _Line(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


@contextmanager
def speaking(verb: str) -> Iterator[None]:
    """Inside the block what our modules have to say stands on stderr, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line(f"ric {verb}: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("ric_diffusion", "scorers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.verb is None:
        parser.print_help()
        return 0
    from scorers import ScorerError

    # What Pillow warns of is refused, with the file's name, or makes no difference.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    module = options.verb.replace("-", "_")
    try:
        check_inputs(options)
        with heeded(), speaking(options.verb):
            importlib.import_module(f"ric_diffusion.cli.{module}").run(options)
    except (InputError, ScorerError) as error:
        _say(options.verb, as_option(str(error), options.parser))
        return 2
    # A full disk, a diverged run, a model that forgot its prompts: no bug of ours.
    except (OSError, FloatingPointError, CollapseError, WorkerError) as error:
        _say(options.verb, clipped(str(error)))
        return 1
    except KeyboardInterrupt as interruption:
        number = interruption.number if isinstance(interruption, Stopped) else int(signal.SIGINT)
        what = str(interruption) or ENDED.get(number, "ended")
        _say(options.verb, f"{what}{RESUMED.get(options.verb, '')}")
        return 128 + number
    return 0


def _say(verb: str, line: str) -> None:
    print(printable(f"ric {verb}: {line}"), file=sys.stderr)


ENDED: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_AGAIN = "; run it again to go on where it stopped"
_RESUME = "; --resume goes on where it stopped"
RESUMED = {
    "label": _AGAIN,
    "sample-prompts": _AGAIN,
    "evaluate": _AGAIN,
    "train": _RESUME,
    "online": _RESUME,
}
