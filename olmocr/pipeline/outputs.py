"""Document -> Dolma JSONL and markdown, each file whole or absent."""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from olmocr import __version__
from olmocr.errors import output_error
from olmocr.pipeline.document import Document


def dolma_record(document: Document, model: str, today: datetime.date) -> dict[str, Any]:
    """Return upstream olmOCR's record of a document, and beside its fields a few of ours.

    Ours are in ``metadata``: ``source-sha256``, ``model``; and, one entry a page, in ``attributes``:
    ``is_fallback``, ``attempts``, ``finish_reason``, ``temperature``, ``rotation`` and ``rejected``.
    """
    text = document.text
    pages = document.pages
    answers = [page.result.answer for page in pages if page.result.answer]
    return {
        "id": hashlib.sha1(text.encode("utf-8", "surrogatepass")).hexdigest(),  # noqa: S324
        "text": text,
        "source": "olmocr",
        "added": today.isoformat(),
        "created": today.isoformat(),
        "metadata": {
            "Source-File": document.source.name,
            "olmocr-version": __version__,
            "pdf-total-pages": len(pages),
            "total-input-tokens": sum(answer.input_tokens for answer in answers),
            "total-output-tokens": sum(answer.output_tokens for answer in answers),
            "total-fallback-pages": len(document.fallback_pages),
            "source-sha256": document.content_hash,
            "model": model,
        },
        "attributes": {
            "pdf_page_numbers": document.spans,
            "primary_language": [page.response.primary_language for page in pages],
            "is_rotation_valid": [page.response.is_rotation_valid for page in pages],
            "rotation_correction": [page.response.rotation_correction for page in pages],
            "is_table": [page.response.is_table for page in pages],
            "is_diagram": [page.response.is_diagram for page in pages],
            "is_fallback": [page.is_fallback for page in pages],
            "attempts": [page.result.attempts for page in pages],
            "finish_reason": [page.result.answer.finish_reason if page.result.answer else None for page in pages],
            "temperature": [page.result.temperature for page in pages],
            "rotation": [page.result.rotation for page in pages],
            "rejected": [list(page.result.rejected) for page in pages],
        },
    }


def write_json_line(path: Path, record: dict[str, Any]) -> None:
    """Write *record* as the only line of *path*."""
    write_whole(path, json.dumps(record) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write *text* beside *path*, then put it in its place: a reader finds the old file, or the new one.

    Raises:
        OutputError: it cannot be written; nothing is left of it.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
        with temporary.open("xb") as file:
            # A lone surrogate, which a model's JSON can hold, is no UTF-8; it becomes a question mark.
            file.write(text.encode("utf-8", "replace"))
        temporary.replace(path)
    except OSError as error:
        raise output_error(error, str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
