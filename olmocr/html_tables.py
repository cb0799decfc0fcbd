"""HTML -> its tables, row by row, as a browser would find them in a page that may be cut off anywhere.

The standard library's parser takes quadratic time for tags that do not end; this reads each character a few times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from olmocr.text import unescaped

MOST_ROWS = 1_000_000
"""The most rows or columns that a cell can span, whatever it says."""

MOST_NESTED = 16
"""How deep tables may be nested in cells; a deeper one counts as its cell's text."""

# A tag, in which ">" inside quotation marks does not end it; without pairs, up to the first ">". It cannot contain "<".
TAG = re.compile(
    r"""<(?P<end>/?)(?P<name>[a-zA-Z][^\s/<>]*)"""
    r"""(?P<attributes>[\s/](?:[^<>"']|"[^"<]*"|'[^'<]*')*|[\s/][^<>]*|)>|(?P<comment><!--)"""
)
"""A tag, with ``end``, ``name`` and ``attributes``, or what begins a ``comment``."""

_SPAN = re.compile(
    r"""(?:^|[\s/"'])(?P<name>rowspan|colspan)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"'>]*))""",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cell:
    """A cell's text, how far it reaches, and whether it is a heading."""

    text: str
    rows: int = 1
    columns: int = 1
    heading: bool = False


def html_tables(text: str, *, line_break: str = "\n") -> list[list[list[Cell]]]:
    """Return the rows of each table in *text*, including tables inside cells; ``<br>`` is *line_break*."""
    reader = _TableCollector(line_break)
    for piece in _pieces(text):
        if isinstance(piece, str):
            reader.add_text(unescaped(piece))
        elif piece["end"]:
            reader.end_tag(piece["name"].lower())
        else:
            reader.start_tag(piece["name"].lower(), piece["attributes"])
    return [[[cell.finished() for cell in row] for row in table] for table in reader.tables]


def _pieces(text: str) -> Iterator[str | re.Match[str]]:
    """Yield tags and the text between them in order, without comments, except one that does not end."""
    done, at, is_comment_open = 0, 0, False
    while found := TAG.search(text, at):
        at = found.end()
        if found["comment"]:
            end = -1 if is_comment_open else text.find("-->", at)
            is_comment_open = end < 0
            if is_comment_open:
                continue
            at = end + len("-->")
        yield text[done : found.start()]
        if not found["comment"]:
            yield found
        done = at
    yield text[done:]


class _OpenCell:
    """A cell whose text is being collected."""

    def __init__(self, attributes: str, *, heading: bool) -> None:
        self.texts: list[str] = []
        self._attributes = attributes
        self._heading = heading

    def finished(self) -> Cell:
        rows, columns = spans_of(self._attributes)
        return Cell("".join(self.texts).strip(), rows, columns, self._heading)


class _TableCollector:
    """Collects tables. The content of a table inside a cell also belongs to the outer table's cell."""

    def __init__(self, line_break: str) -> None:
        self._line_break = line_break
        self.tables: list[list[list[_OpenCell]]] = []
        self._open: list[list[list[_OpenCell]]] = []  # tables, the innermost last
        self._cells: list[_OpenCell | None] = []  # the open cell of each
        self._in_head: list[bool] = []
        self._too_deep = 0  # open tables that count only as text

    def start_tag(self, tag: str, attributes: str) -> None:
        """Process an opening tag."""
        if tag == "table":
            self._begin_table()
        elif tag == "br":
            self.add_text(self._line_break)
        elif not self._open or self._too_deep:
            return
        elif tag in ("thead", "tbody", "tfoot"):
            self._in_head[-1] = tag == "thead"
        elif tag == "tr":
            self._open[-1].append([])
            self._cells[-1] = None
        elif tag in ("td", "th") and self._open[-1]:
            cell = _OpenCell(attributes, heading=tag == "th" or self._in_head[-1])
            self._open[-1][-1].append(cell)
            self._cells[-1] = cell

    def _begin_table(self) -> None:
        if len(self._open) == MOST_NESTED:
            self._too_deep += 1
            return
        self.tables.append([])
        self._open.append(self.tables[-1])
        self._cells.append(None)
        self._in_head.append(False)

    def end_tag(self, tag: str) -> None:
        """Process a closing tag."""
        if self._too_deep:
            self._too_deep -= tag == "table"
        elif not self._open:
            return
        elif tag == "table":
            self._open.pop()
            self._cells.pop()
            self._in_head.pop()
        elif tag in ("td", "th", "tr"):
            self._cells[-1] = None
        elif tag == "thead":
            self._in_head[-1] = False

    def add_text(self, text: str) -> None:
        """Take in text."""
        for cell in self._cells:
            if cell is not None and text:
                cell.texts.append(text)


def spans_of(attributes: str) -> tuple[int, int]:
    """Return how many rows and columns a cell with these *attributes* spans, at least one."""
    spans: dict[str, str] = {}
    for found in _SPAN.finditer(attributes):  # of repeated ones the first counts, as in browsers
        spans.setdefault(found["name"].lower(), found["double"] or found["single"] or found["bare"] or "")
    return _span(spans.get("rowspan"), to_the_end=True), _span(spans.get("colspan"))


def _span(value: str | None, *, to_the_end: bool = False) -> int:
    """Return an attribute's number of rows or columns: 0 means all remaining rows, nonsense means one."""
    digits = (value or "").strip()
    if not (digits.isascii() and digits.isdigit()):
        return 1
    if set(digits) == {"0"}:
        return MOST_ROWS if to_the_end else 1
    return int(digits[-9:]) if len(digits) <= 9 else MOST_ROWS
