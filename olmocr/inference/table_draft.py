"""A table so far, and the page's own text -> the rest of the current row and the next rows, in HTML.

The own text of a table has its cells in order, but neither tags nor where a cell ends. Earlier rows say how many cells
a row has, and the lines of the own text where rows or cells end.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate

_TAG = re.compile(r"<[^<>]*>?")
_CELL_ENDS = ("</td>", "</th>")
_LOOKED_BACK = 3
"""How many rows before the current one are looked up in the own text; a row may have been written differently."""


@dataclass(frozen=True)
class _Begun:
    """A row that is not finished: the words of its finished cells, their number, and what follows them so far."""

    words: list[str]
    cells: int
    rest: str


@dataclass(frozen=True)
class _RowPlace:
    """The *line* of the own text with which a row begins, which is a row, or only a cell of it (*is_by_cell*)."""

    line: int
    is_by_cell: bool

    def next(self, columns: int) -> _RowPlace:
        """Return the place of the next row."""
        return _RowPlace(self.line + (columns if self.is_by_cell else 1), self.is_by_cell)


class TableText:
    """The words of a page's own text, by line."""

    def __init__(self, text: str) -> None:
        """Read *text*, whose lines are separated by line breaks."""
        self._lines = [words for line in text.splitlines() if (words := line.split())]
        lengths = [sum(map(len, words)) + len(words) for words in self._lines]
        self._ends = list(accumulate(lengths))  # of each line in the joined text, with the blank behind it
        self._joined = " ".join(" ".join(words) for words in self._lines) + " "

    def after(self, written: str, most: int) -> str:
        """Return what may follow *written*, at least *most* characters of it if there are so many.

        The result is empty if *written* does not end within a table, if the table has no finished row yet, or if the
        own text has no such row.
        """
        start = written.rfind("<table")
        if start < 0 or "</table" in written[start:]:
            return ""
        rows = written[start:].split("<tr>")[1:]
        finished = [row for row in rows if "</tr>" in row]
        if not finished:
            return ""
        between = finished[-2].rpartition("</tr>")[2] if len(finished) > 1 else "\n"
        place = self._place_after(finished)
        if place is None:
            return ""
        begun = None if finished[-1] is rows[-1] else _begun(rows[-1])
        tail = finished[-1].rpartition("</tr>")[2]  # what has been written of what stands between two rows
        return self._rows(place, _count_cells(finished[-1]), between, begun, tail, most)

    def _place_after(self, finished: list[str]) -> _RowPlace | None:
        """Return the place of the row after the last of the *finished* ones; None if none of them is found."""
        for back, row in enumerate(reversed(finished[-_LOOKED_BACK:])):
            words = _words(row)
            text = " ".join(words) + " "
            at = self._joined.find(text) if words else -1
            while at > 0 and self._joined[at - 1] != " ":
                at = self._joined.find(text, at + 1)
            if at >= 0:
                first, last = bisect_right(self._ends, at), bisect_left(self._ends, at + len(text))
                lines = last - first + 1
                return _RowPlace(last + 1 + back * lines, is_by_cell=lines > 1)
        return None

    def _rows(self, place: _RowPlace, columns: int, between: str, begun: _Begun | None, tail: str, most: int) -> str:
        """Return the rows from *place* on; the first may have *begun*, or else *tail* already follows the last one."""
        found = ""
        if begun:
            cells = self._cells(place, columns, begun)
            if cells is None or not _row(cells).startswith(begun.rest):
                return ""
            found, tail = _row(cells)[len(begun.rest) :], ""
            place = place.next(columns)
        while len(found) < most + len(tail):
            cells = self._cells(place, columns, _Begun([], 0, ""))
            found += between + ("</table>" if cells is None else f"<tr>{_row(cells)}")
            if cells is None:
                break
            place = place.next(columns)
        return found[len(tail) :] if found.startswith(tail) else ""

    def _cells(self, place: _RowPlace, columns: int, begun: _Begun) -> list[str] | None:
        """Return the cells of the row at *place* that have not been finished; None if the text has no such row."""
        left = columns - begun.cells
        if place.is_by_cell:
            cells = [" ".join(words) for words in self._lines[place.line : place.line + columns]]
            return cells[begun.cells :] if len(cells) == columns else None
        words = self._lines[place.line] if place.line < len(self._lines) else []
        if not words or words[: len(begun.words)] != begun.words:
            return None
        return _split(words[len(begun.words) :], left, len(_words(begun.rest)))


def _begun(row: str) -> _Begun:
    end = max(row.rfind(tag) + len(tag) if tag in row else 0 for tag in _CELL_ENDS)
    return _Begun(_words(row[:end]), _count_cells(row), row[end:])


def _count_cells(row: str) -> int:
    return sum(row.count(tag) for tag in _CELL_ENDS)


def _split(words: list[str], count: int, inside: int) -> list[str] | None:
    """Return *words* as *count* cells, the first of which has at least *inside* of them; None if that is impossible.

    Cells end beside a number rather than between two words, and later rather than earlier: what has most words is
    usually the first cell.
    """
    if count < 1 or not words:
        return [] if count == len(words) else None
    gaps = range(max(1, inside), len(words))
    best = sorted(gaps, key=lambda gap: (_is_number(words[gap - 1]) or _is_number(words[gap]), gap), reverse=True)
    ends = sorted(best[: count - 1])
    if len(ends) < count - 1:
        return None
    return [" ".join(words[start:end]) for start, end in zip([0, *ends], [*ends, len(words)], strict=True)]


def _is_number(word: str) -> bool:
    return any(character.isdecimal() for character in word)


def _row(cells: list[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _words(html: str) -> list[str]:
    return _TAG.sub(" ", html).split()
