"""What ric evaluate cannot work with is one line, exit code 2, and nothing is written."""

import json
import shutil

import pytest

MODEL = ["--model", "{root}/model"]
ADAPTER = ["--adapter", "{root}/embedding/adapter"]
PROMPTS = ["--prompts", "prompts.txt"]
ALL = [*MODEL, *ADAPTER, *PROMPTS]


@pytest.fixture(autouse=True)
def prompts(place):
    (place / "prompts.txt").write_text("red apple\n")
    (place / "blank.txt").write_text("\n  \n# only a remark\n")
    (place / "trained" / "adapter").mkdir(parents=True)
    (place / "binary.txt").write_bytes(bytes(range(256)))


@pytest.mark.parametrize(
    "said, args",
    [
        ("--prompts", [*MODEL, *ADAPTER]),
        ("gone.txt: no such file", [*MODEL, *ADAPTER, "--prompts", "gone.txt"]),
        ("empty: a folder; name a file", [*MODEL, *ADAPTER, "--prompts", "empty"]),
        ("blank.txt: no prompts in it", [*MODEL, *ADAPTER, "--prompts", "blank.txt"]),
        ("binary.txt: not UTF-8 text", [*MODEL, *ADAPTER, "--prompts", "binary.txt"]),
        ("--out a_file: ", [*ALL, "--out", "a_file"]),
        ("--mapping: 'nope' is none of its choices", [*ALL, "--mapping", "nope"]),
        ("points 1: give a whole number from 2", [*ALL, "--points", "1"]),
        ("'0': give a whole number above 0", [*ALL, "--seeds", "0"]),
        ("--points 1000000000: give a whole number from 1 to", [*ALL, "--points", 10**9]),
        ("--seeds 1000000000: give a whole number from 1 to", [*ALL, "--seeds", 10**9]),
        ("points, seeds: ", [*ALL, "--points", 1001, "--seeds", 10**5]),
        ("'nan': give a number", [*ALL, "--guidance-scale", "nan"]),
        ("did you mean 'emoji-64'?", ["--model", "emoji64", *PROMPTS]),
        ("--model ./gone: no such file or folder", ["--model", "./gone", *PROMPTS]),
        ("has no adapter of its own; give one", [*MODEL, *PROMPTS]),
        ("has no adapter of its own; give one", [*MODEL, *PROMPTS, "--adapter", "none"]),
        ("./gone: no such folder", [*MODEL, *PROMPTS, "--adapter", "./gone"]),
        ("no ric_adapter.json", [*MODEL, *ADAPTER, "empty", *PROMPTS]),
        ("--adapter: none is given twice; name it once",
         [*MODEL, *PROMPTS, "--adapter", "none", "none"]),
        ("is given twice; name it once", [*MODEL, *ADAPTER, ADAPTER[1], *PROMPTS]),
        ("no scorer 'beauty'", [*ALL, "--scorers", "beauty"]),
        ("--scorers: incompressibility is given twice",
         [*ALL, "--scorers", "incompressibility", "incompressibility:resize=none"]),
        ("--scorers: colorfulness is a reward of the adapter", [*ALL, "--scorers", "colorfulness"]),
        ("--calibrate: one adapter is calibrated at a time; give it alone with --adapter, not ",
         [*MODEL, *ADAPTER, "{root}/text/adapter", *PROMPTS, "--calibrate"]),
        ("alone with --adapter, not none", [*MODEL, *PROMPTS, "--adapter", "none", "--calibrate"]),
        ("/adapter, none", [*MODEL, *ADAPTER, "none", *PROMPTS, "--calibrate"]),
        ("has no adapter of its own; give one", [*MODEL, *PROMPTS, "--calibrate"]),
        ("points 1: give a whole number from 2", [*ALL, "--points", "1", "--calibrate"]),
        ("--out trained: holds an adapter already, which --calibrate would write over",
         [*ALL, "--out", "trained", "--calibrate"]),
    ],
)  # fmt: skip
def test_evaluate(refused, said, args):
    refused(said, "evaluate", *args)


def changed(folder, root, **changes):
    """A copy of the tiny adapter with other entries in its description."""
    shutil.copytree(root / "text" / "adapter", folder)
    path = folder / "ric_adapter.json"
    about = json.loads(path.read_text())
    for key, change in changes.items():
        change(about[key])
    path.write_text(json.dumps(about))
    (folder / "manifest.json").unlink()


def test_adapters_with_other_rewards(refused, root, place):
    def fewer(space):
        space["rewards"] = space["rewards"][:1]
        space["front"] = [[max(point[0] for point in space["front"])]]
        space["corners"] = [space["corners"][0][:1]]

    def grammar(conditioning):
        for key in ("names", "labels"):
            conditioning["grammar"][key] = conditioning["grammar"][key][:1]

    changed(place / "other", root, reward_space=fewer, conditioning=grammar)
    refused(
        "--adapter other: its rewards are compressibility, those of",
        "evaluate", *MODEL, *ADAPTER, "other", *PROMPTS,
    )  # fmt: skip


def test_adapters_scored_in_another_way(refused, root, place):
    def resized(space):
        space["rewards"][0]["scorer"]["options"]["resize"] = 512

    changed(place / "other", root, reward_space=resized)
    refused(
        "--adapter other: compressibility was scored with",
        "evaluate", *MODEL, *ADAPTER, "other", *PROMPTS,
    )  # fmt: skip
