"""Change single places of the code, and see whether a test notices: a table of how many were.

    make mutants                                # a sample of 300; an hour on one CPU core
    python scripts/mutants.py --count 50 --seed 1

Needs mutmut, whose settings are in pyproject.toml: the rooms that are changed, and their tests. A
mutant that no test notices is printed with its name; `mutmut show NAME` prints what it changes.
What only tests of other rooms come by counts as not noticed. Goes on where it was stopped: delete
mutants/ to begin anew.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

MUTANTS = Path("mutants")  # where mutmut puts its copy, in the working folder
FIRST = "ric_diffusion.io.counting.*"  # a few; before them mutmut makes all and times the tests
KILLED = (1, 3, -24, 24, 36, 152, 255)  # exit codes: a test failed, or took far too long
UNTRIED = (5, 33)  # no test comes by
STOPPED = 2


def run(names: list[str]) -> None:
    """Have mutmut try these."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    subprocess.run(command, check=True)


def codes() -> dict[str, int | None]:
    """The exit code of each mutant, None of one that was not tried to the end."""
    found: dict[str, int | None] = {}
    for path in sorted(MUTANTS.rglob("*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: None if code == STOPPED else code for name, code in found.items()}


def table(tried: dict[str, int]) -> str:
    """A row for each room."""
    rows = ["| room | mutants tried | noticed | share |", "|" + " --- |" * 4]
    total, killed = Counter[str](), Counter[str]()
    for name, code in tried.items():
        for room in (name.split(".")[1], "all"):
            total[room] += 1
            killed[room] += code in KILLED
    rows += [
        f"| {room} | {count} | {killed[room]} | {killed[room] / count:.1%} |"
        for room, count in sorted(total.items(), key=lambda row: (row[0] == "all", row[0]))
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if find_spec("mutmut") is None:
        parser.exit(2, f"{parser.prog}: mutmut is not installed; run `make mutants`\n")
    try:
        if not (found := codes()):
            run([FIRST])
            found = codes()
        if not 1 <= options.count <= len(found):
            parser.exit(2, f"{parser.prog}: --count {options.count}: give 1 to {len(found)}\n")
        sample = random.Random(options.seed).sample(sorted(found), options.count)
        if left := [name for name in sample if found[name] is None]:
            run(left)
            found = codes()
    except subprocess.CalledProcessError:  # it has said why
        parser.exit(2, f"{parser.prog}: mutmut failed; the tests have to pass before it begins\n")
    tried = {name: code for name in sample if (code := found[name]) is not None}
    for name in sorted(name for name, code in tried.items() if code not in KILLED):
        print("no test comes by:" if tried[name] in UNTRIED else "not noticed:", name)
    print(table(tried))


if __name__ == "__main__":
    main()
