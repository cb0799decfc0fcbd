"""A page -> the answer that the source gets for it, token by token, and where it comes from.

The best is the source's own answer; then that of a conversion to 8 bits, then a text known to be true, and last the
text in the PDF.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from olmocr.calibration.drawn_pages import front_matter
from olmocr.errors import AnswerError, InputError
from olmocr.files import write_whole
from olmocr.page import (
    FIELDS,
    Ask,
    PageImage,
    PageRequest,
    PageResponse,
    PageResponseError,
    make_front_matter,
    parse_page_response,
    stated_turn,
)
from olmocr.rendering.render import open_document, turned
from olmocr.reports.typed_json import parse_as
from olmocr.validate.known_pages.page_set import KnownPage, true_text_path

if TYPE_CHECKING:
    from olmocr.validate.fidelity.reading import PageAnswer

MAX_TOKENS = 4000
"""The most tokens of one answer; a longer one repeats itself."""

_LANGUAGE = "en"  # of a text that does not say: that of most documents in the training data
_FULL = 0.75  # of the longest line: a shorter one ends its paragraph


@dataclass(frozen=True)
class PageText:
    """An answer to a page that is turned counter-clockwise by *rotation* degrees.

    *tokens*, without the end token, are None if only the text is known.
    """

    whose: str
    text: str
    rotation: int = 0
    tokens: tuple[int, ...] | None = None


TextOf = Callable[[KnownPage, PageImage], PageText | None]
"""One way to get the text of a page; None if it does not know it."""


def first_of(ways: tuple[TextOf, ...]) -> TextOf:
    """Return a way that tries each of *ways* in order, until one knows the text."""

    def text_of(page: KnownPage, image: PageImage) -> PageText | None:
        return next((text for way in ways if (text := way(page, image)) is not None), None)

    return text_of


def kept_text(kept: Mapping[tuple[str, int], PageAnswer], hash_of: Callable[[KnownPage], str]) -> TextOf:
    """Return a way that looks up the source's earlier answers, by document SHA-256 and page number."""

    def text_of(page: KnownPage, image: PageImage) -> PageText | None:
        answer = kept.get((hash_of(page), page.page_number)) if kept else None
        if answer is None or not answer.holds:
            return None
        return PageText("the source's answers, kept", answer.text, answer.rotation, answer.tokens)

    return text_of


def asked_text(ask: Ask, whose: str) -> TextOf:
    """Return a way that asks a model, greedily, and once more if the answer says that the page is turned.

    An answer that is cut off, breaks the page format, or says again that the page is turned is dropped.
    """

    async def text_of(image: PageImage, draft: str | None) -> PageText | None:
        request = PageRequest(image, max_tokens=MAX_TOKENS, draft_text=draft)
        answer = await ask(request)
        if turn := stated_turn(answer.text):
            image = turned(image, turn)
            answer = await ask(replace(request, image=image))
        found = _parsed(answer.text)
        if answer.finish_reason != "stop" or found is None or not found.is_rotation_valid:
            return None
        return PageText(whose, answer.text, image.rotation)

    def asked(page: KnownPage, image: PageImage) -> PageText | None:
        try:
            # The page's text, as far as known: a draft does not change the answer, and saves most passes.
            return asyncio.run(text_of(image, page.truth if page.truth is not None else _layer(page)))
        except (AnswerError, InputError):
            return None

    return asked


def remembered(folder: Path, way: TextOf) -> TextOf:
    """Return *way* with a cache in *folder*, by the page's pixels, so that no answer is computed twice.

    The result raises OutputError if an answer cannot be written.
    """

    def text_of(page: KnownPage, image: PageImage) -> PageText | None:
        path = folder / f"{_digest(image)}.json"
        with contextlib.suppress(OSError, ValueError):
            return parse_as(PageText, path.read_text(encoding="utf-8"))
        text = way(page, image)
        if text is not None:
            write_whole(path, json.dumps(asdict(text)))
        return text

    return text_of


def _digest(image: PageImage) -> str:
    pixels = image.pixels
    return hashlib.sha256(f"{pixels.mode} {pixels.size} ".encode() + pixels.tobytes()).hexdigest()


def true_text(page: KnownPage, image: PageImage) -> PageText | None:
    """Return the text in the file beside a page, in the page format; None if it is missing."""
    path = true_text_path(page.path, page.page_number) if page.truth is not None else None
    if path is None:
        return None
    text = path.read_text(encoding="utf-8").strip()
    found = _parsed(text)
    if found is None:
        return PageText("true text", front_matter(_LANGUAGE, is_table="<table>" in text) + text)
    upright = replace(found, is_rotation_valid=True, rotation_correction=0)
    return PageText("true text", _written(upright), 0 if found.is_rotation_valid else found.rotation_correction)


def layer_text(page: KnownPage, image: PageImage) -> PageText | None:
    """Return the text in the file itself for a page, in the page format; None if it has none."""
    text = _layer(page)
    return None if text is None else PageText("text layer", front_matter(_LANGUAGE) + joined_lines(text))


def _layer(page: KnownPage) -> str | None:
    with open_document(page.path, page.path.name) as document:
        return document.text(page.page_number)


def joined_lines(text: str) -> str:
    """Return *text* with the lines of a paragraph joined; a line much shorter than others ends it."""
    lines = [line.strip() for line in text.splitlines()]
    full = _FULL * max(map(len, lines), default=0)
    found = ""
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        found += line
        if not line or not after or len(line) < full:
            found += "\n\n"
        elif re.search(r"[^\W\d_]-$", line) and after[:1].islower():
            found = found[:-1]
        else:
            found += " "
    return re.sub(r"\n{3,}", "\n\n", found).strip()


def _parsed(text: str) -> PageResponse | None:
    try:
        return parse_page_response(text)
    except PageResponseError:
        return None


def _written(response: PageResponse) -> str:
    """Return *response* in the model's format."""
    values = {name: getattr(response, name) for name in FIELDS}
    if response.primary_language is None:
        values["primary_language"] = "null"
    return (make_front_matter(values) + (response.natural_text or "")).rstrip("\n")
