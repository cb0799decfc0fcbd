"""A workspace of upstream's olmOCR in the same place -> which documents it has read there.

Its list of work is ``work_index_list.csv.zstd``, with a line for each group of documents: the group's hash and their
paths. ``done_flags/`` has a flag for each group that was read, and ``results/`` has the group's results.
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from pathlib import PurePosixPath

from olmocr.errors import MissingDependencyError, OutputError
from olmocr.runtime.extras import install_command
from olmocr.workspace.objects.store import ObjectStore

INDEX = "work_index_list.csv.zstd"
FLAGS = "done_flags"

_MOST_BYTES = 1 << 33  # of a list of paths, unpacked


class UpstreamWorkspace:
    """What upstream's program has done in *store*. Nothing is read before it is needed."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._done: frozenset[str] | None = None

    def has_done(self, name: str) -> bool:
        """Return whether a document of this name was read there, or was left out because no answer was good."""
        return name in self._names()

    def count(self) -> int:
        """Return how many were."""
        return len(self._names())

    def _names(self) -> frozenset[str]:
        with self._lock:
            if self._done is None:
                self._done = frozenset(self._read())
            return self._done

    def _read(self) -> Iterator[str]:
        data = self._store.get(INDEX)
        if data is None:
            return
        done = {PurePosixPath(name).stem.removeprefix("done_") for name in self._store.names(FLAGS)}
        try:
            for row in csv.reader(io.StringIO(_unpacked(data), newline="")):
                if row and row[0] in done:
                    yield from row[1:]
        except (csv.Error, UnicodeDecodeError, ValueError) as error:
            raise OutputError(
                f"{INDEX} of {self._store.place} is not a list of upstream's olmOCR; move it, or name another place"
            ) from error


def _unpacked(data: bytes) -> str:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError(
            f"a workspace of upstream's olmOCR needs an extra of this package: {install_command('s3')}"
        ) from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            return reader.read(_MOST_BYTES).decode()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
