"""Files: written so that a reader finds the old one or the new one, told apart by their bytes, kept in a cache.

What is written on the way, a file beside its place or a temporary folder, carries this machine's mark in its name and a
lock that the system drops with the process, however that ends. So a later run can tell what a process left that was
killed, and remove it: no process number is trusted, and what another machine may be writing is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from olmocr.errors import output_error

log = logging.getLogger(__name__)

_PARTIAL = ".partial"
_FOLDER = "olmocr-"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside *path* that takes its place when the block ends; folders on the way are made.

    Whatever ends the block otherwise, *path* stays as it was and nothing is left beside it. What a process left in this
    folder that was killed is removed.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        with file_beside(path) as (beside, file):
            yield file
            file.close()
            beside.replace(path)
    except OSError as error:
        raise output_error(error, str(path)) from error


@contextmanager
def file_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file beside *path*, by name and open; what still has that name after the block is removed.

    Raises:
        OSError: it cannot be made.
    """
    beside, file = _held_file(path)
    with _closed(os.dup(file.fileno())):  # the lock outlives the file's name: no sweep may come between
        try:
            with file:
                yield beside, file
        finally:
            beside.unlink(missing_ok=True)


def _held_file(path: Path) -> tuple[Path, BinaryIO]:
    """Return a new file beside *path*, open and locked."""
    while True:
        beside = path.with_name(f".{_machine()}-{secrets.token_hex(8)}{_PARTIAL}")
        file = beside.open("xb")
        _lock(file.fileno())
        if beside.exists():
            return beside, file
        file.close()  # before it was locked it was nobody's, and a sweep has taken it


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only its owner can read, in *parent* or where temporary files lie; it goes afterwards.

    What processes left in the same place that were killed is removed.

    Raises:
        OSError: none can be made.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    folder, descriptor = _held_folder(parent)
    with _closed(descriptor):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _held_folder(parent: Path) -> tuple[Path, int]:
    """Return a new folder, and an open descriptor of it that is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{_machine()}-", dir=parent))
        # Before it is locked it is nobody's, and a sweep may take it.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            _lock(descriptor)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what processes of this user on this machine were writing in *folder* when they were killed.

    Only what :func:`whole_file` and :func:`temporary_folder` make is looked at; what cannot be removed stays.
    """
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry.path) for entry in entries if _is_temporary(entry.name)]
    except OSError:
        return
    for path in left:
        with contextlib.suppress(OSError):
            _remove_abandoned(path)


def _is_temporary(name: str) -> bool:
    is_file = name.startswith(f".{_machine()}-") and name.endswith(_PARTIAL)
    return is_file or name.startswith(f"{_FOLDER}{_machine()}-")


def _remove_abandoned(path: Path) -> None:
    """Remove a file or folder that nobody holds.

    Raises:
        OSError: somebody does, it is somebody else's, or it cannot be removed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with _closed(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid():
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path)
        elif stat.S_ISREG(status.st_mode):
            path.unlink()
        log.info("removed %s, which a process that was killed had left", path)


@functools.cache
def sweep_once(folder: Path) -> None:
    """Sweep *folder*, once in a process: it may hold many files."""
    sweep(folder)


@functools.cache
def _machine() -> str:
    return hashlib.sha1(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]  # noqa: S324


def _lock(descriptor: int) -> None:
    """Lock an open file or folder for as long as it is open; where the file system has no locks, nothing is swept."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextmanager
def _closed(descriptor: int) -> Iterator[None]:
    """Close *descriptor* after the block."""
    try:
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Write text, or its pieces as they come, in UTF-8, or bytes, by :func:`whole_file`.

    A lone surrogate, which a model's JSON can hold, is not UTF-8; it becomes a question mark.

    Raises:
        OutputError: it cannot be written.
    """
    pieces = [content] if isinstance(content, str | bytes) else content
    with whole_file(path) as file:
        file.writelines(piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace") for piece in pieces)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(path: Path) -> bool:
    """Say whether anything is at *path*. Nothing is, if no disk takes such a name; `Path.exists` raises OSError then.

    Such names are too long or, on a Mac, not Unicode. What is in a folder that may not be entered is not there either.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Say as `is_there` whether a file is at *path*."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Say as `is_there` whether a folder is at *path*."""
    return os.path.isdir(path)  # noqa: PTH112


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
