"""`python -m ric_diffusion` is `ric`, so that `accelerate launch -m ric_diffusion …` works."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """The command line, whose imports Ctrl+C ends in one line, too; returns the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _leave)
    from ric_diffusion.cli import main as run

    signal.signal(signal.SIGINT, before)
    try:
        return run()
    except KeyboardInterrupt:
        print("ric: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing is lost yet. An exception in the middle of an import may come out as any other."""
    os.write(2, b"ric: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
