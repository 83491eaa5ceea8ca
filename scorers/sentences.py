"""Where the sentences of a text end."""

from __future__ import annotations

import re

_END = re.compile(r"[.!?]+[\"')\]*_”’]*(?=\s|$)")
# "1." and "b)." begin an item of a list: they stand first, or behind what ended before them.
_LIST_MARK = re.compile(
    r"(?:^|\n|(?:[.!?:;,]|\s[-*•])[\"')\]*_”’]*\s)\s*[-*•_(]*\s*(?:\d{1,3}|[A-Za-z])\.[*_]*$"
)
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|approx|e\.g|i\.e|cf|No|Fig|Inc|Ltd)\.$"
)
_NEAR = 200  # characters before an end, which tell what it is


def sentence_ends(text: str) -> list[int]:
    """The positions behind the sentences, in order; a line break ends none by itself.

    The full stop of a list's number (``1. Wash the rice.``) or of an abbreviation ends none.
    """
    ends = []
    for found in _END.finditer(text):
        near = max(found.end() - _NEAR, 0), found.end()
        if not _LIST_MARK.search(text, *near) and not _ABBREVIATION.search(text, *near):
            ends.append(found.end())
    return ends


def sentences(text: str) -> list[str]:
    """The sentences without the blanks around them; line breaks end sentences too."""
    found = []
    for line in text.splitlines():
        start = 0
        for end in [*sentence_ends(line), len(line)]:
            if sentence := line[start:end].strip():
                found.append(sentence)
            start = end
    return found
