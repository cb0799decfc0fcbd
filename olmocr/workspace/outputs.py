"""Document -> Dolma JSONL and markdown, each file whole or absent."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from olmocr.files import write_whole
from olmocr.page import FIELDS, make_front_matter
from olmocr.version import __version__
from olmocr.workspace.document import Document, PageRecord


def dolma_line(document: Document, today: datetime.date) -> dict[str, Any]:
    """Return a document as upstream olmOCR writes it, in Dolma's format, and a few fields of ours (docs/outputs.md)."""
    text = document.text
    pages = document.pages
    return {
        "id": text_id(text),
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
            "pdf_page_numbers": document.spans,
            **{name: [getattr(page.response, name) for page in pages] for name in FIELDS},
            "is_fallback": [page.is_fallback for page in pages],
            "is_blank": [page.status == "blank" for page in pages],
            "attempts": [page.attempts for page in pages],
            "finish_reason": [page.finish_reason for page in pages],
            "temperature": [page.temperature for page in pages],
            "rotation": [page.rotation for page in pages],
            "rejected": [list(page.rejected) for page in pages],
            "text_coverage": [page.coverage for page in pages],
            "low_coverage": [page.lacks_text for page in pages],
        },
    }


def text_id(text: str) -> str:
    """Return what Dolma knows a text by: its SHA-1, in hexadecimal."""
    return hashlib.sha1(text.encode("utf-8", "surrogatepass")).hexdigest()  # noqa: S324


def markdown_of(document: Document, *, separator: str = "", front_matter: bool = False) -> str:
    """Return a document as markdown: its text, or its pages with *separator* between, after what is known of it.

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
    language = json.dumps(page.response.primary_language)
    return make_front_matter(vars(page.response) | {"primary_language": language}) + text


def _front_matter(document: Document) -> str:
    """Return a document's source, pages and languages as YAML; JSON strings are YAML's, whatever is in them."""
    languages = sorted({page.response.primary_language for page in document.pages if page.response.primary_language})
    lines = [
        f"source: {json.dumps(document.source.name)}",
        f"pages: {len(document.pages)}",
        f"languages: {json.dumps(languages)}",
        f"fallback_pages: {json.dumps(document.fallback_pages)}",
        f"olmocr_version: {json.dumps(__version__)}",
    ]
    return "---\n" + "\n".join(lines) + "\n---\n"


def pages_json(document: Document) -> dict[str, Any]:
    """Return all that is known of a document's pages."""
    return {
        "source": document.source.name,
        "sha256": document.content_hash,
        "page_count": document.page_count,
        "pages": [dataclasses.asdict(page) for page in document.pages],
    }


def write_json_line(path: Path, line: dict[str, Any]) -> None:
    """Write *line* as the only one of *path*."""
    write_whole(path, json.dumps(line) + "\n")
