"""Text at positions on a page, in fonts that every PDF reader has -> PDF files, and pictures of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.page import PageImage
from olmocr.rendering.render import open_document

WIDTH, HEIGHT = 612, 792
"""Points: a letter page."""

MARGIN = 72
"""Points on each side."""

FONTS = (
    *("Helvetica", "Helvetica-Bold", "Helvetica-Oblique", "Helvetica-BoldOblique"),
    *("Times-Roman", "Times-Bold", "Times-Italic", "Times-BoldItalic"),
    *("Courier", "Courier-Bold", "Courier-Oblique", "Courier-BoldOblique"),
)

_LEADING = 1.3
_PAGE_OBJECTS = 3 + len(FONTS)  # the number of the first page's object: after the catalog, pages and fonts


@dataclass(frozen=True)
class Sheet:
    """One page to draw: *content* are PDF operators in points from its lower left corner."""

    content: str
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Type:
    """The typesetting of text: *size* in points, *letter_width* an average letter's, as a share of the size.

    *squeeze* is the width of its letters as a share of their normal width; *slant* is how far they lean to the right.
    """

    size: float
    font: str = "Helvetica"
    letter_width: float = 0.52  # Helvetica's in English, and a little
    squeeze: float = 1.0
    slant: float = 0.0

    def line(self, x: float, y: float, text: str) -> str:
        """Return the operators that write *text* from (*x*, *y*) on."""
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        narrower = f"{100 * self.squeeze:.0f} Tz " if self.squeeze != 1 else ""
        place = f"1 0 {self.slant:.2f} 1 {x:.2f} {y:.2f} Tm" if self.slant else f"{x:.2f} {y:.2f} Td"
        return f"BT {narrower}/{self.font} {self.size:.3f} Tf {place} ({escaped}) Tj ET"


def text_sheet(paragraphs: Sequence[str], letters: Type) -> Sheet:
    """Return a page of one column of *paragraphs*."""
    columns = int((WIDTH - 2 * MARGIN) / (letters.size * letters.letter_width * letters.squeeze))
    operators, y = [], HEIGHT - MARGIN - letters.size
    for paragraph in paragraphs:
        for line in textwrap.wrap(paragraph, columns):
            operators.append(letters.line(MARGIN, y, line))
            y -= letters.size * _LEADING
        y -= letters.size * 0.6
    return Sheet("\n".join(operators))


def table_sheet(rows: Sequence[Sequence[str]], size: float) -> Sheet:
    """Return a page of a table with lines around its cells; the first row is its head, in bold type."""
    widths = [size * (0.62 * max(len(row[column]) for row in rows) + 0.8) for column in range(len(rows[0]))]
    edges = [MARGIN + sum(widths[:column]) for column in range(len(widths) + 1)]
    height, top = size * 1.7, HEIGHT - MARGIN
    operators = ["1 w 0 G"]
    for number, row in enumerate(rows):
        y = top - (number + 1) * height
        letters = Type(size, "Helvetica-Bold" if number == 0 else "Helvetica")
        for column, cell in enumerate(row):
            operators.append(f"{edges[column]:.2f} {y:.2f} {widths[column]:.2f} {height:.2f} re S")
            operators.append(letters.line(edges[column] + size * 0.4, y + size * 0.5, cell))
    return Sheet("\n".join(operators))


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in the format of the model's answers."""
    tags = ["th"] + ["td"] * (len(rows) - 1)
    lines = ["".join(f"<{tag}>{cell}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)]
    return "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"


def turned_90(sheet: Sheet) -> Sheet:
    """Return a page turned clockwise; a quarter turn counter-clockwise rights it."""
    return Sheet(f"q 0 -1 1 0 0 {sheet.width} cm\n{sheet.content}\nQ", sheet.height, sheet.width)


def turned_180(sheet: Sheet) -> Sheet:
    """Return a page upside down."""
    return Sheet(f"q -1 0 0 -1 {sheet.width} {sheet.height} cm\n{sheet.content}\nQ")


def write_pdf(path: Path, sheets: Sequence[Sheet], *, western: bool = False) -> Path:
    """Write *sheets* as a PDF, and return its path.

    *western* text uses the letters of WinAnsi (ISO 32000-1, annex D.2), such as ä, é and ñ; other text those of ASCII.
    """
    kids = " ".join(f"{_PAGE_OBJECTS + 2 * number} 0 R" for number in range(len(sheets)))
    fonts = " ".join(f"/{font} {3 + number} 0 R" for number, font in enumerate(FONTS))
    encoding = " /Encoding /WinAnsiEncoding" if western else ""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(sheets)} /Kids [{kids}] >>",
        *(f"<< /Type /Font /Subtype /Type1 /BaseFont /{font}{encoding} >>" for font in FONTS),
    ]
    for number, sheet in enumerate(sheets):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {sheet.width} {sheet.height}] "
            f"/Resources << /Font << {fonts} >> >> /Contents {_PAGE_OBJECTS + 1 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(sheet.content)} >>\nstream\n{sheet.content}\nendstream")
    path.write_bytes(_pdf(objects))
    return path


def picture(sheet: Sheet, longest_side: int, path: Path, *, western: bool = False) -> PageImage:
    """Return *sheet* as an image; *path* is a file to draw it into on the way."""
    with open_document(write_pdf(path, [sheet], western=western), path.name) as document:
        return document.render(1, longest_side)


def _pdf(objects: Sequence[str]) -> bytes:
    """Return a PDF of *objects*, the first of which is its catalog."""
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{each}\nendobj\n".encode("cp1252")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + end.encode("ascii")
