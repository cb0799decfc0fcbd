"""HTML -> the tables in it, row by row, as a browser would find them in a page that may be cut off anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

MOST_ROWS = 1_000_000
"""More rows or columns than this no cell spans, whatever it says."""


@dataclass(frozen=True)
class Cell:
    """A cell's text, how far it reaches, and whether it is a heading."""

    text: str
    rows: int = 1
    columns: int = 1
    heading: bool = False


def html_tables(text: str, *, line_break: str = "\n") -> list[list[list[Cell]]]:
    """Return the rows of each table in *text*, those within a cell of another table, too; ``<br>`` is *line_break*."""
    reader = _Reader(line_break)
    reader.feed(text)
    reader.close()
    return [[[cell.finished() for cell in row] for row in table] for table in reader.tables]


class _OpenCell:
    """A cell whose text is being collected."""

    def __init__(self, attributes: dict[str, str | None], *, heading: bool) -> None:
        self.text = ""
        self._rows = _span(attributes.get("rowspan"), to_the_end=True)
        self._columns = _span(attributes.get("colspan"))
        self._heading = heading

    def finished(self) -> Cell:
        return Cell(self.text.strip(), self._rows, self._columns, self._heading)


class _Reader(HTMLParser):
    """Collects tables. What stands in a table within a cell belongs to the outer table's cell as well."""

    def __init__(self, line_break: str) -> None:
        super().__init__(convert_charrefs=True)
        self._line_break = line_break
        self.tables: list[list[list[_OpenCell]]] = []
        self._open: list[list[list[_OpenCell]]] = []  # tables, the innermost last
        self._cells: list[_OpenCell | None] = []  # of each of them the cell that is open
        self._in_head: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
            self._open.append(self.tables[-1])
            self._cells.append(None)
            self._in_head.append(False)
        elif not self._open:
            return
        elif tag in ("thead", "tbody", "tfoot"):
            self._in_head[-1] = tag == "thead"
        elif tag == "tr":
            self._open[-1].append([])
            self._cells[-1] = None
        elif tag in ("td", "th") and self._open[-1]:
            cell = _OpenCell(dict(attrs), heading=tag == "th" or self._in_head[-1])
            self._open[-1][-1].append(cell)
            self._cells[-1] = cell
        elif tag == "br":
            self.handle_data(self._line_break)

    def handle_endtag(self, tag: str) -> None:
        if not self._open:
            return
        if tag == "table":
            self._open.pop()
            self._cells.pop()
            self._in_head.pop()
        elif tag in ("td", "th", "tr"):
            self._cells[-1] = None
        elif tag == "thead":
            self._in_head[-1] = False

    def handle_data(self, data: str) -> None:
        for cell in self._cells:
            if cell is not None:
                cell.text += data


def _span(value: str | None, *, to_the_end: bool = False) -> int:
    """Return how many rows or columns an attribute means: 0 is all the rows that are left, nonsense is one."""
    digits = (value or "").strip()
    if not (digits.isascii() and digits.isdigit()):
        return 1
    if set(digits) == {"0"}:
        return MOST_ROWS if to_the_end else 1
    return int(digits[-9:]) if len(digits) <= 9 else MOST_ROWS
