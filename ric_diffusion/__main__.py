"""`python -m ric_diffusion` is `ric`, so that `accelerate launch -m ric_diffusion …` works."""

import sys

from ric_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
