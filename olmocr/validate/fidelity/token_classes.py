"""The pieces of an answer -> the kind of each token: a flipped digit is worse than a flipped comma."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

TOKEN_CLASSES = ("front matter", "HTML tags", "LaTeX", "digits", "letters", "punctuation", "spaces", "end")

_FRONT_MATTER = re.compile(r"\s*---\n.*?\n---(?:\n|$)", re.DOTALL)
_HTML_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# How formulas begin and end; between single dollar signs they contain a LaTeX sign and stay on one line.
_OPENER = re.compile(r"\\[(\[]|\$\$|\$")
_CLOSERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_IN_LINE = re.compile(r"\$([^$\n]*)\$")


def token_classes(pieces: Sequence[str]) -> tuple[str, ...]:
    """Return each piece's class, and ``end`` for what follows the last one."""
    text = "".join(pieces)
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0
    tags = {place for found in _HTML_TAG.finditer(text, body) for place in range(*found.span())}
    formulas = {place for start, end in _formulas(text, body) for place in range(start, end)}
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


def _formulas(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield where each formula from *start* on begins and ends; a missing closing sign is searched for once."""
    gone: set[str] = set()
    while opener := _OPENER.search(text, start):
        end = _end_of_formula(text, opener, gone)
        if end is not None:
            yield opener.start(), end
        start = end or opener.start() + 1


def _end_of_formula(text: str, opener: re.Match[str], gone: set[str]) -> int | None:
    closer = _CLOSERS.get(opener[0])
    if closer is None:
        found = _IN_LINE.match(text, opener.start())
        return found.end() if found and not {"\\", "^", "_"}.isdisjoint(found[1]) else None
    if closer in gone:
        return None
    at = text.find(closer, opener.end() + (closer == "$$"))  # two pairs of dollar signs enclose something
    if at < 0:
        gone.add(closer)
    return at + len(closer) if at >= 0 else None


def _class_of(piece: str) -> str:
    if any(map(str.isdigit, piece)):
        return "digits"
    if any(map(str.isalpha, piece)):
        return "letters"
    return "punctuation" if piece.strip() else "spaces"
