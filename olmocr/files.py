"""Files: written so that a reader finds the old one or the new one, told apart by their bytes, kept in a cache."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from olmocr.errors import output_error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside *path* that takes its place when the block ends; folders on the way are made.

    Whatever ends the block otherwise, *path* stays as it was and nothing is left beside it.

    Raises:
        OutputError: it cannot be written.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                yield file
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, str(path)) from error


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Write *text*, or its pieces as they come, in UTF-8, by :func:`whole_file`.

    A lone surrogate, which a model's JSON can hold, is not UTF-8; it becomes a question mark.

    Raises:
        OutputError: it cannot be written.
    """
    pieces = [text] if isinstance(text, str) else text
    with whole_file(path) as file:
        file.writelines(piece.encode("utf-8", "replace") for piece in pieces)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(name: str) -> Path:
    """Return the folder *name* of this package in the user's cache; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "olmocr" / name
