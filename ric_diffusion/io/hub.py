"""Why the hub did not give a file, in words."""

from __future__ import annotations

from ric_diffusion.io.errors import reason_of

UNREACHED = "the hub cannot be reached"


def lacks_file(error: Exception) -> bool:
    """Whether the repository is there, without the file."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    return isinstance(error, RemoteEntryNotFoundError)


def refusal(error: Exception) -> str:
    """What an error of huggingface_hub says, as the end of a line; nothing of its requests."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub wants its terms accepted on its page, and `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such repository, or it is private and wants `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository on the hub has no such revision"
    if lacks_file(error):
        return "the repository on the hub has no such file"
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        return UNREACHED
    return f"the hub did not give it ({reason_of(error)})"
