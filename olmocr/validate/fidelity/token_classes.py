"""The pieces of an answer -> what kind of token each is: a flipped digit is worse than a flipped comma."""

from __future__ import annotations

import re
from collections.abc import Sequence

TOKEN_CLASSES = ("front matter", "HTML tags", "LaTeX", "digits", "letters", "punctuation", "spaces", "end")

_FRONT_MATTER = re.compile(r"\s*---\n.*?\n---(?:\n|$)", re.DOTALL)
_HTML_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_LATEX = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$\$.+?\$\$|\$[^$\n]*[\\^_][^$\n]*\$", re.DOTALL)


def token_classes(pieces: Sequence[str]) -> tuple[str, ...]:
    """Return each piece's class, and ``end`` for what follows the last one."""
    text = "".join(pieces)
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0
    tags = _places(_HTML_TAG, text, body)
    formulas = _places(_LATEX, text, body)
    classes, start = [], 0
    for piece in pieces:
        span = range(start, start + max(1, len(piece)))
        start += len(piece)
        if span.start < body:
            classes.append("front matter")
        elif not tags.isdisjoint(span):
            classes.append("HTML tags")
        elif not formulas.isdisjoint(span):
            classes.append("LaTeX")
        else:
            classes.append(_class_of(piece))
    return (*classes, "end")


def _places(pattern: re.Pattern[str], text: str, start: int) -> set[int]:
    return {place for found in pattern.finditer(text, start) for place in range(*found.span())}


def _class_of(piece: str) -> str:
    if any(map(str.isdigit, piece)):
        return "digits"
    if any(map(str.isalpha, piece)):
        return "letters"
    return "punctuation" if piece.strip() else "spaces"
