"""A document's source file -> its pages as pictures in data URIs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError
from olmocr.files import sha256_of
from olmocr.inputs.sources import path_of
from olmocr.page import PageImage
from olmocr.rendering.figures import cut_figures, figure_names
from olmocr.rendering.picture import Picture, make_picture
from olmocr.rendering.render import Pages, open_document, turned
from olmocr.text import visible
from olmocr.viewer.records import ViewedDocument, ViewedPage

LONGEST_SIDE = 1000
"""Pixels on the longer side of a picture."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of one document: *pages* is None if there are none; then *why* gives the reason."""

    pages: Pages | None
    why: str = ""

    def of(self, page: ViewedPage) -> Picture | str:
        """Return the page's picture, turned as it was read, or a sentence that says why there is none."""
        if self.pages is None:
            return self.why
        if not 1 <= page.number <= self.pages.page_count:
            return f"The file has no page {page.number}."
        try:
            image = turned(self.pages.render(page.number, LONGEST_SIDE), page.rotation)
        except InputError as error:
            return visible(f"This page cannot be drawn: {error}.")
        return make_picture(image)

    def figures(self, page: ViewedPage) -> dict[str, Picture | str]:
        """Return the figures that the page's text names, cut out of it, or why one was not; none without the file."""
        if self.pages is None or page.status == "fallback" or not figure_names(page.text):
            return {}
        try:
            found = cut_figures(page.text, turned(self.pages.render(page.number, LONGEST_SIDE), page.rotation))
        except InputError:
            return {}
        cut = {name: make_picture(PageImage(picture)) for name, picture in found.pictures.items()}
        return {**cut, **found.refused}


@contextlib.contextmanager
def open_pictures(document: ViewedDocument) -> Iterator[Pictures]:
    """Open a document's source, if it is still the file that was read; pictures are made on request."""
    path = path_of(document.source_file)
    why = _why_not(path, document.sha256)
    if why:
        yield Pictures(None, why)
        return
    with contextlib.ExitStack() as stack:
        try:
            pages = stack.enter_context(open_document(path, document.source_file))
        except InputError as error:
            yield Pictures(None, visible(f"No picture: {error}."))
        else:
            yield Pictures(pages)


def _why_not(path: Path, sha256: str | None) -> str | None:
    """Return a sentence if the file must not be shown as the one that was read; None if it may.

    A record can name any file, so a file is opened only if the record knows the hash of its bytes.
    """
    if sha256 is None:
        return "No picture: the record does not say which file was read."
    try:
        if not path.is_file():
            return "No picture: the file no longer exists, or was named from another folder."
        digest = sha256_of(path)
    except (OSError, ValueError):  # may not be read; or not a possible name of a file
        return "No picture: the file cannot be read."
    return None if digest == sha256 else "No picture: the file has changed since it was read."
