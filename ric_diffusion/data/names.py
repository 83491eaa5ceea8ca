"""Names of files as other systems write them."""

import unicodedata


def folded(name: str) -> str:
    """Equal for names that differ in how an accent is written (macOS takes it apart), in capitals
    (which Windows and macOS do not tell apart) or in what stands between folders."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()
