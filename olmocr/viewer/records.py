"""A workspace's folder -> what each document's record says, page by page. No record is trusted."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from olmocr.errors import InputError
from olmocr.page import ROTATIONS
from olmocr.strays import is_passed_over
from olmocr.text import visible

Status = Literal["valid", "retried", "blank", "fallback", "failed"]

STATUSES: dict[Status, str] = {
    "valid": "read at the first attempt",
    "retried": "read, but not at the first attempt",
    "blank": "read; it has no text",
    "fallback": "no good answer: the file's own text",
    "failed": "no good answer, and no text in the file",
}
"""What each status of a page means."""

_RESULT = re.compile(r"output_.*\.jsonl", re.DOTALL)
_LANGUAGE = re.compile("[a-z]{2,3}")


@dataclass(frozen=True)
class ViewedPage:
    """A page as in its record. What a record does not say is None; *rotation* is in degrees counter-clockwise."""

    number: int
    text: str
    status: Status
    attempts: int | None = None
    rejected: tuple[str, ...] = ()
    temperature: float | None = None
    rotation: int = 0
    language: str | None = None
    is_table: bool = False
    is_diagram: bool = False
    low_coverage: bool = False
    is_askew: bool = False

    @property
    def needs_a_look(self) -> bool:
        """Whether something about the page is unusual."""
        return self.status not in ("valid", "blank") or self.low_coverage or self.is_askew

    @property
    def is_poor(self) -> bool:
        """Whether its text is unreliable: no answer was good, text is missing, or the model called it turned."""
        return self.status in ("fallback", "failed") or self.low_coverage or self.is_askew


@dataclass(frozen=True)
class ViewedDocument:
    """A document as in its record. *error* says why it failed; *key* is the name of its page, safe in a path.

    *source_file* is the file's name as given, which may contain anything; *sha256* is of the bytes read.
    """

    key: str
    source_file: str
    pages: tuple[ViewedPage, ...]
    error: str | None = None
    sha256: str | None = None
    model: str | None = None
    created: str | None = None
    output_tokens: int | None = None

    @property
    def name(self) -> str:
        """The file's name without its folders, for display."""
        return visible(re.split(r"[/\\]", self.source_file.rstrip("/\\"))[-1] or self.source_file) or "without a name"


def find_records(workspace: Path) -> Iterator[Path]:
    """Return the files with a workspace's records, in order of their names.

    Raises:
        InputError: the folder is not a workspace.
    """
    folders = (workspace / "results", workspace / "failed")
    if not any(folder.is_dir() for folder in folders):
        raise InputError(f"{workspace} is not a workspace: it has no results/ and no failed/; name the folder of a run")
    try:
        results = sorted(name for name in _names_in(folders[0]) if _RESULT.fullmatch(name))
        failed = sorted(name for name in _names_in(folders[1]) if name.endswith(".json") and not is_passed_over(name))
    except OSError as error:
        raise InputError(f"{workspace} cannot be read: {error.strerror}") from error
    return chain((folders[0] / name for name in results), (folders[1] / name for name in failed))


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # names alone: a workspace may have very many
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Record:
    """A document's record: *length* bytes from *start* in the file *path*, where it is line *number*, counted from 0.

    *digest* is the SHA-256 of these bytes. A file that cannot be read has no bytes.
    """

    path: Path
    number: int
    start: int
    length: int
    digest: str


def read_records(path: Path) -> Iterator[tuple[Record, ViewedDocument]]:
    """Yield where each record is in one of :func:`find_records`' files, and its document.

    A line that is not a record is a document that failed.
    """
    try:
        with path.open("rb") as file:
            start = 0
            for number, line in enumerate(file):
                if line.strip():
                    yield Record(path, number, start, len(line), _digest(line)), _read_line(line, path, number)
                start += len(line)
    except FileNotFoundError:
        return  # a continuing run has moved its result
    except OSError as error:
        document = _unreadable(path, error)
        yield Record(path, 0, 0, 0, _digest(str(document.error).encode("utf-8", "replace"))), document


def read_document(record: Record) -> ViewedDocument | None:
    """Return the document of a *record*; None if it is no longer there."""
    try:
        with record.path.open("rb") as file:
            file.seek(record.start)
            line = file.read(record.length)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(record.path, error)
    return _read_line(line, record.path, record.number) if _digest(line) == record.digest else None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _unreadable(path: Path, error: OSError) -> ViewedDocument:
    identity = f"{path.parent.name}/{path.name}"
    return ViewedDocument(_key(path.stem, identity), path.name, (), visible(f"{path} cannot be read: {error.strerror}"))


def _read_line(line: bytes, path: Path, number: int) -> ViewedDocument:
    identity = f"{path.parent.name}/{path.name}/{number}"
    try:
        record = json.loads(line)
        if path.parent.name == "failed":
            return _failed_document(record, identity)
        return _document(record, identity)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"line {number + 1} of {path} is not a record of a document: {type(error).__name__}: {error}"
        return ViewedDocument(_key(path.stem, identity), path.name, (), visible(reason))


def _failed_document(record: dict[str, Any], identity: str) -> ViewedDocument:
    source_file, error = str(record["Source-File"]), visible(str(record["error"]))
    if isinstance(record.get("document"), dict):
        return _document({**record["document"], "error": error}, identity)
    return ViewedDocument(_key(source_file, identity), source_file, (), error)


def _document(record: dict[str, Any], identity: str) -> ViewedDocument:
    metadata = record["metadata"]
    source_file = str(metadata["Source-File"])
    return ViewedDocument(
        key=_key(source_file, identity),
        source_file=source_file,
        pages=tuple(_pages(str(record["text"] or ""), record["attributes"])),
        error=record.get("error"),
        sha256=_text_or_none(metadata.get("source-sha256")),
        model=_text_or_none(metadata.get("model")),
        created=_text_or_none(record.get("created")),
        output_tokens=_integer(metadata.get("total-output-tokens")),
    )


def _key(name: str, identity: str) -> str:
    """Return a file name: the plain characters of the source's name, for people, and a hash that makes it unique."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", re.split(r"[/\\]", name)[-1].rpartition(".")[0] or name).strip("-")
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{stem[:40].strip('-') or 'document'}-{digest[:12]}"


def _pages(text: str, attributes: dict[str, Any]) -> Iterator[ViewedPage]:
    for at, span in enumerate(attributes["pdf_page_numbers"]):
        start, end, number = (int(value) for value in span)
        entry = {key: values[at] for key, values in attributes.items() if isinstance(values, list) and at < len(values)}
        yield _page(number, visible(text[max(start, 0) : max(end, 0)]).strip("\n"), entry)


def _page(number: int, text: str, entry: dict[str, Any]) -> ViewedPage:
    attempts, rotation = _integer(entry.get("attempts")), _integer(entry.get("rotation"))
    rejected, language, temperature = (entry.get(key) for key in ("rejected", "primary_language", "temperature"))
    return ViewedPage(
        number=number,
        text=text,
        status=_status(text, entry.get("is_fallback") is True, attempts),
        attempts=attempts,
        rejected=_reasons(rejected),
        temperature=float(temperature) if isinstance(temperature, int | float) else None,
        rotation=rotation if rotation in ROTATIONS else 0,
        language=language if isinstance(language, str) and _LANGUAGE.fullmatch(language) else None,
        is_table=entry.get("is_table") is True,
        is_diagram=entry.get("is_diagram") is True,
        low_coverage=entry.get("low_coverage") is True,
        is_askew=entry.get("is_rotation_valid") is False,
    )


def _status(text: str, is_fallback: bool, attempts: int | None) -> Status:
    if is_fallback:
        return "fallback" if text.strip() else "failed"
    if not text.strip():
        return "blank"
    return "retried" if attempts is not None and attempts > 1 else "valid"


def _reasons(rejected: object) -> tuple[str, ...]:
    """Return why answers were not accepted: lines of a text; in older records a list."""
    lines = rejected.splitlines() if isinstance(rejected, str) else rejected
    return tuple(visible(str(why)) for why in lines) if isinstance(lines, list) else ()


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text_or_none(value: object) -> str | None:
    return visible(value) if isinstance(value, str) else None
