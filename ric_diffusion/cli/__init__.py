"""The command line: the parser, and one module for each verb."""

from ric_diffusion.cli.program import main

__all__ = ["main"]
