"""Markdown with HTML -> its text in headings, bold or italic type, and its footnote marks."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE_OF_HEADING = re.compile(r"^#{1,6}\s+(.+)$", re.MULTILINE)

# Marks that open and close the same way, so that the first goes with the second, the third with the fourth.
_MARKS = {
    "bold": (re.compile(r"\*\*"), re.compile("__")),
    "italic": (re.compile(r"(?<!\*)\*(?!\*)"), re.compile("(?<!_)_(?!_)")),
}
_TAGS = {"heading": ("h[1-6]",), "bold": ("b", "strong"), "italic": ("i", "em")}

FORMATS = tuple(_TAGS)
"""The forms that a text can have."""

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def texts_in(text: str, form: str) -> list[str]:
    """Return the parts of *text* in the form *form*, one of :data:`FORMATS`, in markdown and in HTML.

    As in olmOCR-bench, ``<br>`` begins like ``<b>``, and counts as that.
    """
    found = [match[1] for match in _LINE_OF_HEADING.finditer(text)] if form == "heading" else []
    for mark in _MARKS.get(form, ()):
        found += _between_marks(text, mark)
    for tag in _TAGS[form]:
        found += _in_tags(text, tag)
    return found


def _between_marks(text: str, mark: re.Pattern[str]) -> Iterator[str]:
    marks = list(mark.finditer(text))
    for opening, closing in zip(marks[::2], marks[1::2], strict=False):
        yield text[opening.end() : closing.start()]


def _in_tags(text: str, name: str) -> Iterator[str]:
    """Yield the content of each tag that begins with *name*, a pattern, up to the next end of one."""
    opening, closing = re.compile(f"<{name}", re.IGNORECASE), re.compile(f"</{name}>", re.IGNORECASE)
    done = 0
    while found := opening.search(text, done):
        begin = text.find(">", found.end()) + 1
        end = closing.search(text, begin) if begin else None
        if end is None:
            return
        yield text[begin : end.start()]
        done = end.end()


def footnote_marks(text: str, marker: str) -> list[tuple[int, int]]:
    """Return the start and end of each footnote mark: ``[^1]``, ``<sup>1</sup>`` or a small raised 1.

    ``[^1]:`` begins the footnote itself, and does not count.
    """
    found = [match.span() for match in re.finditer(rf"\[\^{re.escape(marker)}\](?!:)", text)]
    found += _raised_by_tags(text, marker)
    if marker.isascii() and marker.isdigit():
        found += [match.span() for match in re.finditer(marker.translate(_RAISED), text)]
    return found


def _raised_by_tags(text: str, marker: str) -> Iterator[tuple[int, int]]:
    rest = re.compile(f"{re.escape(marker)}</sup>", re.IGNORECASE)
    end = -1
    for tag in re.finditer("<sup", text, re.IGNORECASE):
        if tag.start() < end:  # within the tag before
            continue
        end = text.find(">", tag.end()) + 1
        if not end:
            return
        if found := rest.match(text, end):
            yield tag.start(), found.end()
