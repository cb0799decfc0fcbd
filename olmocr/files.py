"""Files: written so that a reader finds the old one or the new one, told apart by their bytes, kept in a cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
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


# What file systems answer to a request that they do not have: memory cards, network disks, some FUSE file systems.
NOT_THERE = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "EBADF", "EPERM", "EACCES", "EISDIR")
    if hasattr(errno, name)
)


Flush = Callable[[int], object]


def _ways_to_flush() -> Iterator[Flush]:
    if sys.platform == "darwin":  # fsync there leaves it in the drive's own cache
        yield lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    yield os.fsync


def flushed(descriptor: int, ways: Iterable[Flush] | None = None) -> None:
    """Have all that was written to an open file, or done in an open folder, on the disk, as far as that can be had.

    The first of *ways* that the file system has is taken. One that has none keeps what it was given in its own time,
    which is no reason to give up.

    Raises:
        OSError: the disk is full, or at fault.
    """
    for flush in _ways_to_flush() if ways is None else ways:
        try:
            flush(descriptor)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
        else:
            return


def cache_folder(name: str) -> Path:
    """Return the folder *name* of this package in the user's cache; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "olmocr" / name
