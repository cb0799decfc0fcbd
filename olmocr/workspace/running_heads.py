"""Lines at the edges of a document's pages -> which are running heads and page numbers, and texts without them.

olmOCR is trained to leave them out, but occasionally does not. Only the text that the file itself has shows where the
lines of a page are: without it, as in most scans, nothing is known and nothing is dropped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

FEWEST = 3
"""The number of pages with a line at the same edge that make it a running head."""

MOST_LINES = 2
"""The most lines that may be dropped at one edge of a page's text."""

_MARKS = re.compile(r"[*_`\s]+")
_DIGITS = re.compile(r"[0-9]+")
_HEADING = re.compile(r"\s*#{1,6}\s")


@dataclass(frozen=True)
class Edges:
    """The lines at the upper and the lower edge of a page, as in the file's own text."""

    top: tuple[str, ...] = ()
    bottom: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunningHeads:
    """The lines that repeat at the edges of a document's pages, by page, each as returned by :func:`_plain`."""

    top: Mapping[int, frozenset[str]]
    bottom: Mapping[int, frozenset[str]]

    def without(self, number: int, text: str) -> tuple[str, list[str]]:
        """Return the *text* of the page *number* without running heads, and the lines that were dropped.

        Only its first and last lines are examined, and a heading is never dropped: a chapter's title is not the running
        head that repeats it.
        """
        lines = text.split("\n")
        first, above = _dropped(lines, self.top.get(number, frozenset()))
        last, below = _dropped(lines[first:][::-1], self.bottom.get(number, frozenset()))
        if not above and not below:
            return text, []
        kept = lines[first : len(lines) - last]
        return "\n".join(kept).strip("\n"), above + below[::-1]


def running_heads(edges: Mapping[int, Edges]) -> RunningHeads:
    """Find the lines that repeat, by the number of the page that has them.

    Numbers in a line may differ from page to page. A line that is only a number counts only if it increases with the
    pages: otherwise it may be the first line of a table.
    """
    top = {number: each.top for number, each in edges.items()}
    bottom = {number: each.bottom for number, each in edges.items()}
    return RunningHeads(_repeated(top), _repeated(bottom))


def _repeated(lines: Mapping[int, tuple[str, ...]]) -> dict[int, frozenset[str]]:
    pages = Counter(pattern for number in lines for pattern in {_pattern(line, number) for line in lines[number]})
    found: dict[int, set[str]] = defaultdict(set)
    for number, its in lines.items():
        for line in its:
            if _plain(line) and pages[_pattern(line, number)] >= FEWEST:
                found[number].add(_plain(line))
    return {number: frozenset(each) for number, each in found.items()}


def _plain(line: str) -> str:
    return _MARKS.sub("", line).casefold()


def _pattern(line: str, number: int) -> str:
    """Return the part of a line that is the same on other pages."""
    plain = _plain(line)
    if any(letter.isalpha() for letter in plain):
        return _DIGITS.sub("0", plain)
    # A page number becomes its distance from the page's own number.
    return _DIGITS.sub(lambda found: f"{int(found[0][:9]) - number:+}", plain)


def _dropped(lines: list[str], heads: frozenset[str]) -> tuple[int, list[str]]:
    """Return how many lines to drop from the first on, with and without counting empty ones."""
    dropped: list[str] = []
    end = 0
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        if len(dropped) == MOST_LINES or _HEADING.match(line) or _plain(line) not in heads:
            break
        dropped.append(line.strip())
        end = at + 1
    return end, dropped
