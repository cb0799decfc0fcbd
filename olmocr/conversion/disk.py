"""Reads and writes large files without leaving them in the operating system's page cache.

A conversion reads every byte once and writes every byte once. In the page cache these bytes push out what other
programs need, and on small machines that costs more time than quantizing. Linux reads past the cache with O_DIRECT and
drops what was written; macOS gets F_NOCACHE. Where both are missing, files are read and written as usual.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from olmocr.errors import CheckpointError
from olmocr.files import NOT_THERE, flushed

# O_DIRECT wants offsets, lengths and buffers to be multiples of this; a disk's block is never larger.
_BLOCK = 4096

# Smaller files may stay in the page cache: that makes the next run faster.
_LARGE = 1 << 30

Preadv = Callable[[int, Sequence[memoryview], int], int]
"""As ``os.preadv``: a descriptor, a buffer and an offset -> how many bytes were read."""

_MOST_AT_ONCE = 1 << 30
"""System calls take less than 2 GiB."""


class FileReader:
    """A file that is read at any offset, by any number of threads, each with a buffer of its own."""

    def __init__(
        self, path: Path, *, past_cache: bool = True, large: int = _LARGE, preadv: Preadv | None = None
    ) -> None:
        """Open *path*; with *past_cache*, read a *large* file from the disk even if the page cache has it.

        *preadv* replaces the system's.

        Raises:
            CheckpointError: it cannot be read.
        """
        self._path, self._preadv = path, preadv or os.preadv
        try:
            size = path.stat().st_size
            past_cache = past_cache and size >= large
            self._is_direct = past_cache and hasattr(os, "O_DIRECT")
            self._descriptor = self._open()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        if past_cache:
            _pass_cache(self._descriptor)

    def _open(self) -> int:
        if self._is_direct:
            try:
                return os.open(self._path, os.O_RDONLY | os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:  # this file system does not support it: continue without
                    raise
        self._is_direct = False
        return os.open(self._path, os.O_RDONLY)

    def read(self, offset: int, nbytes: int, buffer: Buffer) -> npt.NDArray[np.uint8]:
        """Return *nbytes* bytes from *offset* on, in *buffer*; they are valid until it is used again.

        Raises:
            CheckpointError: the file cannot be read, or is too short.
        """
        start = offset - offset % _BLOCK if self._is_direct else offset
        end = -(-(offset + nbytes) // _BLOCK) * _BLOCK if self._is_direct else offset + nbytes
        view = buffer.room(end - start)
        held = 0
        try:
            while held < offset + nbytes - start:
                count = self._read_into(view[held : held + _MOST_AT_ONCE], start + held)
                if count == 0:
                    raise CheckpointError(f"{self._path} became shorter while it was being read; download it again")
                held += count
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be read: {error.strerror}") from error
        return np.frombuffer(view, np.uint8, nbytes, offset - start)

    def _read_into(self, view: memoryview, offset: int) -> int:
        try:
            return self._preadv(self._descriptor, [view], offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct:
                raise
        # This file system opens files with O_DIRECT, then cannot read them: continue without.
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return self._preadv(self._descriptor, [view], offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Buffer:
    """Memory that one thread reads into again and again; it grows to the largest piece requested."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BLOCK)  # page-aligned, as O_DIRECT wants

    def room(self, nbytes: int) -> memoryview:
        """Return room for *nbytes*, overwriting what was there before."""
        if len(self._memory) < nbytes:
            self._memory = mmap.mmap(-1, nbytes)
        return memoryview(self._memory)[:nbytes]


class FileWriter:
    """A file of known size whose pieces are written at any offset, by any number of threads."""

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:  # without it, the file grows as it is written
            if error.errno not in NOT_THERE:
                os.close(self._descriptor)
                raise
        _pass_cache(self._descriptor)

    def write(self, piece: memoryview, offset: int) -> None:
        """Write *piece*, bytes, at *offset*."""
        while piece:
            count = os.pwrite(self._descriptor, piece[:_MOST_AT_ONCE], offset)
            piece, offset = piece[count:], offset + count

    def flush(self) -> None:
        """Sync to disk everything written so far."""
        flushed(self._descriptor)

    def drop(self, end: int) -> None:
        """Have the page cache drop the file up to *end*, which is on the disk."""
        with contextlib.suppress(OSError, AttributeError):  # macOS has no posix_fadvise; F_NOCACHE did it there
            os.posix_fadvise(self._descriptor, 0, end, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _pass_cache(descriptor: int) -> None:
    """Keep the file out of the page cache on macOS; ignore a network disk that cannot."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)


@contextlib.contextmanager
def reading(path: Path, *, past_cache: bool = True) -> Iterator[FileReader]:
    """Yield a `FileReader` of *path*."""
    reader = FileReader(path, past_cache=past_cache)
    try:
        yield reader
    finally:
        reader.close()
