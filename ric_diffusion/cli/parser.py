"""The command line. Parsing only: every verb's module is imported when it is called.

Exit codes: 0 done, 2 the user's input is wrong (one line says what, where and how to mend it),
130 interrupted (Ctrl+C) and 143 terminated, both with nothing lost, 1 anything else.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ric_diffusion import __version__
from ric_diffusion.api.values import name_value
from ric_diffusion.cli.options import DEFAULT_MODEL
from ric_diffusion.io.errors import CollapseError, InputError, WorkerError
from ric_diffusion.io.signals import Stopped, heeded

EXAMPLES = {
    "generate": (
        "ric generate --prompt 'red apple' --preference colorfulness=0.7 compressibility=0.3",
        "ric generate --prompt 'red apple' --targets colorfulness=1.5 --count 4 --out out/",
        "ric generate --prompt crown --targets colorfulness=1 --seed 1 --refine 3",
        "ric generate --like out/0001-red-apple-seed0.png --seed 1",
        "ric generate --prompts prompts.txt --count 4 --width 96 --height 64",
        "ric generate --prompt 'red apple' --init-image photo.jpg --strength 0.6",
    ),
    "sweep": (
        "ric sweep --model emoji-64 --prompt 'red apple' --points 11 --out sweep/",
        "ric sweep --prompt 'red apple' --along colorfulness --out sweep/",
    ),
    "score": ("ric score photos/ --scorers compressibility:resize=none colorfulness --json",),
    "serve": (
        "ric serve --model emoji-64 --port 8080",
        "ric serve --model base/ --adapter runs/mine/adapter runs/other/adapter --host 0.0.0.0",
    ),
    "serve-scorer": (
        "ric serve-scorer aesthetic --port 8000",
        "ric serve-scorer aesthetic clip_score --host 0.0.0.0 --root /mnt/pictures",
    ),
    "label": (
        "ric label photos/ --scorers compressibility colorfulness --out labelled/",
        "ric label photos/ --scorers aesthetic --out labelled/ --shard 0/4",
        "ric label 's3://bucket/laion/{00000..00099}.tar' --scorers aesthetic --out labelled/",
        "ric label photos/ --scorers aesthetic --out labelled/ --engine ray --workers 4",
    ),
    "sample-prompts": (
        "ric sample-prompts --model emoji-64 --prompts prompts.txt --count 8 --out drawn/",
        "ric sample-prompts --prompts prompts.txt --out drawn/ --shard 0/4",
    ),
    "train": (
        "ric train scripts/configs/emoji-embedding.yaml --out runs/mine",
        "ric train scripts/configs/sd15.yaml --resume --push-to-hub user/name",
    ),
    "online": ("ric online scripts/configs/emoji-online.yaml --out runs/online",),
    "evaluate": (
        "ric evaluate --adapter runs/mine/adapter none --prompts prompts.txt --out report/",
        "ric evaluate --prompts prompts.txt --calibrate --out calibrated/",
    ),
    "app": ("ric app --model emoji-64 --port 7860",),
    "export": ("ric export --adapter runs/mine/adapter --format kohya --out mine.safetensors",),
    "prompt": (
        "ric prompt --adapter runs/words/adapter --prompt 'red apple' --targets colorfulness=1.5",
    ),
    "push": ("ric push --adapter runs/mine/adapter --to user/name",),
    "adopt": (
        "ric adopt --model tuned/ --rewards aesthetic --grammar words --labelled labelled/ "
        "--out adapter/",
        "ric adopt --model stable-diffusion-v1-5/stable-diffusion-v1-5 --denoiser tuned/unet "
        "--rewards aesthetic compressibility --grammar upstream --statistics statistics.json "
        "--out tuned/model",
    ),
}


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


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


def build_parser() -> Parser:
    parser = Parser(
        prog="ric", description="Reward sliders for diffusion models and language models."
    )
    parser.add_argument("--version", action="version", version=f"ric {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def verb(name: str, text: str) -> Parser:
        return verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog="\n".join(["examples:", *(f"  {line}" for line in EXAMPLES[name])]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    generate = verb("generate", "make pictures of a prompt, or respond to it, steered by rewards")
    _model(generate, model=None)
    generate.set_defaults(dtype=None)  # the picture's where one is made again, else as in sweep
    texts = generate.add_mutually_exclusive_group()
    texts.add_argument("--prompt", metavar="TEXT")
    texts.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt to a line")
    generate.add_argument(
        "--seed", type=seed, help="of the first sample of each prompt (default: 0)"
    )
    _rewards(generate)
    generate.add_argument(
        "--negative-targets", **MANY, metavar="REWARD=Z", help="what to steer away from, in z"
    )
    generate.add_argument("--negative-prompt", metavar="TEXT")
    generate.add_argument(
        "--count", type=positive, default=1, help="samples of each prompt, from as many seeds"
    )
    _refine(generate)
    generate.add_argument(
        "--like",
        type=Path,
        metavar="PICTURE.png",
        help="make a picture of ric generate, ric sweep or the app again; any option given here "
        "takes the place of what it was made with",
    )
    generate.add_argument(
        "--init-image", type=Path, metavar="PICTURE", help="begin with this picture"
    )
    generate.add_argument(
        "--strength",
        type=scale,
        help="how much of that is drawn anew, above 0, at most 1 (default: 0.5)",
    )
    generate.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER")

    sweep = verb("sweep", "the same prompt and seed while the sliders move")
    _model(sweep)
    sweep.add_argument("--prompt", required=True, metavar="TEXT")
    sweep.add_argument("--seed", type=seed, default=0)
    sweep.add_argument("--points", type=positive, default=11)
    sweep.add_argument(
        "--along", metavar="REWARD", help="move this reward alone, the others left on auto"
    )
    _refine(sweep)
    sweep.add_argument("--out", type=Path, default=Path("sweep"), metavar="FOLDER")

    score = verb("score", "print the scores of pictures")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures or folders")
    score.add_argument("--scorers", nargs="+", required=True, metavar="NAME[:option=value,…]")
    score.add_argument("--json", action="store_true", help="one JSON object per picture")

    server = verb(
        "serve", "answer other programs over HTTP: generate, sweep and score as JSON or PNG"
    )
    _checkpoint(server)
    server.add_argument(
        "--adapter",
        nargs="+",
        default=[],
        help="folders or hub ids, of which a request names one; a bundled model has its own",
    )
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but this machine's own wants a token in RIC_SERVE_TOKEN "
        "(default: 127.0.0.1)",
    )
    server.add_argument("--port", type=positive, default=8080)

    serve = verb("serve-scorer", "answer remote scorers of other processes and machines")
    serve.add_argument("scorers", nargs="+", metavar="NAME[:option=value,…]")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but this machine's own wants a token in RIC_SCORER_TOKEN "
        "(default: 127.0.0.1)",
    )
    serve.add_argument("--port", type=positive, default=8000)
    serve.add_argument(
        "--root",
        nargs="+",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="read pictures in or below these, where a request names their path",
    )
    serve.add_argument(
        "--without-token", action="store_true", help="serve other machines without a token"
    )

    label = verb("label", "score captioned pictures, or responses, for training; resumable")
    label.add_argument(
        "folder",
        metavar="FOLDER",
        help="files with captions, or tar or parquet shards: a folder of them, one, a pattern as "
        "'{00000..00099}.tar', or an address as s3://… or hf://…",
    )
    label.add_argument("--scorers", nargs="+", required=True, metavar="NAME[:option=value,…]")
    label.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    label.add_argument(
        "--framing",
        choices=("square", "bucket", "whole"),
        default="square",
        help="what scorers, and later training, see of a picture: the middle square, the middle of "
        "the nearest of SDXL's aspect ratios, or all of it (default: square)",
    )
    label.add_argument(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="with --framing bucket: the side of a square of the area that is trained on "
        "(default: 1024)",
    )
    label.add_argument(
        "--captions",
        choices=("whole", "lines"),
        default="whole",
        help="whether x.txt beside x.png holds one caption, or one to a line (default: whole)",
    )
    label.add_argument(
        "--centre-by",
        choices=("prompt", "all"),
        help="compare scores within samples of one caption, or all of them; by default as each "
        "scorer declares",
    )
    label.add_argument(
        "--shard",
        type=shard,
        metavar="K/N",
        help="do part K of N and no more, so that N processes share the work, K from 0 to N - 1; "
        "run it without --shard at the end",
    )
    _engine(
        label,
        "how many processes share the work; on this machine by default one for each core where "
        "shards are labelled by scorers without a network, with --engine ray one for each GPU, or "
        "where there is none for each CPU",
    )

    drawn = verb("sample-prompts", "several pictures of every prompt, to label; resumable")
    _checkpoint(drawn)
    drawn.add_argument(
        "--adapter", help="folder or hub id, its rewards left on auto; none by default"
    )
    drawn.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE", help="one prompt to a line"
    )
    drawn.add_argument(
        "-k", "--count", type=positive, default=8, help="pictures of each prompt (default: 8)"
    )
    drawn.add_argument("--seed", type=seed, default=0)
    _guidance(drawn)
    drawn.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    drawn.add_argument(
        "--shard",
        type=shard,
        metavar="K/N",
        help="draw the batches K, K + N, K + 2N, … and no more, so that N processes share the "
        "work, K from 0 to N - 1; run it without --shard at the end",
    )

    train = verb("train", "fine-tune an adapter on a labelled folder")
    train.add_argument("config", type=Path, metavar="CONFIG.yaml")
    train.add_argument("--out", type=Path, metavar="FOLDER", help="instead of the config's")
    train.add_argument("--resume", action="store_true", help="go on after an interruption")
    _push(train)

    online = verb("online", "improve an adapter on its own samples, in rounds")
    online.add_argument("config", type=Path, metavar="CONFIG.yaml")
    online.add_argument("--out", type=Path, metavar="FOLDER")
    online.add_argument("--resume", action="store_true", help="go on where it was interrupted")
    _push(online)
    _engine(online)

    evaluate = verb("evaluate", "measure a model, compare adapters; resumable: run it again")
    _checkpoint(evaluate)
    evaluate.add_argument(
        "--adapter",
        nargs="+",
        default=[],
        help="folders or hub ids, several to compare them; none is the model alone",
    )
    evaluate.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE", help="one prompt to a line"
    )
    evaluate.add_argument("--points", type=positive, default=11)
    evaluate.add_argument("--seeds", type=positive, default=4, help="how many for each prompt")
    evaluate.add_argument(
        "--scorers",
        nargs="+",
        default=[],
        metavar="NAME[:option=value,…]",
        help="more scorers, ones that the model was not trained on",
    )
    evaluate.add_argument(
        "--calibrate",
        action="store_true",
        help="measure what the sliders of one adapter give, write an adapter that turns it around "
        "to OUT/adapter, and compare the two",
    )
    evaluate.add_argument(
        "--calibration-prompts",
        type=Path,
        metavar="FILE",
        help="what to calibrate on; the same prompts with other seeds by default",
    )
    evaluate.add_argument(
        "--refine",
        type=positive,
        metavar="K",
        help="measure each adapter a second time, with every sample drawn up to K times more to "
        "come near its targets",
    )
    _sampling(evaluate)
    _engine(evaluate)
    evaluate.add_argument("--out", type=Path, default=Path("report"), metavar="FOLDER")

    app = verb("app", "the sliders in a browser, on this machine alone")
    _checkpoint(app)
    app.add_argument("--adapter", help="folder or hub id; a bundled model has its own")
    app.add_argument("--port", type=positive, default=7860)
    app.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="of ric evaluate, whose front is shown to choose from",
    )

    export = verb("export", "write an adapter's LoRA for other programs")
    export.add_argument("--adapter", required=True, metavar="FOLDER")
    export.add_argument(
        "--format",
        required=True,
        choices=["kohya", "diffusers", "comfyui"],
        help="whose names the layers have: kohya for A1111, Forge and sd-scripts",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")

    prompt = verb("prompt", "print what an adapter of text mode reads, for other programs")
    prompt.add_argument("--adapter", required=True, help="folder or hub id")
    prompt.add_argument("--model", help="whose tokenizer counts; by default its base model")
    _where(prompt)
    prompt.add_argument("--prompt", required=True, metavar="TEXT")
    _rewards(prompt)
    prompt.add_argument("--mapping", help="how a preference becomes targets")

    adopt = verb("adopt", "sliders for a model that others fine-tuned on reward words")
    _checkpoint(adopt, required=True, help="the fine-tune, or its base: folder, hub id or file")
    adopt.add_argument(
        "--denoiser",
        metavar="FOLDER",
        help="the fine-tune, where only that part of the model was; the whole is written to OUT. "
        "A folder, or on the hub USER/NAME/FOLDER",
    )
    adopt.add_argument(
        "--rewards",
        nargs="+",
        required=True,
        metavar="NAME[:option=value,…]",
        help="scorers of what it was trained on, in the order of its words",
    )
    words = adopt.add_mutually_exclusive_group(required=True)
    words.add_argument(
        "--grammar",
        choices=["words", "upstream"],
        help="the words it reads: the rewards' names, or rm1, rm2 … as in RiC's own code",
    )
    words.add_argument(
        "--labels", nargs="+", metavar="WORD", help="other words, one for each reward, without <>"
    )
    adopt.add_argument(
        "--separator", metavar="TEXT", help="what stands before each, if not the grammar's own"
    )
    known = adopt.add_mutually_exclusive_group(required=True)
    known.add_argument(
        "--statistics",
        type=Path,
        metavar="FILE.json",
        help='of its training data: {"aesthetic": {"mean": 5.1, "std": 0.6}, …}',
    )
    known.add_argument(
        "--labelled", type=Path, metavar="FOLDER", help="its training data, as ric label left it"
    )
    _sampling(adopt)
    adopt.add_argument("--out", type=Path, required=True, metavar="FOLDER")

    push = verb("push", "upload an adapter folder to the hub, to a private repository if it is new")
    push.add_argument("--adapter", required=True, metavar="FOLDER")
    push.add_argument("--to", required=True, metavar="USER/NAME")
    return parser


def _refine(parser: Parser) -> None:
    parser.add_argument(
        "--refine",
        type=positive,
        metavar="K",
        help="draw each sample up to K times more, 1 to 20, with what the model is asked moved by "
        "what was obtained, and keep the one nearest to its targets; the seed stays",
    )


MANY: Any = {"nargs": "+", "type": pairs, "action": "extend"}


def _rewards(parser: Parser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--preference", **MANY, metavar="REWARD=WEIGHT", help="what the sliders set")
    group.add_argument(
        "--targets", **MANY, metavar="REWARD=Z", help="values in z; a reward left out is auto"
    )


def _push(parser: Parser) -> None:
    parser.add_argument(
        "--push-to-hub",
        metavar="USER/NAME",
        help="upload the adapter when it is done, to a private repository if it is new",
    )


def _engine(
    parser: Parser,
    workers: str = "with --engine ray: how many; by default one for each GPU, or where there is "
    "none for each CPU",
) -> None:
    """Where the work is done; ``workers``: what that option means."""
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: workers share the work, on this machine or a cluster (default: local)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with --engine ray: of a Ray cluster, or auto for the one this machine is part of; "
        "by default Ray is started on this machine",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help=workers,
    )


def _model(parser: Parser, model: str | None = DEFAULT_MODEL) -> None:
    """For verbs that draw in a moment; ``model``: the default."""
    _checkpoint(parser, default=model)
    parser.add_argument("--adapter", help="folder or hub id; a bundled model has its own")
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 …; by default the GPU if there is one"
    )
    _sampling(parser)
    for side in ("width", "height"):
        parser.add_argument(
            f"--{side}", type=positive, metavar="PIXELS", help="of the picture; the model's own"
        )


MODEL: Any = {
    "default": DEFAULT_MODEL,
    "help": "bundled name, folder, hub id or .safetensors file",
}


def _checkpoint(parser: Parser, **model: Any) -> None:
    """For verbs that load a model."""
    parser.add_argument("--model", **MODEL | model)
    _where(parser)
    parser.add_argument("--variant", help="of weights that lie side by side, as fp16")
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="float32",
        help="of the model's weights; half of the memory, and on most hardware faster, in 16 bits; "
        "auto: as they are stored, if this device computes in that",
    )


def _where(parser: Parser) -> None:
    """Where a model's other files are."""
    parser.add_argument(
        "--base-config",
        metavar="FOLDER",
        help="for a .safetensors file: the pipeline, folder or hub id, whose configs it takes",
    )
    parser.add_argument("--revision", help="of the model on the hub: branch, tag or commit")


def _guidance(parser: Parser) -> None:
    """What any model draws with."""
    parser.add_argument("--steps", type=positive, help="denoising steps; the adapter's own default")
    parser.add_argument("--guidance-scale", type=scale, help="likewise")
    parser.add_argument(
        "--true-cfg-scale",
        type=scale,
        help="likewise: of FLUX.1's guidance that steers away, which takes a second pass a step",
    )


def _sampling(parser: Parser) -> None:
    _guidance(parser)
    parser.add_argument(
        "--contrast",
        type=scale,
        help="likewise: guidance steers away from so many times the opposite of the targets",
    )
    parser.add_argument(
        "--prompt-guidance",
        type=scale,
        help="likewise: how strongly guidance pulls to the prompt, if less than to the rewards",
    )
    parser.add_argument("--mapping", help="how a preference becomes targets")


@contextmanager
def speaking(verb: str) -> Iterator[None]:
    """Inside the block what our modules have to say stands on stderr, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"ric {verb}: %(message)s"))
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
    options = build_parser().parse_args(argv)
    from scorers import ScorerError

    module = options.verb.replace("-", "_")
    try:
        with heeded(), speaking(options.verb):
            importlib.import_module(f"ric_diffusion.cli.{module}").run(options)
    except (InputError, ScorerError) as error:
        print(f"ric {options.verb}: {as_option(str(error))}", file=sys.stderr)
        return 2
    # A full disk, a diverged run, a model that forgot its prompts: no bug of ours.
    except (OSError, FloatingPointError, CollapseError, WorkerError) as error:
        print(f"ric {options.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        number = interruption.number if isinstance(interruption, Stopped) else int(signal.SIGINT)
        what = str(interruption) or ENDED.get(number, "ended")
        print(f"ric {options.verb}: {what}{RESUMED.get(options.verb, '')}", file=sys.stderr)
        return 128 + number
    return 0


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

# Arguments of ric_diffusion.api that are options here, by the name that errors begin with.
ARGUMENTS = (
    "adapter",
    "address",
    "base_config",
    "captions",
    "centre_by",
    "contrast",
    "denoiser",
    "device",
    "engine",
    "framing",
    "guidance_scale",
    "height",
    "host",
    "init_image",
    "labelled",
    "labels",
    "like",
    "mapping",
    "model",
    "negative_prompt",
    "negative_targets",
    "out",
    "port",
    "prompt",
    "prompt_guidance",
    "prompts",
    "refine",
    "report",
    "resolution",
    "revision",
    "rewards",
    "root",
    "scorers",
    "shard",
    "statistics",
    "steps",
    "strength",
    "true_cfg_scale",
    "variant",
    "width",
    "workers",
)


def as_option(message: str) -> str:
    """An error of ric_diffusion.api, which begins with an argument, as one about the option."""
    word = message.split(maxsplit=1)[0].rstrip(":") if message.strip() else ""
    return f"--{word.replace('_', '-')}{message[len(word) :]}" if word in ARGUMENTS else message


if __name__ == "__main__":
    sys.exit(main())
