"""The command line's grammar: every command, its options, and what help says of them.

Nothing heavy is imported here; the module of a command is when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ric_diffusion import __version__
from ric_diffusion.api.recipes import RECIPES
from ric_diffusion.cli.arguments import HelpFormatter, Parser, pairs, positive, scale, seed, shard
from ric_diffusion.cli.examples import EXAMPLES
from ric_diffusion.cli.options import DEFAULT_MODEL

# Names of ric_diffusion.rewards.MAPPINGS, which imports numpy; a test keeps the two alike.
MAPPINGS = ("linear", "l2", "linf", "quantile", "front")
PROMPTS_HELP = "text, one prompt to a line; lines that begin with # are none"
SHELLS = ("bash", "zsh", "fish")

FOLDER = """\
FOLDER holds what is to be scored. Of pictures it is one of
  captions beside:  photos/lake.jpg with its caption in photos/lake.txt; subfolders too
  a table:          metadata.csv, .jsonl or .parquet in the folder, with the columns file_name
                    (path of a picture) and text (its caption)
  shards:           tar files as img2dataset makes them, or parquet files with a column of pictures:
                    a folder of them, one of them, a pattern as '{00000..00099}.tar', or an address
                    as s3://… or hf://…
and of a language model's responses a folder with the same table: file_name is a text file with the
response, text the prompt."""

SCORERS: Any = {"nargs": "+", "metavar": "NAME[:option=value,…]"}
SCORERS_HELP = (
    "names, which `ric scorers` lists, with their options; or FILE.py:CLASS for a scorer of your "
    "own, whose code is run"
)
MODEL: Any = {
    "default": DEFAULT_MODEL,
    "help": "bundled name (`ric models` lists them), folder, hub id or .safetensors file "
    f"(default: {DEFAULT_MODEL})",
}
ADAPTER = "folder or hub id of the sliders; by default the model's own, which a bundled model has"
MANY: Any = {"nargs": "+", "type": pairs, "action": "extend"}
ENGINE_WORKERS = (
    "with --engine ray: how many workers (default: one for each GPU; without a GPU, one for each "
    "CPU)"
)
OUT = "where the files go; made if it is not there"
SHARES = (
    "N processes with K from 0 to N - 1 share the work; run it once more without --shard when all "
    "have ended"
)


def build_parser() -> Parser:
    parser = Parser(
        prog="ric",
        description="Reward sliders for diffusion models and language models.",
        epilog="`ric COMMAND --help` explains a command and shows examples of it.",
    )
    parser.add_argument("--version", action="version", version=f"ric {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", title="commands", metavar="COMMAND", parser_class=Parser
    )

    def verb(name: str, text: str, more: str = "") -> Parser:
        """A command: ``text`` says in a line what it does, ``more`` what one has to know first."""
        added = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.\n\n{more}".strip(),
            epilog="\n".join(["examples:", *(f"  {line}" for line in EXAMPLES[name])]),
            formatter_class=HelpFormatter,
        )
        added.set_defaults(parser=added)
        return added

    generate = verb("generate", "make pictures of a prompt, or respond to it, steered by rewards")
    _model(generate, model=None)
    generate.set_defaults(dtype=None)  # the picture's where one is made again, else as in sweep
    texts = generate.add_mutually_exclusive_group()
    texts.add_argument("--prompt", metavar="TEXT", help="what to draw, or to respond to")
    texts.add_argument("--prompts", type=Path, metavar="FILE", help=PROMPTS_HELP)
    generate.add_argument(
        "--seed", type=seed, help="of the first sample of each prompt (default: 0)"
    )
    _rewards(generate)
    generate.add_argument(
        "--negative-targets", **MANY, metavar="REWARD=Z", help="what to steer away from, in z"
    )
    generate.add_argument("--negative-prompt", metavar="TEXT", help="what to steer away from")
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
        help="with --init-image: how much of it is drawn anew, above 0, at most 1 (default: 0.5)",
    )
    generate.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help=OUT)

    sweep = verb("sweep", "the same prompt and seed while the sliders move")
    _model(sweep)
    sweep.add_argument("--prompt", required=True, metavar="TEXT", help="what to draw")
    sweep.add_argument("--seed", type=seed, default=0, help="the same seed, the same picture")
    sweep.add_argument(
        "--points", type=positive, default=11, help="how many positions of the sliders"
    )
    sweep.add_argument(
        "--along", metavar="REWARD", help="move this reward alone, the others left on auto"
    )
    _refine(sweep)
    sweep.add_argument("--out", type=Path, default=Path("sweep"), metavar="FOLDER", help=OUT)

    score = verb("score", "print the scores of pictures")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures or folders")
    score.add_argument("--scorers", **SCORERS, required=True, help=SCORERS_HELP)
    score.add_argument("--json", action="store_true", help="one JSON object per picture")

    listed = verb("scorers", "list the scorers there are, with their units and options")
    listed.add_argument("names", nargs="*", metavar="NAME", help="these alone, in full")

    verb("models", "list the bundled models, and the families whose checkpoints get sliders")

    server = verb(
        "serve", "answer other programs over HTTP: generate, sweep and score as JSON or PNG"
    )
    _checkpoint(server)
    server.add_argument(
        "--adapter",
        nargs="+",
        default=[],
        help="folders or hub ids, of which a request names one (default: the model's own)",
    )
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; one that other machines reach needs a token in the environment "
        "variable RIC_SERVE_TOKEN",
    )
    server.add_argument("--port", type=positive, default=8080, help="port to listen on")

    serve = verb("serve-scorer", "answer remote scorers of other processes and machines")
    serve.add_argument("scorers", **SCORERS, help=SCORERS_HELP)
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; one that other machines reach needs a token in the environment "
        "variable RIC_SCORER_TOKEN",
    )
    serve.add_argument("--port", type=positive, default=8000, help="port to listen on")
    serve.add_argument(
        "--root",
        nargs="+",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="read pictures in or below these folders, where a request names their path",
    )
    serve.add_argument(
        "--without-token", action="store_true", help="serve other machines without a token"
    )

    label = verb("label", "score captioned pictures, or responses, for training; resumable", FOLDER)
    label.add_argument("folder", metavar="FOLDER", help="see above")
    label.add_argument("--scorers", **SCORERS, required=True, help=SCORERS_HELP)
    label.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the labelled folder that `ric train` reads; a new one, or one that was interrupted",
    )
    label.add_argument(
        "--framing",
        choices=("square", "bucket", "whole"),
        default="square",
        help="which part of a picture scorers, and later training, see: the middle square; the "
        "middle of the nearest of SDXL's aspect ratios; or all of it",
    )
    label.add_argument(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="with --framing bucket: side of the square that has as many pixels as the training's "
        "pictures (default: 1024)",
    )
    label.add_argument(
        "--captions",
        choices=("whole", "lines"),
        default="whole",
        help="x.txt beside x.png holds one caption, or one to a line",
    )
    label.add_argument(
        "--centre-by",
        choices=("prompt", "all"),
        help="compare a score with those of the same caption alone, or with all (default: as each "
        "scorer declares)",
    )
    label.add_argument("--shard", type=shard, metavar="K/N", help=f"do part K of N. {SHARES}")
    _engine(
        label,
        "how many processes share the work (default: on this machine one for each core if shards "
        "are labelled by scorers without a network, else one; with --engine ray one for each GPU, "
        "or for each CPU without a GPU)",
    )

    drawn = verb("sample-prompts", "draw several pictures of every prompt, to label; resumable")
    _checkpoint(drawn)
    drawn.add_argument(
        "--adapter",
        help="folder or hub id of sliders, which are left on auto (default: the model alone)",
    )
    _prompts(drawn)
    drawn.add_argument("-k", "--count", type=positive, default=8, help="pictures of each prompt")
    drawn.add_argument("--seed", type=seed, default=0, help="every picture's seed follows from it")
    _guidance(drawn)
    drawn.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=OUT)
    drawn.add_argument(
        "--shard", type=shard, metavar="K/N", help=f"draw every N-th batch from number K. {SHARES}"
    )

    init = verb(
        "init",
        "print a training config to begin with",
        "\n".join(["CONFIG is one of", *(f"  {name:9} {what}" for name, what in RECIPES.items())]),
    )
    init.add_argument("recipe", choices=list(RECIPES), metavar="CONFIG", help="see above")

    train = verb("train", "fine-tune an adapter on a labelled folder")
    _run(train)

    online = verb("online", "improve an adapter on its own samples, in rounds")
    _run(online)
    _engine(online)

    evaluate = verb("evaluate", "measure a model, compare adapters; resumable: run it again")
    _checkpoint(evaluate)
    evaluate.add_argument(
        "--adapter",
        nargs="+",
        default=[],
        help="folders or hub ids, several to compare them; the word none is the model alone "
        "(default: the model's own adapter)",
    )
    _prompts(evaluate)
    evaluate.add_argument(
        "--points",
        type=positive,
        default=11,
        help="how many preferences to measure, and how many targets of each reward",
    )
    evaluate.add_argument(
        "--seeds", type=positive, default=4, help="how many seeds for each prompt"
    )
    evaluate.add_argument(
        "--scorers",
        **SCORERS,
        default=[],
        help=f"more scorers, which the model was not trained on: {SCORERS_HELP}. A class of your "
        "own with the name of a reward scores that reward",
    )
    evaluate.add_argument(
        "--calibrate",
        action="store_true",
        help="measure how far the samples of one adapter miss their targets, write to OUT/adapter "
        "one that corrects for it, and compare the two",
    )
    evaluate.add_argument(
        "--calibration-prompts",
        type=Path,
        metavar="FILE",
        help="with --calibrate: other prompts to measure that on (default: the same prompts with "
        "other seeds)",
    )
    evaluate.add_argument(
        "--refine",
        type=positive,
        metavar="K",
        help="measure each adapter a second time, with every sample drawn up to K times more to "
        "come closer to its targets",
    )
    _sampling(evaluate)
    _engine(evaluate)
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        metavar="FOLDER",
        help="the report: index.html, plots, samples, and the numbers in metrics.json",
    )

    app = verb("app", "the sliders in a browser, on this machine alone")
    _checkpoint(app)
    app.add_argument("--adapter", help=ADAPTER)
    app.add_argument("--port", type=positive, default=7860, help="port to listen on")
    app.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="a report of `ric evaluate`, whose best trade-offs can then be clicked",
    )

    export = verb("export", "write an adapter's LoRA for other programs")
    export.add_argument("--adapter", required=True, metavar="FOLDER", help="folder or hub id")
    export.add_argument(
        "--format",
        required=True,
        choices=["kohya", "diffusers", "comfyui"],
        help="whose names the layers have; kohya is for A1111, Forge and sd-scripts",
    )
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE.safetensors", help="the file to write"
    )

    prompt = verb("prompt", "print what an adapter of text mode reads, for other programs")
    prompt.add_argument("--adapter", required=True, help="folder or hub id")
    prompt.add_argument(
        "--model", help="whose tokenizer counts the prompt (default: the adapter's base model)"
    )
    _where(prompt)
    prompt.add_argument("--prompt", required=True, metavar="TEXT", help="without reward words")
    _rewards(prompt)
    _mapping(prompt)

    adopt = verb("adopt", "sliders for a model that others fine-tuned on reward words")
    _checkpoint(adopt, required=True, help="the fine-tune, or its base: folder, hub id or file")
    adopt.add_argument(
        "--denoiser",
        metavar="FOLDER",
        help="the fine-tune, where only that part of the model was tuned; the whole model is then "
        "written to OUT. A folder, or on the hub USER/NAME/FOLDER",
    )
    adopt.add_argument(
        "--rewards",
        **SCORERS,
        required=True,
        help="scorers of the rewards it was trained on, in the order of its words",
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
        "--separator", metavar="TEXT", help="what stands before each word (default: the grammar's)"
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
    _sampling(adopt, mapping="quantile, as in RiC's image code")
    adopt.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a new folder for the adapter"
    )

    push = verb("push", "upload an adapter folder to the hub, to a private repository if it is new")
    push.add_argument("--adapter", required=True, metavar="FOLDER", help="the folder to upload")
    push.add_argument("--to", required=True, metavar="USER/NAME", help="the repository")

    completion = verb(
        "completion", "print what makes a shell complete commands and options with the tab key"
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def _prompts(parser: Parser) -> None:
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help=PROMPTS_HELP)


def _run(parser: Parser) -> None:
    """For commands that train what a config describes."""
    parser.add_argument(
        "config", type=Path, metavar="CONFIG.yaml", help="`ric init` prints one to begin with"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the run (default: the config's)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where it was interrupted")
    parser.add_argument(
        "--push-to-hub",
        metavar="USER/NAME",
        help="upload the adapter when it is done, to a private repository if it is new",
    )


def _refine(parser: Parser) -> None:
    parser.add_argument(
        "--refine",
        type=positive,
        metavar="K",
        help="draw each sample up to K times more, 1 to 20, from the same seed, correcting by what "
        "was obtained before, and keep the one nearest to what was asked",
    )


def _rewards(parser: Parser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--preference",
        **MANY,
        metavar="REWARD=WEIGHT",
        help="how much each reward matters beside the others, 0 or more: what the sliders set",
    )
    group.add_argument(
        "--targets",
        **MANY,
        metavar="REWARD=Z",
        help="how much of each reward, in z: 0 is the mean of the training data, 1 one standard "
        "deviation above it; a reward left out is auto",
    )


def _engine(parser: Parser, workers: str = ENGINE_WORKERS) -> None:
    """Where the work is done; ``workers``: what that option means."""
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: workers share the work, on this machine or a cluster",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with --engine ray: of a Ray cluster, or auto for the one this machine is part of "
        "(default: Ray is started on this machine)",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help=workers)


def _model(parser: Parser, model: str | None = DEFAULT_MODEL) -> None:
    """For commands that draw in a moment; ``model``: the default."""
    _checkpoint(parser, default=model)
    parser.add_argument("--adapter", help=ADAPTER)
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)"
    )
    group = _sampling(parser)
    for side in ("width", "height"):
        group.add_argument(f"--{side}", type=positive, metavar="PIXELS", help="of the picture")


def _checkpoint(parser: Parser, **model: Any) -> None:
    """For commands that load a model."""
    given = MODEL | model
    if given.get("required"):
        del given["default"]
    parser.add_argument("--model", **given)
    _where(parser)
    parser.add_argument(
        "--variant", help="which of a model's weights, where it has several, such as fp16"
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="float32",
        help="number format of the model's weights: 16 bits take half the memory and are faster "
        "on most hardware; auto keeps what is stored, if this device computes in it (default: "
        "float32)",
    )


def _where(parser: Parser) -> None:
    """Where a model's other files are."""
    parser.add_argument(
        "--base-config",
        metavar="FOLDER",
        help="for a .safetensors file: folder or hub id of a pipeline with the same configs",
    )
    parser.add_argument("--revision", help="of the model on the hub: branch, tag or commit")


def _guidance(parser: Parser) -> Any:
    """What any model draws with; returns the group of options."""
    group = parser.add_argument_group(
        "sampling",
        "By default as the adapter was validated with; the size is the model's own.",
    )
    group.add_argument("--steps", type=positive, help="denoising steps")
    group.add_argument(
        "--guidance-scale",
        type=scale,
        help="how closely to follow the prompt; of language models, how far rewards move responses",
    )
    group.add_argument(
        "--true-cfg-scale",
        type=scale,
        help="FLUX.1 alone: how strongly to steer away from negative prompts and targets; a step "
        "then takes twice as long",
    )
    return group


def _sampling(parser: Parser, mapping: str = "the adapter's") -> Any:
    group = _guidance(parser)
    group.add_argument(
        "--contrast",
        type=scale,
        help="steer away from the opposite of the targets, multiplied by this number; 0 turns that "
        "off",
    )
    group.add_argument(
        "--prompt-guidance",
        type=scale,
        help="how closely to follow the prompt, if less closely than the rewards "
        "(--guidance-scale)",
    )
    group.add_argument(
        "--reward-start",
        type=scale,
        help="the share of the steps, from 0 to 0.99, after which rewards speak; before, the "
        "prompt alone is drawn, and more of it is kept",
    )
    _mapping(group, mapping)
    return group


def _mapping(parser: Any, default: str = "the adapter's") -> None:
    parser.add_argument(
        "--mapping",
        choices=MAPPINGS,
        help="how a preference becomes targets. front: the best trade-off in the training data; "
        "linf: the largest weight gets the top of its reward's range, the others in proportion "
        "(the paper's); linear, l2: all in proportion; quantile: quantiles of the training data "
        f"(default: {default})",
    )
