"""How arguments are read: the parser that explains a mistyped one, the layout of help, the types of
values."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ric_diffusion.api.values import name_value
from ric_diffusion.io.errors import InputError, suggest


class Parser(argparse.ArgumentParser):
    """Complains in one line, and says what a mistyped command, option or choice may have meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, after a look at the options: otherwise a mistyped one is only told
        that the right one is missing."""
        self._check_options(args or ())
        return super().parse_known_args(args, namespace)

    def _check_options(self, args: Sequence[str]) -> None:
        known = self._option_string_actions
        for arg in args:
            if arg == "--" or (self._subparsers and not arg.startswith("-")):
                return  # what follows is no option, or one of a command
            option = arg.partition("=")[0]
            dashes = len(option) - len(option.lstrip("-"))
            if not dashes or " " in option or not option[dashes:][:1].isalpha():
                continue  # a value, perhaps a negative number
            short = dashes == 1 and option[:2] in known  # with its value behind it, as -k8
            if short or any(name.startswith(option) for name in known):
                continue
            near = difflib.get_close_matches(f"--{option.lstrip('-')}", known, n=1)
            mend = f"did you mean {near[0]}?" if near else f"`{self.prog} --help` lists them"
            self.error(f"unknown option {option}; {mend}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        hint = suggest(str(value), action.choices)
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"unknown command {value!r}{hint}")
        raise argparse.ArgumentError(action, f"{value!r} is none of its choices{hint}")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Text and examples as they are written; options with their defaults."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        nothing = any(action.default is value for value in (None, False, argparse.SUPPRESS))
        if nothing or action.default == [] or "(default" in text:
            return text
        return f"{text} (default: %(default)s)"


def pairs(text: str) -> tuple[str, float]:
    """``name=1.5`` -> ("name", 1.5)."""
    try:
        return name_value(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def shard(text: str) -> tuple[int, int]:
    """``0/8`` -> (0, 8)."""
    number, _, count = text.partition("/")
    try:
        found = int(number), int(count)
    except ValueError:
        found = (0, 0)
    if not 0 <= found[0] < found[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: write K/N, with K from 0 to N - 1")
    return found


def positive(text: str) -> int:
    try:
        if (number := int(text)) > 0:
            return number
    except ValueError:
        pass  # said below, as for 0
    raise argparse.ArgumentTypeError(f"{text!r}: give a whole number above 0")


def seed(text: str) -> int:
    try:
        if 0 <= (number := int(text)) < 2**63:
            return number
    except ValueError:
        pass  # said below, as for -1
    raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0 to 2^63 - 1")


def scale(text: str) -> float:
    try:
        if math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass  # said below, as for nan
    raise argparse.ArgumentTypeError(f"{text!r}: give a number")


def as_option(message: str, parser: argparse.ArgumentParser) -> str:
    """An error of ric_diffusion.api, which begins with an argument, as one about the option."""
    word = message.split(maxsplit=1)[0].rstrip(":") if message.strip() else ""
    option = f"--{word.replace('_', '-')}"
    known = option in parser._option_string_actions
    return f"{option}{message[len(word) :]}" if known else message


def printable(text: str) -> str:
    """A line for a terminal, in which names of files and what strangers say may stand: what would
    steer it, break the line or turn it around is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
