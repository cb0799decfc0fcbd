"""Pages to try a model on, drawn on the spot: their text, and what must be found in it -> PDF files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.pipeline.render import open_document
from olmocr.validate.page_set import KnownPage

BUILT_IN = "built-in"

_WIDTH, _HEIGHT = 612, 792  # points: a letter page
_MARGIN = 72
_LEADING = 1.3
_LETTER_WIDTH = 0.52  # of the type's size: what Helvetica's letters take in English on average, and a little
_BODY = 20.0  # points
_DENSE = 16.0  # points at _DENSE_SIDE pixels: letters of 13 pixels, whatever the side
_DENSE_SIDE = 644
_SCAN_SIDE = 1650  # pixels: 150 a inch
_SCAN_TILT = 0.4  # degrees

_LETTER = (
    "The lantern above the harbour gate was lit at seven. Two fishermen carried their nets along the wall and spoke "
    "about the weather of the coming week.",
    "Nobody had seen the blue boat since Tuesday. Its owner, a quiet man from the island, had left a short note with "
    "the keeper of the bridge.",
)
_DENSE_TEXT = (
    "A committee of seven members met in the town hall to discuss the repair of the old bridge. The engineer reported "
    "that the northern pillar had settled by two inches since the autumn floods.",
    "It was agreed to close the bridge to heavy wagons until the spring. The miller asked who would pay for the longer "
    "road, and the mayor promised an answer within three weeks.",
    "The gardener showed his plan for the square. Four lime trees will be planted along the southern side, and the dry "
    "fountain will be moved to the market, where the pipes are sound.",
)
_NUMBERS = ("Order 48213", "Date: 2019-04-27", "Net weight: 317.5 kg", "Amount: $2,940.86", "Telephone 555 0173")
_TABLE = (("City", "Date", "Rate"), ("Bergen", "2016-03-12", "12.4%"), ("Leeds", "2021-11-05", "7.9%"))
_FIRST = ("The ferry leaves the northern pier at six in the morning. Bicycles are carried free of charge.",)
_SECOND = ("The last ferry returns at nine in the evening. Dogs must be kept on a short lead.",)


@dataclass(frozen=True)
class _Sheet:
    """One page to draw: *content* are PDF operators in points from its lower left corner."""

    content: str
    width: int = _WIDTH
    height: int = _HEIGHT


def draw_built_in_pages(folder: Path, longest_side: int) -> tuple[KnownPage, ...]:
    """Write the pages into *folder* as they suit a model that sees *longest_side* pixels; return what they hold.

    One column of large type, so that the demo checkpoint reads them as well as olmOCR does. Only the dense page's type
    is of a size in pixels, 13, which is 16 points at 644 pixels and 8 points at 1288.
    """
    dense = _DENSE * _DENSE_SIDE / longest_side
    letter = _text(_LETTER, _BODY)
    truth = "\n\n".join(_LETTER)
    found = ("lantern above the harbour gate", "the blue boat since Tuesday")
    several = _write(folder / "several.pdf", [_text(_FIRST, _BODY), _text(_SECOND, _BODY)])
    return (
        KnownPage(_write(folder / "plain.pdf", [letter]), 1, "plain text", truth, 0, found),
        KnownPage(
            _write(folder / "dense.pdf", [_text(_DENSE_TEXT, dense)]),
            1,
            "small dense text",
            "\n\n".join(_DENSE_TEXT),
            0,
            ("repair of the old bridge", "close the bridge to heavy wagons", "Four lime trees"),
        ),
        KnownPage(
            _write(folder / "table.pdf", [_table(_TABLE, _BODY)]),
            1,
            "table",
            _as_html(_TABLE),
            0,
            tuple(cell for row in _TABLE[1:] for cell in row),
        ),
        KnownPage(
            _write(folder / "numbers.pdf", [_text(_NUMBERS, _BODY)]),
            1,
            "numbers",
            "\n".join(_NUMBERS),
            0,
            ("48213", "2019-04-27", "317.5", "2,940.86", "555 0173"),
        ),
        KnownPage(_write(folder / "blank.pdf", [_Sheet("")]), 1, "blank", "", 0),
        KnownPage(_write(folder / "turned_90.pdf", [_turned_90(letter)]), 1, "turned by 90", truth, 90, found),
        KnownPage(_write(folder / "turned_180.pdf", [_turned_180(letter)]), 1, "turned by 180", truth, 180, found),
        KnownPage(_write_scan(folder / "scan.pdf", letter), 1, "scan", truth, 0, found),
        KnownPage(several, 1, "first of two", "\n\n".join(_FIRST), 0, ("northern pier at six",)),
        KnownPage(several, 2, "second of two", "\n\n".join(_SECOND), 0, ("on a short lead",)),
    )


def _text(paragraphs: Sequence[str], size: float) -> _Sheet:
    columns = int((_WIDTH - 2 * _MARGIN) / (size * _LETTER_WIDTH))
    operators, y = [], _HEIGHT - _MARGIN - size
    for paragraph in paragraphs:
        for line in textwrap.wrap(paragraph, columns):
            operators.append(_line(_MARGIN, y, size, line))
            y -= size * _LEADING
        y -= size * 0.6
    return _Sheet("\n".join(operators))


def _table(rows: Sequence[Sequence[str]], size: float) -> _Sheet:
    """Draw a table with lines around its cells; the first row is its head, in bold type."""
    widths = [size * (0.62 * max(len(row[column]) for row in rows) + 0.8) for column in range(len(rows[0]))]
    edges = [_MARGIN + sum(widths[:column]) for column in range(len(widths) + 1)]
    height, top = size * 1.7, _HEIGHT - _MARGIN
    operators = ["1 w 0 G"]
    for number, row in enumerate(rows):
        y = top - (number + 1) * height
        for column, cell in enumerate(row):
            operators.append(f"{edges[column]:.2f} {y:.2f} {widths[column]:.2f} {height:.2f} re S")
            font = "F2" if number == 0 else "F1"
            operators.append(_line(edges[column] + size * 0.4, y + size * 0.5, size, cell, font))
    return _Sheet("\n".join(operators))


def _line(x: float, y: float, size: float, text: str, font: str = "F1") -> str:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size:.3f} Tf {x:.2f} {y:.2f} Td ({escaped}) Tj ET"


def _turned_90(sheet: _Sheet) -> _Sheet:
    """Turn a page clockwise: a quarter counter-clockwise rights it."""
    return _Sheet(f"q 0 -1 1 0 0 {sheet.width} cm\n{sheet.content}\nQ", sheet.height, sheet.width)


def _turned_180(sheet: _Sheet) -> _Sheet:
    return _Sheet(f"q -1 0 0 -1 {sheet.width} {sheet.height} cm\n{sheet.content}\nQ")


def _as_html(rows: Sequence[Sequence[str]]) -> str:
    tags = ["th"] + ["td"] * (len(rows) - 1)
    lines = ["".join(f"<{tag}>{cell}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)]
    return "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"


def _write(path: Path, sheets: Sequence[_Sheet]) -> Path:
    """Write *sheets* as a PDF with the fonts that every reader has."""
    kids = " ".join(f"{5 + 2 * number} 0 R" for number in range(len(sheets)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(sheets)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
    ]
    for number, sheet in enumerate(sheets):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {sheet.width} {sheet.height}] "
            f"/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> /Contents {6 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(sheet.content)} >>\nstream\n{sheet.content}\nendstream")
    path.write_bytes(_pdf(objects))
    return path


def _pdf(objects: Sequence[str]) -> bytes:
    """Return a PDF of *objects*, the first of which is its catalog."""
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + end.encode("latin-1")


def _write_scan(path: Path, sheet: _Sheet) -> Path:
    """Write *sheet* as a picture alone, a little tilted, as a scanner would."""
    drawn = _write(path, [sheet])
    with open_document(drawn, path.name) as document:
        pixels = document.render(1, _SCAN_SIDE).pixels
    pixels.rotate(_SCAN_TILT, fillcolor="white").save(path, "PDF", resolution=150.0, quality=80)
    return path
