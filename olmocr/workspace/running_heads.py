"""Lines at the edges of a document's pages -> which of them are running heads and page numbers, and texts without them.

olmOCR is trained to leave them out, and now and then it does not. Where the lines of a page lie, only the text that the
file itself holds can tell: without it, as in most scans, nothing is known and nothing is dropped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

FEWEST = 3
"""So many pages have a line at the same edge before it is a running head."""

MOST_LINES = 2
"""Lines at one edge of a page's text that may be dropped."""

_MARKS = re.compile(r"[*_`\s]+")
_DIGITS = re.compile(r"[0-9]+")
_HEADING = re.compile(r"\s*#{1,6}\s")


@dataclass(frozen=True)
class Edges:
    """The lines at the upper and at the lower edge of a page, as the file's own text has them."""

    top: tuple[str, ...] = ()
    bottom: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunningHeads:
    """The lines that repeat at the edges of a document's pages, by page, each as :func:`_plain` has it."""

    top: Mapping[int, frozenset[str]]
    bottom: Mapping[int, frozenset[str]]

    def without(self, number: int, text: str) -> tuple[str, list[str]]:
        """Return the *text* of the page *number* without running heads, and the lines that were dropped.

        Only its first and last lines are looked at, and a heading is never dropped: a chapter's title is not the
        running head that repeats it.
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

    Numbers in a line may differ from page to page. A line that is nothing but a number counts only where it goes up
    with the pages: else it may be the first one of a table.
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
    """Return what a line has in common with those of other pages."""
    plain = _plain(line)
    if any(letter.isalpha() for letter in plain):
        return _DIGITS.sub("0", plain)
    # A page number says how far it is ahead of the page's own.
    return _DIGITS.sub(lambda found: f"{int(found[0][:9]) - number:+}", plain)


def _dropped(lines: list[str], heads: frozenset[str]) -> tuple[int, list[str]]:
    """Return how many lines from the first go, empty ones among them, and those that are not empty."""
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
