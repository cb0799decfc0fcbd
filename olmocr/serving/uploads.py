"""A request with a document in it -> a temporary file, which is gone afterwards, and what is asked about it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from olmocr.errors import UsageError, output_error
from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.page_ranges import PageRanges, parse_page_ranges
from olmocr.serving.refusals import bad_request
from olmocr.text import one_line

MOST_SIDE = 4096
"""Pixels on the longest side of a page's image; a model takes no more."""

_LONGEST_RANGES = 1000  # characters: each range is looked through

NAMELESS = "the document"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked about a document. *pages* None is all; *markdown* says whether the last line has all of its text.

    *longest_side* is that of a page's image, in pixels.
    """

    pages: PageRanges | None = None
    markdown: bool = True
    longest_side: int = TARGET_LONGEST_IMAGE_DIM


def parse_wanted(given: Mapping[str, str]) -> Wanted:
    """Read the options of a request: ``pages``, ``markdown`` and ``longest_side``.

    Raises:
        RequestError: there is no such option, or its value is none.
    """
    if unknown := sorted(given.keys() - {"pages", "markdown", "longest_side"}):
        raise bad_request(f"there is no option {one_line(unknown[0], 40)!r}; there are pages, markdown, longest_side")
    if len(given.get("pages", "")) > _LONGEST_RANGES:
        raise bad_request(f"pages must be like 1-5,9,12- and have at most {_LONGEST_RANGES} characters", "pages")
    try:
        pages = parse_page_ranges(given["pages"]) if given.get("pages") else None
    except UsageError as error:
        raise bad_request(str(error), "pages") from error
    markdown = given.get("markdown", "true").lower()
    if markdown not in ("true", "false", "1", "0"):
        raise bad_request("markdown must be true or false", "markdown")
    side = given.get("longest_side", str(TARGET_LONGEST_IMAGE_DIM))
    if not (side.isascii() and side.isdigit() and len(side) < 6 and 28 <= int(side) <= MOST_SIDE):
        raise bad_request(f"longest_side must be 28 to {MOST_SIDE} pixels", "longest_side")
    return Wanted(pages=pages, markdown=markdown in ("true", "1"), longest_side=int(side))


def shown_name(name: str | None) -> str:
    """Return what sentences call an uploaded file: its own name, which is anybody's text, without folders."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return one_line(last, 100) or NAMELESS


def kept(pieces: AsyncIterator[bytes], folder: Path) -> contextlib.AbstractAsyncContextManager[Path]:
    """Yield a file in *folder* with these bytes; it is removed in every case.

    Raises:
        OutputError: the disk is full.
    """

    async def write(file: BinaryIO) -> None:
        async for piece in pieces:
            file.write(piece)

    return _written(folder, write)


def kept_copy(source: BinaryIO, folder: Path) -> contextlib.AbstractAsyncContextManager[Path]:
    """Yield a file in *folder* with what is in *source*, as of :func:`kept`."""
    return _written(folder, lambda file: asyncio.to_thread(shutil.copyfileobj, source, file))


@contextlib.asynccontextmanager
async def _written(folder: Path, write: Callable[[BinaryIO], Awaitable[None]]) -> AsyncIterator[Path]:
    path = folder / secrets.token_hex(8)
    try:
        try:
            with path.open("xb") as file:
                await write(file)
        except OSError as error:
            raise output_error(error, "the uploaded document (TMPDIR names another folder)") from error
        yield path
    finally:
        path.unlink(missing_ok=True)
