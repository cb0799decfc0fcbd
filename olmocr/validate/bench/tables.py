"""Markdown -> the tables in it, and the neighbours of each cell, with spans of rows and columns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from olmocr.html_tables import MOST_ROWS, Cell, html_tables

CellPlace = tuple[int, int]
"""The row and column, from 0, at which a cell begins."""

_STEPS: Mapping[str, CellPlace] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_WIDEST = 1000  # columns that a cell may span, as in browsers
_MOST_SLOTS = MOST_ROWS  # of a table's grid; an answer may claim larger spans than any memory holds


@dataclass(frozen=True)
class Grid:
    """A table: *cells* by the place at which each begins, *slots* by every place that it covers."""

    cells: Mapping[CellPlace, Cell]
    slots: Mapping[CellPlace, CellPlace]

    def beside(self, place: CellPlace, direction: str) -> set[CellPlace]:
        """Return the cells next to the one at *place*: up, down, left or right; several next to a span."""
        cell = self.cells[place]
        rows = range(place[0], place[0] + cell.rows)
        columns = range(place[1], place[1] + cell.columns)
        step = _STEPS[direction]
        if step[0]:
            edge = [(rows[0] if step[0] < 0 else rows[-1], column) for column in columns]
        else:
            edge = [(row, columns[0] if step[1] < 0 else columns[-1]) for row in rows]
        found = (self._next(slot, step, place) for slot in edge)
        return {each for each in found if each is not None}

    def headings(self, place: CellPlace, direction: str) -> set[CellPlace]:
        """Return the headings above or to the left, however far; or, without headings, the outermost cells."""
        seen, waiting, headings, ends = {place}, [place], set(), set()
        while waiting:
            here = waiting.pop()
            if self.cells[here].heading:
                headings.add(here)
            further = self.beside(here, direction)
            if not further:
                ends.add(here)
            waiting += further - seen
            seen |= further
        return (headings - {place}) or (ends - {place})

    def _next(self, slot: CellPlace, step: CellPlace, of: CellPlace) -> CellPlace | None:
        """Return the first cell from *slot* on, past empty places; None at the edge."""
        row, column = slot
        height, width = self._size
        while 0 <= (row := row + step[0]) < height and 0 <= (column := column + step[1]) < width:
            found = self.slots.get((row, column))
            if found is not None and found != of:
                return found
        return None

    @functools.cached_property
    def _size(self) -> CellPlace:
        return max(row for row, _ in self.slots) + 1, max(column for _, column in self.slots) + 1


def grids_in(text: str, *, with_markdown: bool = True) -> list[Grid]:
    """Return the tables in *text*: those in markdown, whose first row and column are headings, then those in HTML."""
    rows = [*(_markdown_tables(text) if with_markdown else []), *html_tables(text)]
    return [grid for each in rows if (grid := lay_out(each)).cells]


def lay_out(rows: list[list[Cell]]) -> Grid:
    """Return *rows* as a table: a cell goes to the first place of its row not covered from above."""
    cells: dict[CellPlace, Cell] = {}
    slots: dict[CellPlace, CellPlace] = {}
    for row, found in enumerate(rows):
        column = 0
        for cell in found:
            while (row, column) in slots:
                column += 1
            placed = _within(cell, len(rows) - row, len(slots))
            cells[row, column] = placed
            for covered in range(row, row + placed.rows):
                for across in range(column, column + placed.columns):
                    slots[covered, across] = (row, column)
            column += placed.columns
    return Grid(cells, slots)


def _within(cell: Cell, rows_left: int, slots: int) -> Cell:
    """Return *cell*, limited to the largest possible table."""
    rows, columns = min(cell.rows, rows_left), min(cell.columns, _WIDEST)
    if slots + rows * columns > _MOST_SLOTS:
        rows = columns = 1
    return Cell(cell.text, rows, columns, cell.heading)


def _markdown_tables(text: str) -> list[list[list[Cell]]]:
    """Return the content of runs of two or more lines with bars."""
    tables: list[list[list[Cell]]] = []
    run: list[str] = []
    for line in [*text.strip().split("\n"), ""]:
        if "|" in line:
            run.append(line)
            continue
        if len(run) >= 2:
            tables.append(_markdown_rows(run))
        run = []
    return tables


def _markdown_rows(lines: list[str]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for line in lines:
        if not set(line.strip()) <= set("- :|"):
            texts = [text.strip() for text in line.split("|")]
            texts = texts[not texts[0] :]
            texts = texts[: len(texts) - (bool(texts) and not texts[-1])]
            if texts:
                rows.append([Cell(each, heading=not rows or not at) for at, each in enumerate(texts)])
    return rows
