"""A request with a document -> a temporary file, removed afterwards, and what the request wants to know about it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from olmocr.errors import UsageError, output_error
from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.config import HEADERS, TABLES, TextForm
from olmocr.pipeline.page_ranges import PageRanges, parse_page_ranges
from olmocr.serving.refusals import bad_request
from olmocr.text import one_line

MOST_SIDE = 4096
"""Pixels on the longest side of a page's image; a model takes no more."""

_LONGEST_RANGES = 1000  # characters: each range is examined

NAMELESS = "the document"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request wants of a document. *pages* None is all; *markdown*: the last line includes the complete text.

    *longest_side* is that of a page's image, in pixels; *form* is how the text is to differ from what the model writes.
    """

    pages: PageRanges | None = None
    markdown: bool = True
    longest_side: int = TARGET_LONGEST_IMAGE_DIM
    form: TextForm = field(default_factory=TextForm)


_OPTIONS = ("pages", "markdown", "longest_side", "figures", "tables", "headers")
_SWITCH = {"true": True, "1": True, "false": False, "0": False}


def parse_wanted(given: Mapping[str, str], *, sends_files: bool = True) -> Wanted:
    """Read the options of a request (docs/serve.md). *sends_files* says whether its answer can contain files.

    Raises:
        RequestError: an option or its value does not exist, or it requests files where there can be none.
    """
    if unknown := sorted(given.keys() - set(_OPTIONS)):
        raise bad_request(f"there is no option {one_line(unknown[0], 40)!r}; there are {', '.join(_OPTIONS)}")
    if len(given.get("pages", "")) > _LONGEST_RANGES:
        raise bad_request(f"pages must be like 1-5,9,12- and have at most {_LONGEST_RANGES} characters", "pages")
    try:
        pages = parse_page_ranges(given["pages"]) if given.get("pages") else None
    except UsageError as error:
        raise bad_request(str(error), "pages") from error
    side = given.get("longest_side", str(TARGET_LONGEST_IMAGE_DIM))
    if not (side.isascii() and side.isdigit() and len(side) < 6 and 28 <= int(side) <= MOST_SIDE):
        raise bad_request(f"longest_side must be 28 to {MOST_SIDE} pixels", "longest_side")
    return Wanted(
        pages=pages,
        markdown=_switch(given, "markdown", default=True),
        longest_side=int(side),
        form=_form(given, sends_files=sends_files),
    )


def _form(given: Mapping[str, str], *, sends_files: bool) -> TextForm:
    form = TextForm(
        figures=_switch(given, "figures", default=False),
        tables=_choice(given, "tables", TABLES),
        headers=_choice(given, "headers", HEADERS),
    )
    for name, makes_files in (("figures", form.figures), ("tables", form.tables == "csv")):
        if makes_files and not sends_files:
            raise bad_request(
                f"{name}={one_line(given[name], 40)} makes files, which text/markdown cannot contain: "
                "accept application/x-ndjson or text/event-stream, or leave it out",
                name,
            )
    return form


def _switch(given: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = given.get(name, str(default)).lower()
    if value not in _SWITCH:
        raise bad_request(f"{name} must be true or false", name)
    return _SWITCH[value]


def _choice(given: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = given.get(name, choices[0]).lower()
    if value not in choices:
        raise bad_request(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}", name)
    return value


def shown_name(name: str | None) -> str:
    """Return the name of an uploaded file for messages: its own name, which may be any text, without folders."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return one_line(last, 100) or NAMELESS


def kept(pieces: AsyncIterator[bytes], folder: Path) -> contextlib.AbstractAsyncContextManager[Path]:
    """Yield a file in *folder* with these bytes; it is always removed afterwards.

    Raises:
        OutputError: the disk is full.
    """

    async def write(file: BinaryIO) -> None:
        async for piece in pieces:
            file.write(piece)

    return _written(folder, write)


def kept_copy(source: BinaryIO, folder: Path) -> contextlib.AbstractAsyncContextManager[Path]:
    """Yield a file in *folder* with the content of *source*, as :func:`kept` does."""
    return _written(folder, lambda file: asyncio.to_thread(shutil.copyfileobj, source, file))


@contextlib.asynccontextmanager
async def _written(folder: Path, write: Callable[[BinaryIO], Awaitable[None]]) -> AsyncIterator[Path]:
    path = folder / secrets.token_hex(8)
    try:
        try:
            with path.open("xb") as file:
                await write(file)
        except OSError as error:
            raise output_error(error, "the uploaded document (set TMPDIR to use another folder)") from error
        yield path
    finally:
        path.unlink(missing_ok=True)
