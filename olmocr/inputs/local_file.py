"""Source -> a file on this disk with its bytes, their hash, and whether they may have changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from olmocr.errors import InputError, output_error
from olmocr.files import sha256_of, temporary_folder
from olmocr.inputs.archives import read_tar_member, read_zip_member
from olmocr.inputs.limits import LIMITS, InputLimits
from olmocr.inputs.origins import (
    Pipe,
    Refused,
    StandardInput,
    StoredFile,
    TarMember,
    WebFile,
    ZipMember,
    own_descriptor,
)
from olmocr.inputs.sources import Source
from olmocr.inputs.stores import read_stored, read_web_file

_PIECE = 1 << 20
_TICK = 0.05  # seconds between two looks at a pipe
_SECOND = 10**9  # nanoseconds


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for copies of documents that are not on this disk; remove folders that killed runs left behind.

    Raises:
        OutputError: none can be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder())
        except OSError as error:
            raise output_error(error, "a temporary folder (set TMPDIR to use another folder)") from error
        yield folder


@contextlib.contextmanager
def local_file(
    source: Source,
    scratch: Path,
    *,
    limits: InputLimits = LIMITS,
    stdin: BinaryIO | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """Yield the path of a file with the document's bytes: its own, or a copy in *scratch*, removed afterwards.

    Standard input and a pipe can be read only once: their copy stays in *scratch*, and the caller removes it.
    *stdin* is read instead of the process's own. *is_over* returns True once nobody needs the copy; it is called
    between two pieces.

    Raises:
        InputError: it does not exist, cannot be downloaded or unpacked, or is larger than *limits* allow.
        OutputError: *scratch* cannot be written, or the disk is full.
    """
    if isinstance(source.origin, Path):
        yield source.origin
    elif isinstance(source.origin, StandardInput):
        file = stdin or sys.stdin.buffer
        yield _read_once(source, scratch, limits, lambda: iter(lambda: file.read(_PIECE), b""))
    elif isinstance(source.origin, Pipe):
        pipe = source.origin
        yield _read_once(source, scratch, limits, lambda: _while_wanted(_piped(pipe, source.name, limits), is_over))
    else:
        path = scratch / f"{source.key}-{secrets.token_hex(4)}"
        try:
            _write(_while_wanted(_pieces(source, scratch, limits), is_over), path, source.name, limits)
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def fetched(source: Source, scratch: Path) -> AsyncIterator[Path]:
    """Yield what :func:`local_file` yields, from a thread: a download may take long, and stops on cancellation."""
    is_over = threading.Event()  # a thread cannot be cancelled
    manager = local_file(source, scratch, is_over=is_over.is_set)
    try:
        path = await asyncio.to_thread(manager.__enter__)
    except asyncio.CancelledError:
        is_over.set()
        raise
    try:
        yield path
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def version_of(source: Source) -> str:
    """Return a cheap proof that a file, or its archive, has not changed; nothing if there is no cheap one.

    Nothing is returned for a file from a web server, for a file in a store that was named and not found in a list, and
    for a file on a disk that keeps times in seconds, as FAT does: there a file may change twice within one second. The
    time of the last change to the file's metadata counts too, since no program can set it back.
    """
    match source.origin:
        case Path() as path:
            pass
        case ZipMember(archive, _) | TarMember(archive, _):
            path = Path(archive)
        case StoredFile(version=version):
            return version
        case _:
            return ""
    try:
        status = path.stat()
    except OSError:
        return ""
    return version_by(status)


def is_elsewhere(source: Source) -> bool:
    """Return whether a document is on another machine, which may serve something else for a while."""
    return isinstance(source.origin, WebFile | StoredFile)


def version_by(status: os.stat_result) -> str:
    """Return :func:`version_of` from a file's status."""
    times = status.st_mtime_ns, status.st_ctime_ns
    if not any(time % _SECOND for time in times):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def content_hash(path: Path, name: str) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error


def _pieces(source: Source, scratch: Path, limits: InputLimits) -> Iterator[bytes]:
    match source.origin:
        case Refused(why):
            raise InputError(why)
        case ZipMember() as origin:
            return read_zip_member(origin)
        case TarMember() as origin:
            return read_tar_member(origin, scratch, limits)
        case StoredFile() as origin:
            return read_stored(origin, source.name)
        case WebFile() as origin:
            return read_web_file(origin, source.name, limits)
    raise TypeError(source.origin)


def _while_wanted(pieces: Iterator[bytes], is_over: Callable[[], bool]) -> Iterator[bytes]:
    for piece in pieces:
        if is_over():
            raise InputError("this copy is no longer needed")
        yield piece


def _read_once(source: Source, scratch: Path, limits: InputLimits, pieces: Callable[[], Iterator[bytes]]) -> Path:
    path = scratch / source.key
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        _write(pieces(), partial, source.name, limits)
        partial.replace(path)
    return path


def _piped(pipe: Pipe, name: str, limits: InputLimits) -> Iterator[bytes]:
    """Yield what is written into a pipe until it is closed, and ``b""`` while there is nothing to read.

    Raises:
        InputError: it cannot be opened, or nothing was written into it for a while.
    """
    own = own_descriptor(pipe.path)
    try:
        # Without waiting: opening would otherwise wait for a writer, perhaps for ever.
        file = os.open(pipe.path, os.O_RDONLY | os.O_NONBLOCK) if own is None else os.dup(own)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    # A pipe that has been open for long may have lost its writer by now: then its end comes before any data.
    is_begun, ticks = own is not None, int(limits.stall_seconds / _TICK)
    try:
        while is_begun or ticks > 0:
            ready, _, _ = select.select([file], [], [], _TICK)
            try:
                piece = os.read(file, _PIECE) if ready else None
            except BlockingIOError:  # a writer has it open, and has not written yet
                piece = None
            if piece:
                is_begun = True
            elif piece is not None and is_begun:
                return
            else:
                ticks -= 1
                if ready:
                    time.sleep(_TICK)
            yield piece or b""
    finally:
        os.close(file)
    raise InputError(f"nothing was written into the pipe {name} for {limits.stall_seconds:g} seconds")


def _write(pieces: Iterator[bytes], path: Path, name: str, limits: InputLimits) -> None:
    """Write *pieces* to *path* as they come, up to the limit."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in pieces:
                if file.tell() + len(piece) > limits.document_bytes:
                    raise InputError(f"{name} has more than {limits.document_bytes} bytes")
                file.write(piece)
    except OSError as error:
        raise output_error(error, f"a copy of {name} in {path.parent}") from error
