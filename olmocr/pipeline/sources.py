"""What was given -> the list of documents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import InputError


@dataclass(frozen=True)
class Source:
    """A document to read. *name* is how it was given; *key* is one for each path, however it is spelled."""

    name: str
    path: Path

    @property
    def key(self) -> str:
        """SHA-1 of the absolute path, in hexadecimal: the document's name in a workspace."""
        return hashlib.sha1(os.path.abspath(self.path).encode("utf-8", "surrogateescape")).hexdigest()  # noqa: S324, PTH100

    def content_hash(self) -> str:
        """Return SHA-256 of the file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror}") from error


def find_sources(names: Iterable[str]) -> tuple[Source, ...]:
    """Return the documents called *names*, in this order, each file once.

    Raises:
        InputError: some are no files; nothing should be started then, since a typing error is likely.
    """
    sources = [Source(name, _path(name)) for name in names]
    absent = [why for source in sources if (why := _why_no_file(source))]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise InputError(f"{'; '.join(absent[:5])}{more}; nothing was started")
    return tuple({source.key: source for source in reversed(sources)}.values())[::-1]


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)


def _why_no_file(source: Source) -> str | None:
    try:
        if source.path.is_file():
            return None
        if source.name and source.path.is_dir():
            return f"{source.name} is a folder, give its files: {source.name.rstrip('/')}/*.pdf"
    except OSError as error:  # a name that is too long, a folder that may not be entered
        return f"{source.name} cannot be read: {error.strerror}"
    return f"there is no file {source.name or repr(source.name)}"
