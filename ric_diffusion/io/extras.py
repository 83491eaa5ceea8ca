"""The optional dependencies: which packages the work of an extra needs, and what to install."""

from importlib.util import find_spec

from ric_diffusion.io.errors import InputError

# What is imported, by the extra of pyproject.toml that brings it.
NEEDS = {
    "train": ("peft", "pyarrow", "tensorboard"),
    "eval": ("matplotlib", "scipy"),
    "app": ("gradio",),
    "llm": ("peft",),
    "optimizers": ("prodigyopt",),
    "quantized": ("bitsandbytes",),
    "scale": ("fastapi", "ray", "uvicorn"),
}


def require(extra: str, what: str, *packages: str) -> None:
    """InputError, with the command that mends it, unless the packages of an extra are installed, or
    those of them that are given.

    ``what`` begins the message: the verb or the kind of model that needs them. Nothing is imported.
    """
    missing = [package for package in packages or NEEDS[extra] if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"{what}: {', '.join(missing)} {verb} not installed; "
            f"pip install 'ric-diffusion[{extra}]'"
        )
