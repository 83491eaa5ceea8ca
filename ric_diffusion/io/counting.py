"""How many of a thing, in words."""


def counted(count: int, several: str, one: str = "") -> str:
    """``"1 picture"`` and ``"2 pictures"`` of ``several`` "pictures"; ``one`` is its singular where
    that is more than the last s left out."""
    return f"{count} {(one or several.removesuffix('s')) if count == 1 else several}"
