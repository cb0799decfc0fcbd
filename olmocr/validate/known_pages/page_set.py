"""PDFs, and their true text beside them -> KnownPages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError
from olmocr.files import sha256_of
from olmocr.model_folder import read_json
from olmocr.page import TARGET_LONGEST_IMAGE_DIM, PageResponseError, parse_page_response
from olmocr.rendering.render import open_document
from olmocr.strays import is_passed_over

PAGE_ENDINGS = (".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")

_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_LETTER = 612 / 792
_PATCH = 28  # pixels a side that become one token


@dataclass(frozen=True)
class KnownPage:
    """A page of the document at *path*, numbered from 1, and what is known about it.

    *truth* is its text, "" if it has none, and None if unknown. *rotation* is how far it must be turned
    counter-clockwise to be read, None if unknown. *phrases* are what its text must contain.
    """

    path: Path
    page_number: int
    kind: str = "given"
    truth: str | None = None
    rotation: int | None = None
    phrases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in a report."""
        return f"{self.path.name}, page {self.page_number}"


def read_page_set(paths: Sequence[Path]) -> tuple[KnownPage, ...]:
    """Return the pages of documents, or of the documents in folders, sorted by name.

    The truth of NAME.pdf is NAME.md, that of its second page NAME.p2.md: text, with or without front matter.

    Raises:
        InputError: a document or a text cannot be read, or there are no documents.
    """
    pages = [page for path in paths for document in documents_in(path) for page in pages_of(document)]
    if not pages:
        raise InputError("there are no pages to read")
    return tuple(pages)


def page_hashes(pages: Sequence[KnownPage]) -> dict[str, str]:
    """Return the SHA-256 of each document, and of each true text, by its name without folders."""
    documents = {page.path for page in pages}
    texts = {path for page in pages if (path := true_text_path(page.path, page.page_number)) is not None}
    return {path.name: sha256_of(path) for path in sorted(documents | texts)}


def longest_side_for(model: Path) -> int:
    """Return the longest side in pixels for pages to *model*: 1288, or the most that its processor allows.

    A processor with a smaller ``max_pixels``, like the demo checkpoint's, would shrink a larger page with another
    filter.
    """
    limits = [limit for name in _PREPROCESSORS if (model / name).is_file() for limit in _max_pixels(model / name)]
    if not limits:
        return TARGET_LONGEST_IMAGE_DIM
    height = int(math.sqrt(min(limits) / _LETTER)) // _PATCH * _PATCH
    return min(TARGET_LONGEST_IMAGE_DIM, max(_PATCH, height))


def _max_pixels(path: Path) -> list[int]:
    settings = read_json(path)
    settings = settings.get("image_processor", settings)
    size = settings.get("size") or {}
    found = [settings.get("max_pixels"), size.get("max_pixels"), size.get("longest_edge")]
    return [each for each in found if isinstance(each, int) and each > 0]


def documents_in(path: Path) -> list[Path]:
    """Return the document *path*, or those in the folder *path*, sorted by name.

    Raises:
        InputError: there is no such file or folder, or it does not contain documents.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no file or folder {path}")
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in PAGE_ENDINGS and file.is_file() and not is_passed_over(file.name)
    )
    if not found:
        raise InputError(f"{path} does not hold documents: no file in it ends with {' or '.join(PAGE_ENDINGS)}")
    return found


def pages_of(document: Path) -> list[KnownPage]:
    """Return the pages of one document.

    Raises:
        InputError: it cannot be read, or a text beside it cannot.
    """
    with open_document(document, document.name) as opened:
        count = opened.page_count
    numbers = range(1, count + 1)
    return [KnownPage(document, number, truth=_truth(document, number, count)) for number in numbers]


def _truth(document: Path, number: int, count: int) -> str | None:
    path = true_text_path(document, number) if count == 1 or _own_text(document, number).is_file() else None
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        return parse_page_response(text).natural_text or ""
    except PageResponseError:
        return text.strip()


def true_text_path(document: Path, number: int) -> Path | None:
    """Return the file beside *document* with the true text of its page *number*; or None."""
    found = (path for path in (_own_text(document, number), document.with_suffix(".md")) if path.is_file())
    return next(found, None)


def _own_text(document: Path, number: int) -> Path:
    return document.with_name(f"{document.stem}.p{number}.md")
