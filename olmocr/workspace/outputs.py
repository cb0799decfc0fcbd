"""Document -> Dolma JSONL and markdown, each file complete or absent."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from pathlib import Path
from typing import Any

from olmocr.files import write_whole
from olmocr.page import FIELDS, make_front_matter
from olmocr.text import strict_json, whole
from olmocr.version import __version__
from olmocr.workspace.document import Document, PageRecord

# What Apache Arrow takes for a time if every value that it looks at is like this.
_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ][\d:.Z+-]*)?")


def dolma_line(document: Document, today: datetime.date) -> dict[str, Any]:
    """Return a document as upstream olmOCR writes it, in Dolma's format, with a few fields of ours (docs/outputs.md).

    Arrow guesses a column's type from the first file, so the type of each field must be visible in each file: if
    something is not known of a page, there is an empty string, and a list never contains empty lists.
    """
    text, spans = _typed_text(document)
    pages = document.pages
    return {
        "id": _id_of(text),
        "text": text,
        "source": "olmocr",
        "added": today.isoformat(),
        "created": today.isoformat(),
        "metadata": {
            "Source-File": document.source.name,
            "olmocr-version": __version__,
            "pdf-total-pages": len(pages),
            "total-input-tokens": sum(page.input_tokens for page in pages),
            "total-output-tokens": sum(page.output_tokens for page in pages),
            "total-fallback-pages": len(document.fallback_pages),
            "source-sha256": document.content_hash,
            "source-pages": document.page_count,
            "model": ", ".join(sorted({page.model for page in pages if page.model})),
        },
        "attributes": {
            "pdf_page_numbers": spans,
            **{name: [getattr(page.response, name) for page in pages] for name in FIELDS},
            "primary_language": [page.response.primary_language or "" for page in pages],
            "is_fallback": [page.is_fallback for page in pages],
            "is_blank": [page.status == "blank" for page in pages],
            "attempts": [page.attempts for page in pages],
            "finish_reason": [page.finish_reason or "" for page in pages],
            "temperature": [float(page.temperature) for page in pages],
            "rotation": [page.rotation for page in pages],
            "rejected": ["\n".join(page.rejected) for page in pages],
            "is_compared": [page.coverage is not None for page in pages],
            "text_coverage": [1.0 if page.coverage is None else float(page.coverage) for page in pages],
            "low_coverage": [page.lacks_text for page in pages],
            "server": [page.server for page in pages],
        },
    }


def text_id(document: Document) -> str:
    """Return the ID of a document's text in Dolma: its SHA-1, in hexadecimal."""
    return _id_of(_typed_text(document)[0])


def _id_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()  # noqa: S324


def _typed_text(document: Document) -> tuple[str, list[list[int]]]:
    """Return a document's text and its pages' places in it.

    A text that is only a date gets a line end, because Arrow would otherwise take it, and all other texts, for times.
    """
    text, spans = whole(document.text), document.spans
    if _LIKE_A_TIME.fullmatch(text):
        text += "\n"
        spans[-1][1] += 1
    return text, spans


def markdown_of(document: Document, *, separator: str = "", front_matter: bool = False) -> str:
    """Return a document as markdown: what is known of it, then its text, or its pages with *separator* between them.

    ``{page}`` in *separator* becomes the number of the page that follows.
    """
    if separator:
        first, *others = document.pages
        parts = [first.response.natural_text or ""]
        for page in others:
            parts += [separator.replace("{page}", str(page.page_number)), page.response.natural_text or ""]
        text = "".join(parts)
    else:
        text = document.text
    return _front_matter(document) + text if front_matter else text


def page_markdown(page: PageRecord, *, front_matter: bool = False) -> str:
    """Return one page as markdown; with *front_matter* as olmOCR answers it."""
    text = page.response.natural_text or ""
    if not front_matter:
        return text
    language = strict_json(page.response.primary_language)
    return make_front_matter(vars(page.response) | {"primary_language": language}) + text


def _front_matter(document: Document) -> str:
    """Return a document's source, pages and languages as YAML; JSON strings are valid YAML, whatever they contain."""
    languages = sorted({page.response.primary_language for page in document.pages if page.response.primary_language})
    lines = [
        f"source: {strict_json(document.source.name)}",
        f"pages: {len(document.pages)}",
        f"languages: {strict_json(languages)}",
        f"fallback_pages: {strict_json(document.fallback_pages)}",
        f"olmocr_version: {strict_json(__version__)}",
    ]
    return "---\n" + "\n".join(lines) + "\n---\n"


def pages_json(document: Document) -> dict[str, Any]:
    """Return everything that is known of a document's pages."""
    return {
        "source": document.source.name,
        "sha256": document.content_hash,
        "page_count": document.page_count,
        "pages": [dataclasses.asdict(page) for page in document.pages],
    }


def write_json_line(path: Path, line: dict[str, Any]) -> None:
    """Write *line* as the only one of *path*."""
    write_whole(path, strict_json(line) + "\n")
