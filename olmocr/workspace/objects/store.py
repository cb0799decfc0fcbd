"""Objects of a workspace: read, written once, listed; temporary failures are retried. This module imports fsspec."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from olmocr.errors import OutputError, output_error
from olmocr.files import file_beside, flushed, write_whole
from olmocr.inputs.stores import missing_extra, version_told
from olmocr.workspace.objects.faults import fault_of, is_no_bucket, lacks_conditions, reason
from olmocr.workspace.objects.place import MARK, StorePlace

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

T = TypeVar("T")

Claim = Literal["ours", "ours before", "another's"]
"""Whose object exists after an attempt to write it only if it did not exist."""

FORMAT = 1
"""Of the layout; docs/bucket.md describes it."""

PATIENCE = 12
"""How often a request is made before the store counts as unreachable: with the waits, about two minutes."""

FIRST_PATIENCE = 4
"""The same for the first request: a wrong address should not take two minutes."""

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 20.0
_AT_ONCE = 16

_TRIES = 50
"""How often to write a file whose folder disappears each time."""


class Objects(Protocol):
    """What a store can do. Names are relative, with ``/`` between parts. Errors are whatever its library raises."""

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whatever was there."""

    def create(self, name: str, data: bytes) -> None:
        """Write an object that does not exist yet, or raise FileExistsError."""

    def names(self, folder: str) -> list[str]:
        """Return the names of all objects below a folder."""

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names of all objects below a folder, each with a value that changes when the object does."""

    def remove(self, name: str) -> None:
        """Remove an object."""


class FsspecObjects:
    """Objects below *root* in one of fsspec's file systems."""

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = str(filesystem._strip_protocol(root)).rstrip("/")
        self._has_conditions = True

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self._filesystem.cat_file(self._path(name)))

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self._filesystem.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Write an object that does not exist yet; if the store cannot guarantee that, check afterwards whose it is."""
        if self._has_conditions:
            try:
                self._filesystem.pipe_file(self._path(name), data, mode="create")
            except Exception as error:
                if not lacks_conditions(error):
                    raise
                self._has_conditions = False
            else:
                return
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.info(self._path(name))
            raise FileExistsError(name)
        self.put(name, data)
        if self.get(name) != data:
            raise FileExistsError(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of all objects below a folder."""
        return list(self.versions(folder))

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names of all objects below a folder, each with a value that changes when the object does."""
        self._filesystem.invalidate_cache()
        start = len(self._root) + 1
        try:
            found = self._filesystem.find(self._path(folder), detail=True)
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise
            return {}
        return {name[start:]: version_told(info) for name, info in found.items()}

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._filesystem.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name.rstrip('/')}"


class FolderObjects:
    """Files below a folder that several machines see, each complete from the moment at which it becomes visible."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self._root / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        _though_its_folder_goes(lambda: write_whole(self._root / name, data))

    def create(self, name: str, data: bytes) -> None:
        """Write a file that does not exist yet."""
        _though_its_folder_goes(lambda: self._create(self._root / name, data))

    def _create(self, path: Path, data: bytes) -> None:
        _make_folder(path.parent)
        with file_beside(path) as (temporary, file):
            file.write(data)
            file.flush()
            flushed(file.fileno())
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                raise
            except OSError:  # a disk without hard links
                if path.exists():
                    raise FileExistsError(path) from None
                temporary.replace(path)

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder."""
        if (self._root / folder).is_file():
            return [folder]
        found = []
        for path, _, files in os.walk(self._root / folder):
            within = Path(path).relative_to(self._root)
            found += [(within / each).as_posix() for each in files if not each.startswith(".")]
        return sorted(found)

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names of all files below a folder, each with a value that changes when the file does."""
        found = {}
        for name in self.names(folder):
            with contextlib.suppress(FileNotFoundError):
                status = (self._root / name).stat()
                found[name] = f"{status.st_size} {status.st_mtime_ns}"
        return found

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if that is empty: each claim and each document has a folder."""
        path = self._root / name
        path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _though_its_folder_goes(write: Callable[[], None]) -> None:
    """Write a file again after another machine has removed its empty folder."""
    for _ in range(_TRIES - 1):
        try:
            return write()
        except FileNotFoundError:
            pass
        except OutputError as error:
            if not isinstance(error.__cause__, FileNotFoundError | FileExistsError):
                raise
    return write()


def _make_folder(folder: Path) -> None:
    """Make *folder*; if it disappears while it is checked, that is not somebody else's claim."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        if folder.is_file():
            raise
        raise FileNotFoundError(folder) from error


def open_objects(place: StorePlace) -> Objects:
    """Return what reads and writes objects at a place.

    Raises:
        MissingDependencyError: the extra for this kind of store is not installed.
    """
    if (folder := place.local_folder) is not None:
        return FolderObjects(folder)
    import fsspec.core

    # Attempts are counted here, where they can be reported, and Ctrl-C ends them.
    attempts = {"retries": {"mode": "standard", "total_max_attempts": 1}}
    more: dict[str, Any] = {"config_kwargs": attempts, "max_concurrency": 1}  # with more it requests the size first
    options = {"use_listings_cache": False, "skip_instance_cache": True, **(more if place.scheme == "s3" else {})}
    try:
        filesystem, root = fsspec.core.url_to_fs(place.url, **options)
    except ImportError as error:
        raise missing_extra(place.scheme) from error
    except Exception as error:
        raise OutputError(f"the workspace {place} cannot be used: {reason(error)}") from error
    if place.scheme == "s3":
        filesystem.retries = 1
    return FsspecObjects(filesystem, root)


class ObjectStore:
    """The objects of the workspace at *place*, for any number of threads.

    Temporary failures are retried, at growing intervals, until *patience* attempts are made; *wait* waits the given
    seconds, and returns whether the store was closed meanwhile.

    All methods raise OutputError if the store stays unreachable, refuses, or has another fault.
    """

    def __init__(
        self,
        place: StorePlace,
        objects: Objects,
        patience: int = PATIENCE,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.place = place
        self._objects = objects
        self._patience = patience
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._is_away = False
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="store")

    def close(self) -> None:
        """Stop all retries, and end the threads."""
        self.end_waiting()
        self._threads.shutdown(cancel_futures=True)

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes; None if there is none."""
        return self._tried(f"{name} cannot be read", lambda: self._objects.get(name))

    def get_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of those objects that exist."""
        return {name: data for name, data in self._side_by_side(self.get, names) if data is not None}

    def put(self, name: str, data: bytes) -> None:
        """Write an object; the last to write it counts."""
        self._tried(f"{name} cannot be written", lambda: self._objects.put(name, data))

    def put_all(self, objects: dict[str, bytes]) -> None:
        """Write several."""
        for _ in self._side_by_side(lambda name: self.put(name, objects[name]), objects):
            pass

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless it exists; return whether the one that exists now consists of *data*.

        The answer to a successful write may be lost, so an existing object may be ours.
        """
        return self.claim(name, data) != "another's"

    def claim(self, name: str, data: bytes) -> Claim:
        """Write an object unless it exists, and return whose the existing one is now, judged by its *data*."""
        try:
            self._tried(f"{name} cannot be written", lambda: self._objects.create(name, data), lets_exist=True)
        except FileExistsError:
            return "ours before" if self.get(name) == data else "another's"
        return "ours"

    def end_waiting(self) -> None:
        """Stop all retries."""
        self._closing.set()

    def names(self, folder: str) -> list[str]:
        """Return the names of all objects below a folder, in order; an object's name counts as its own folder."""
        found = self._tried(f"{folder}/ cannot be listed", lambda: self._objects.names(folder))
        return sorted(found or ())

    def versions(self, folder: str) -> dict[str, str]:
        """Return the names of all objects below a folder, each with a value that changes when the object does."""
        return self._tried(f"{folder}/ cannot be listed", lambda: self._objects.versions(folder)) or {}

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; a missing one is not a fault."""
        for _ in self._side_by_side(self._remove, names):
            pass

    def _remove(self, name: str) -> None:
        self._tried(f"{name} cannot be removed", lambda: self._objects.remove(name))

    def _side_by_side(self, call: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, T]]:
        names = list(names)
        if len(names) == 1:
            return iter([(names[0], call(names[0]))])
        return zip(names, self._threads.map(call, names), strict=True)

    def _tried(self, what: str, call: Callable[[], T], *, lets_exist: bool = False) -> T | None:
        """Return what *call* returns, retried while its fault is temporary; None if nothing is there."""
        for attempt in range(1, self._patience + 1):
            try:
                found = call()
            except Exception as error:
                fault = fault_of(error)
                if fault == "gone" and not is_no_bucket(error):
                    self._is_away = False
                    return None
                if fault == "exists" and lets_exist:
                    self._is_away = False
                    raise FileExistsError from error
                if fault != "passes" or self._is_away or attempt == self._patience:
                    raise self._sentence(what, error) from error
                self._wait_before(attempt, what, error)
            else:
                self._is_away = False
                return found
        raise AssertionError("the last attempt returns or raises")

    def _wait_before(self, attempt: int, what: str, error: Exception) -> None:
        longest = min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT)
        if attempt == FIRST_PATIENCE:
            log.warning("%s: %s for now (%s); trying again", self.place, what, reason(error))
        # Many machines that were slowed down at once should not return at once.
        if self._wait(longest * random.uniform(0.5, 1)):  # noqa: S311
            raise OutputError(f"{self.place}: {what}: {reason(error)}; the run was ended meanwhile") from error

    def _sentence(self, what: str, error: Exception) -> OutputError:
        if isinstance(error, OutputError):
            return error
        fault = fault_of(error)
        start = f"the workspace {self.place}: {what}"
        if is_no_bucket(error):
            return OutputError(f"the workspace {self.place} is in a bucket that does not exist; create it first")
        if self.place.scheme == "file" and isinstance(error, OSError):
            return output_error(error, f"the workspace {self.place}")
        if fault == "passes":
            self._is_away = True
            return OutputError(f"{start}: {reason(error)}; the store could not be reached; run it again later")
        if fault == "refused":
            return OutputError(
                f"{start}: {reason(error)}; check the credentials (docs/bucket.md) and run it again: "
                "what was read stays"
            )
        return OutputError(f"{start}: {reason(error)}")


def open_store(place: StorePlace, *, to_read: bool = False, objects: Objects | None = None) -> ObjectStore:
    """Return the objects of the workspace at a place, which becomes one unless this is only *to_read*.

    Raises:
        OutputError: it cannot be used, or a later version of this package wrote it.
    """
    objects = objects or open_objects(place)
    first = ObjectStore(place, objects, FIRST_PATIENCE)
    try:
        if not to_read and place.local_folder is not None and (place.local_folder / "workspace.sqlite").exists():
            raise OutputError(f"{place} is a workspace of one machine: name its path, or another folder")
        mark = first.get(MARK)
        if mark is None and not to_read:
            mark = json.dumps({"olmocr": "workspace", "format": FORMAT}).encode()
            first.create(MARK, mark)
        if _format_of(mark) > FORMAT:
            raise OutputError(f"{place} was written by a later version of olmocr; update this one")
    finally:
        first.close()
    return ObjectStore(place, objects)


def _format_of(mark: bytes | None) -> int:
    try:
        return int(json.loads(mark or b"{}").get("format", FORMAT))
    except (ValueError, TypeError, AttributeError):
        return FORMAT
