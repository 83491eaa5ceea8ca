"""``ric completion``: what makes a shell complete commands, options and their values."""

from __future__ import annotations

import argparse

import shtab

from ric_diffusion.cli.parser import SCORERS, build_parser
from scorers import available

FILES = ("FILE", "FILE.json", "FILE.safetensors", "CONFIG.yaml", "PATH")


def run(options: argparse.Namespace) -> None:
    parser = build_parser()
    for command in _commands(parser):
        for action in command._actions:
            _tell_values(action)
    print(shtab.complete(parser, shell=options.shell))


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    subparsers = parser._subparsers
    assert subparsers is not None  # every command is one
    [choices] = [action.choices for action in subparsers._group_actions]
    assert isinstance(choices, dict)
    return list(choices.values())


def _tell_values(action: argparse.Action) -> None:
    """What shtab cannot see in an action: names that are no choices, since others are allowed too,
    and which words are paths."""
    if action.choices is not None or action.nargs == 0:
        return
    if action.metavar == SCORERS["metavar"] or action.dest == "names":
        action.choices = available()
    elif action.metavar == "FOLDER":
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # read by shtab
    elif action.metavar in FILES or action.dest in ("adapter", "model"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
