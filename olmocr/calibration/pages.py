"""A user's documents and folders -> the pages that can be read, and why others are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError
from olmocr.validate.known_pages.page_set import KnownPage, documents_in, pages_of


@dataclass(frozen=True)
class LeftOut:
    """A document or page that is not used: its name, and *why* in a sentence."""

    name: str
    why: str


def find_pages(paths: Sequence[Path]) -> tuple[tuple[KnownPage, ...], tuple[LeftOut, ...]]:
    """Return the pages of documents, or of those in folders, sorted by name, and the unreadable documents.

    Raises:
        InputError: one of *paths* is not a file or folder, or is a folder without documents.
    """
    pages: list[KnownPage] = []
    left_out: list[LeftOut] = []
    for document in (document for path in paths for document in documents_in(path)):
        try:
            pages.extend(pages_of(document))
        except InputError as error:
            left_out.append(LeftOut(document.name, str(error)))
    return tuple(pages), tuple(left_out)
