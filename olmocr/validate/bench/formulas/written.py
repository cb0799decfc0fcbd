"""Markdown -> the formulas in it, as LaTeX."""

from __future__ import annotations

_WITH_BACKSLASH = (("\\(", "\\)"), ("\\[", "\\]"))
_WITH_DOLLARS = (("$$", "$$"), ("$", "$"))


def formulas_in(text: str, *, with_dollars: bool = True) -> list[str]:
    r"""Return the content between ``\(`` and ``\)``, ``\[`` and ``\]``, and with *with_dollars* ``$$`` or ``$``.

    One kind after the other, each in what the earlier ones left, as olmOCR-bench does.
    """
    found: list[str] = []
    for opening, closing in (*_WITH_BACKSLASH, *(_WITH_DOLLARS if with_dollars else ())):
        text = _take_out(text, opening, closing, found)
    return list(dict.fromkeys(each for each in found if each))


def _take_out(text: str, opening: str, closing: str, found: list[str]) -> str:
    """Add to *found* what is between these marks, at least one character each, and return the rest."""
    rest, done = [], 0
    while (start := text.find(opening, done)) >= 0:
        begin = start + len(opening)
        end = text.find(closing, begin + 1)
        if end < 0:
            break
        found.append(text[begin:end].strip())
        rest.append(text[done:start])
        done = end + len(closing)
    return "".join([*rest, text[done:]])
