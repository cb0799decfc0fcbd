"""Pages to test a model on, drawn on the spot: their text, and what must be found in it -> PDF files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from olmocr.validate.known_pages.drawing import (
    Sheet,
    Type,
    picture,
    table_html,
    table_sheet,
    text_sheet,
    turned_90,
    turned_180,
    write_pdf,
)
from olmocr.validate.known_pages.page_set import KnownPage, read_page_set

_BUILT_IN = "built-in"

_BODY = Type(20.0)
_DENSE = 16.0  # points at _DENSE_SIDE pixels: letters of 13 pixels, whatever the side
_DENSE_SIDE = 644
_SCAN_SIDE = 1650  # pixels: 150 a inch
_SCAN_TILT = 0.4  # degrees
_SCANNED = time.gmtime(0)

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


def pages_or_built_in(paths: Sequence[Path], folder: Path, longest_side: int) -> tuple[str, tuple[KnownPage, ...]]:
    """Return the page set's name in reports, and its pages: those of *paths*, or the built-in ones if it is empty.

    Raises:
        InputError: a document or a text cannot be read, or there are no documents.
    """
    if not paths:
        return _BUILT_IN, draw_built_in_pages(folder, longest_side)
    return " and ".join(path.resolve().name for path in paths), read_page_set(paths)


def draw_built_in_pages(folder: Path, longest_side: int) -> tuple[KnownPage, ...]:
    """Write the pages into *folder*, for a model that sees *longest_side* pixels; return their content.

    One column of large type, so that the demo checkpoint reads them as well as olmOCR does. Only the dense page's type
    has a size in pixels, 13, which is 16 points at 644 pixels and 8 points at 1288.
    """
    dense = Type(_DENSE * _DENSE_SIDE / longest_side)
    letter = text_sheet(_LETTER, _BODY)
    truth = "\n\n".join(_LETTER)
    found = ("lantern above the harbour gate", "the blue boat since Tuesday")
    several = write_pdf(folder / "several.pdf", [text_sheet(_FIRST, _BODY), text_sheet(_SECOND, _BODY)])
    return (
        KnownPage(write_pdf(folder / "plain.pdf", [letter]), 1, "plain text", truth, 0, found),
        KnownPage(
            write_pdf(folder / "dense.pdf", [text_sheet(_DENSE_TEXT, dense)]),
            1,
            "small dense text",
            "\n\n".join(_DENSE_TEXT),
            0,
            ("repair of the old bridge", "close the bridge to heavy wagons", "Four lime trees"),
        ),
        KnownPage(
            write_pdf(folder / "table.pdf", [table_sheet(_TABLE, _BODY.size)]),
            1,
            "table",
            table_html(_TABLE),
            0,
            tuple(cell for row in _TABLE[1:] for cell in row),
        ),
        KnownPage(
            write_pdf(folder / "numbers.pdf", [text_sheet(_NUMBERS, _BODY)]),
            1,
            "numbers",
            "\n".join(_NUMBERS),
            0,
            ("48213", "2019-04-27", "317.5", "2,940.86", "555 0173"),
        ),
        KnownPage(write_pdf(folder / "blank.pdf", [Sheet("")]), 1, "blank", "", 0),
        KnownPage(write_pdf(folder / "turned_90.pdf", [turned_90(letter)]), 1, "turned by 90", truth, 90, found),
        KnownPage(write_pdf(folder / "turned_180.pdf", [turned_180(letter)]), 1, "turned by 180", truth, 180, found),
        KnownPage(_write_scan(folder / "scan.pdf", letter), 1, "scan", truth, 0, found),
        KnownPage(several, 1, "first of two", "\n\n".join(_FIRST), 0, ("northern pier at six",)),
        KnownPage(several, 2, "second of two", "\n\n".join(_SECOND), 0, ("on a short lead",)),
    )


def _write_scan(path: Path, sheet: Sheet) -> Path:
    """Write *sheet* as a picture only, slightly tilted, as from a scanner."""
    pixels = picture(sheet, _SCAN_SIDE, path).pixels
    tilted = pixels.rotate(_SCAN_TILT, fillcolor="white")
    # Pillow writes the time of day into a PDF, and a measurement resumes only with pages of the same bytes.
    tilted.save(path, "PDF", resolution=150.0, quality=80, creationDate=_SCANNED, modDate=_SCANNED)
    return path
