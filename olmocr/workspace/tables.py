"""HTML tables in a page's text -> markdown or CSV. A table that neither format can express stays HTML, with the reason.

olmOCR-2 writes tables as HTML. Markdown and CSV have no merged cells: the text of one goes to the first of the places
that it covered, and the others are empty; nothing is written twice.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from olmocr.html_tables import TAG, spans_of
from olmocr.text import unescaped

MOST_PLACES = 10_000
"""The most places of all tables of a text, with spans expanded: a table beyond it is left as it is.

A page's answer has 8000 tokens, and a cell takes three: no page needs more, but 99 rows of text can claim a million.
"""

MERGED = "<!-- Merged cells: the text stands in the first place of each; the other places are empty. -->"
"""What follows a table in markdown that had some."""

_INLINE = {"b", "strong", "i", "em", "u", "s", "sub", "sup", "small"}
_GROUPS = {"thead", "tbody", "tfoot"}
_EQUATION = re.compile(r"\\[(\[]|\$\$?")
_ENDS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}
_LINE_BREAK = re.compile(" ?<br> ?")

# What markdown takes for more than a character; an underscore within a word is not.
_ACTIVE = re.compile(r"[\\`*\[\]]|~(?=~)|(?<=~)~|(?<![^\W_])_|_(?![^\W_])")
_TAG_LIKE = re.compile(r"<(?=[A-Za-z/!?])")
_REFERENCE_LIKE = re.compile(r"&(?=#?\w+;)")

# What a spreadsheet would compute; a number with its sign is not.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?!-*$|[\d.,\s]*[%)]*$)")


@dataclass(frozen=True)
class Table:
    """A table in which each place has a cell's HTML, or nothing. *has_head* says that the first row has headings.

    *html* is the table's complete source.
    """

    rows: tuple[tuple[str, ...], ...]
    has_head: bool
    caption: str = ""
    is_merged: bool = False
    html: str = ""


@dataclass(frozen=True)
class LeftAsItIs:
    """A table, or the beginning of one, that can only be HTML: *html* and *why*."""

    html: str
    why: str


class _UnusualError(Exception):
    """A table does not consist of rows of cells of text; the message says what is in the way."""


def split_at_tables(text: str) -> Iterator[str | Table | LeftAsItIs]:
    """Yield *text* in order: what is between tables as it is, and each table that is not within another."""
    done, start, depth, has_inner, room = 0, 0, 0, False, MOST_PLACES
    for tag in TAG.finditer(text):
        if tag["comment"] or tag["name"].lower() != "table":
            continue
        if not tag["end"]:
            if depth == 0:
                start, has_inner = tag.start(), False
            depth += 1
            has_inner |= depth > 1
        elif depth:
            depth -= 1
            if depth == 0:
                yield text[done:start]
                table = _read(text[start : tag.end()], room, has_inner=has_inner)
                if isinstance(table, Table):
                    room -= len(table.rows) * len(table.rows[0])
                yield table
                done = tag.end()
    if depth:
        yield text[done:start]
        yield LeftAsItIs(text[start:], "it does not end")
    else:
        yield text[done:]


def tables_as_markdown(text: str, on_left: Callable[[str], None] = lambda why: None) -> str:
    """Return *text* with its tables as markdown; *on_left* is called with why one was left as HTML."""
    pieces: list[str] = []
    is_after_table = False
    for piece in split_at_tables(text):
        if isinstance(piece, Table):
            _end_paragraph(pieces)
            pieces += [as_markdown(piece), "\n\n"]
            is_after_table = True
            continue
        if isinstance(piece, LeftAsItIs):
            on_left(piece.why)
        shown = piece.html if isinstance(piece, LeftAsItIs) else piece
        if shown := shown.lstrip("\n") if is_after_table else shown:
            pieces.append(shown)
            is_after_table = False
    if is_after_table:
        pieces[-1] = "\n" if text.endswith("\n") else ""
    return "".join(pieces)


def _end_paragraph(pieces: list[str]) -> None:
    """Make *pieces* end with an empty line, if there are any."""
    if pieces and (len(pieces) > 1 or pieces[0].strip("\n")):
        pieces[-1] = pieces[-1].rstrip("\n") + "\n\n"
    else:
        pieces.clear()


def as_markdown(table: Table) -> str:
    """Return *table* in GitHub's form of markdown; its first row is empty if it has no headings."""
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    if not table.has_head:
        rows.insert(0, [""] * len(rows[0]))
    lines = [_line(rows[0]), _line(["---"] * len(rows[0])), *map(_line, rows[1:])]
    if table.caption:
        lines[:0] = [_markdown_cell(table.caption), ""]
    if table.is_merged:
        lines += ["", MERGED]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def as_csv(table: Table) -> str:
    """Return *table* as CSV (RFC 4180, UTF-8): text without tags, with a line break where the cell has one.

    What a spreadsheet would take for a formula begins with an apostrophe, since its author is unknown.
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows([_csv_cell(cell) for cell in row] for row in table.rows)
    return file.getvalue()


def _csv_cell(cell: str) -> str:
    tokens = [
        unescaped(piece) if tag is None else "\0" if tag["name"].lower() == "br" else "" for piece, tag in _pieces(cell)
    ]
    text = "\n".join(" ".join(line.split()) for line in "".join(tokens).split("\0"))
    return f"'{text}" if _FORMULA.match(text) else text


def _markdown_cell(cell: str) -> str:
    tokens = [_escaped(unescaped(piece)) if tag is None else _kept(tag) for piece, tag in _pieces(cell)]
    # In a row, each pipe with a backslash before it belongs to a cell, and loses that backslash.
    return _LINE_BREAK.sub("<br>", " ".join("".join(tokens).split())).replace("|", "\\|")


def _pieces(cell: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield the pieces of a cell's HTML: text, or an empty text and a tag."""
    done = 0
    for tag in TAG.finditer(cell):
        yield cell[done : tag.start()].replace("\0", ""), None
        yield "", tag
        done = tag.end()
    yield cell[done:].replace("\0", ""), None


def _kept(tag: re.Match[str]) -> str:
    name = tag["name"].lower()
    return "<br>" if name == "br" else f"<{tag['end']}{name}>"


def _escaped(text: str) -> str:
    """Return *text* so that markdown shows these characters; equations stay, except that no tag begins in them."""
    shown, done = [], 0
    ends_from: dict[str, int] = {}
    for sign in _EQUATION.finditer(text):
        if sign.start() < done or ends_from.get(sign[0], 0) < 0:
            continue
        closer = _ENDS[sign[0]]
        ends_from[sign[0]] = end = text.find(closer, sign.end())
        if end <= sign.end() or (sign[0] == "$" and _is_money(text, sign.end(), end)):
            continue
        shown += [_plain(text[done : sign.start()]), _TAG_LIKE.sub("< ", text[sign.start() : end + len(closer)])]
        done = end + len(closer)
    return "".join([*shown, _plain(text[done:])])


def _is_money(text: str, first: int, last: int) -> bool:
    return text[first].isspace() or text[last - 1].isspace() or text[last + 1 : last + 2].isdigit()


def _plain(text: str) -> str:
    return _TAG_LIKE.sub("&lt;", _REFERENCE_LIKE.sub("&amp;", _ACTIVE.sub(r"\\\g<0>", text)))


# Reading HTML.


@dataclass(frozen=True)
class _Cell:
    html: str
    rows: int
    columns: int
    is_heading: bool


class _TableReader:
    """Collects rows of cells from a table's tags; anything else is refused."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._row: list[_Cell] | None = None
        self._cell: tuple[int, re.Match[str]] | None = None  # where an open cell's text begins, and its tag
        self._caption: int | None = None
        self._in_head = False
        self.rows: list[list[_Cell]] = []
        self.caption = ""

    def read(self) -> None:
        """Read all.

        Raises:
            _UnusualError: it is not a plain table.
        """
        tags = list(TAG.finditer(self._html))
        for before, tag in itertools.pairwise(tags):
            between = self._html[before.end() : tag.start()]
            if self._cell is None and self._caption is None and between.strip():
                raise _UnusualError("there is text between its cells")
            self._take(tag)

    def _take(self, tag: re.Match[str]) -> None:
        if tag["comment"]:
            raise _UnusualError("it contains a comment")
        name, is_end = tag["name"].lower(), bool(tag["end"])
        if name == "table":  # the last tag
            self._close_cell(tag)
        elif name == "caption":
            self._take_caption(tag, is_end=is_end)
        elif name in ("td", "th"):
            self._take_cell(tag, is_end=is_end)
        elif name == "tr" or name in _GROUPS:
            self._close_cell(tag)
            self._row = None
            if name in _GROUPS:
                self._in_head = name == "thead" and not is_end
            elif not is_end:
                self._row = []
                self.rows.append(self._row)
        elif name not in ("colgroup", "col") and not (
            (name in _INLINE or name == "br") and (self._cell or self._caption is not None)
        ):
            raise _UnusualError(f"<{name[:20]}> is in it")

    def _take_cell(self, tag: re.Match[str], *, is_end: bool) -> None:
        self._close_cell(tag)
        if is_end:
            return
        if self._row is None:
            raise _UnusualError("a cell is outside its rows")
        self._cell = tag.end(), tag

    def _take_caption(self, tag: re.Match[str], *, is_end: bool) -> None:
        if self._cell or self._row is not None or self.caption or is_end == (self._caption is None):
            raise _UnusualError("its caption is in the wrong place")
        if self._caption is not None:
            self.caption, self._caption = self._html[self._caption : tag.start()].strip(), None
        else:
            self._caption = tag.end()

    def _close_cell(self, tag: re.Match[str]) -> None:
        if self._caption is not None:
            raise _UnusualError("its caption does not end")
        if self._cell is None:
            return
        start, opened = self._cell
        rows, columns = spans_of(opened["attributes"])
        is_heading = self._in_head or opened["name"].lower() == "th"
        if self._row is not None:
            self._row.append(_Cell(self._html[start : tag.start()].strip(), rows, columns, is_heading))
        self._cell = None


def _read(html: str, room: int, *, has_inner: bool) -> Table | LeftAsItIs:
    if has_inner:
        return LeftAsItIs(html, "it contains another table")
    reader = _TableReader(html)
    try:
        reader.read()
        return replace(_spread(reader.rows, reader.caption, room), html=html)
    except _UnusualError as error:
        return LeftAsItIs(html, str(error))


def _spread(rows: list[list[_Cell]], caption: str, room: int) -> Table:
    """Give each cell its places, at most *room* in all.

    Raises:
        _UnusualError: there are none, too many, or two cells want one place.
    """
    rows = [row for row in rows if row]
    taken: dict[tuple[int, int], str] = {}
    is_merged = False
    for at, row in enumerate(rows):
        column = 0
        for cell in row:
            while (at, column) in taken:
                column += 1
            high = min(cell.rows, len(rows) - at)
            if len(taken) + high * cell.columns > room:
                raise _UnusualError(_too_many(room))
            for place in itertools.product(range(at, at + high), range(column, column + cell.columns)):
                if place in taken:
                    raise _UnusualError("two of its cells cover one place")
                taken[place] = ""
            taken[at, column] = cell.html
            is_merged |= high * cell.columns > 1
            column += cell.columns
    width = 1 + max((column for _, column in taken), default=-1)
    if width * len(rows) > room:
        raise _UnusualError(_too_many(room))
    if not width:
        raise _UnusualError("it has no cells")
    spread = tuple(tuple(taken.get((at, column), "") for column in range(width)) for at in range(len(rows)))
    return Table(spread, any(cell.is_heading for cell in rows[0]), caption, is_merged)


def _too_many(room: int) -> str:
    if room < MOST_PLACES:
        return f"with the tables before it, it has more than {MOST_PLACES} places"
    return f"it has more than {MOST_PLACES} places"
