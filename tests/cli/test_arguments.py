"""What the parser says of mistyped commands, options and choices, and what help tells."""

import argparse
import re

import pytest

from ric_diffusion.cli import main
from ric_diffusion.cli.parser import MAPPINGS, build_parser
from ric_diffusion.rewards import MAPPINGS as KNOWN


def refused(capsys, *args: str) -> str:
    """The one line that is said of these arguments."""
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(args)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err.removesuffix("\n")


def commands() -> dict[str, argparse.ArgumentParser]:
    [choices] = [action.choices for action in build_parser()._subparsers._group_actions]
    return choices


def test_ric_alone_is_its_help(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert alone == capsys.readouterr().out
    assert all(f"\n    {name}" in alone for name in commands())


@pytest.mark.parametrize(
    "args, said",
    [
        (["generate", "--promt", "apple"], "unknown option --promt; did you mean --prompt?"),
        (["generate", "-prompt", "apple"], "unknown option -prompt; did you mean --prompt?"),
        (["generate", "--prompt", "x", "--seeds=3"], "unknown option --seeds; did you mean --seed"),
        (["evaluate", "--seeds", "1", "--zzzz"],
         "unknown option --zzzz; `ric evaluate --help` lists them"),
        (["score", "a.png", "--scorer_s", "x"], "unknown option --scorer_s; did you mean --score"),
        (["sample-prompts", "-k8", "--promts", "f"], "unknown option --promts; did you mean --pr"),
    ],
)  # fmt: skip
def test_a_mistyped_option_is_told_the_right_one(capsys, args, said):
    assert refused(capsys, *args).startswith(f"ric {args[0]}: {said}")


def test_a_mistyped_command_and_choice_are_told_the_right_one(capsys):
    assert refused(capsys, "genrate", "--prompt", "x") == (
        "ric: unknown command 'genrate'; did you mean 'generate'?"
    )
    assert refused(capsys, "--verson") == "ric: unknown option --verson; did you mean --version?"
    assert refused(capsys, "generate", "--prompt", "x", "--dtype", "float61") == (
        "ric generate: --dtype: 'float61' is none of its choices; did you mean 'float16'?"
    )


@pytest.mark.parametrize(
    "args",
    [
        ["--prompt", "x", "--contrast", "-1.5"],
        ["--prompt", "x", "--targets", "colorfulness=-1"],
        ["--prompt", "--- a line of dashes"],
        ["--prompt=--promt"],
        ["--prompt", "x", "--negative-p", "y"],
    ],
)
def test_what_is_no_mistake_is_taken(args):
    options = build_parser().parse_args(["generate", *args])
    assert options.verb == "generate"


@pytest.mark.parametrize("name", commands())
def test_help_says_what_every_option_is_and_what_it_is_by_default(name):
    parser = commands()[name]
    shown = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert action.help, f"{name}: {action.dest} is not explained"
        default = action.default
        if default not in (None, argparse.SUPPRESS) and default != [] and default is not False:
            assert f"(default: {default})" in shown, action.dest
        for choice in action.choices or ():
            assert re.search(rf"\b{re.escape(choice)}\b", shown), choice


def test_help_explains_the_folder_and_the_mappings():
    shown = commands()["label"].format_help()
    for word in ("photos/lake.txt", "metadata.csv", "file_name", "img2dataset", "response"):
        assert word in shown
    assert set(MAPPINGS) == set(KNOWN)
    for name in ("generate", "sweep", "evaluate"):
        shown = commands()[name].format_help()
        assert all(f"{mapping}:" in shown or f"{mapping}," in shown for mapping in MAPPINGS)
