"""Stores that fail as real ones do, and workspaces of either kind, for tests."""

import contextlib
import errno
import threading
import uuid
from pathlib import Path

import fsspec

from olmocr.page import PageResponse
from olmocr.workspace.document import PageRecord
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.store import FsspecObjects, ObjectStore
from olmocr.workspace.opening import opened_workspace
from olmocr.workspace.records import KnownDocument

SHA = "ab" * 32


class StoreError(Exception):
    """What botocore raises: the store's answer lies in it."""

    def __init__(self, code, status):
        super().__init__(f"An error occurred ({code}) with AKIAABCDEFGHIJKLMNOP and secret=hunter2")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def slow_down():
    error = OSError(errno.EBUSY, "Please reduce your request rate.")
    error.__cause__ = StoreError("SlowDown", 503)
    return error


def expired():
    error = PermissionError("The provided token has expired. secret=hunter2")
    error.__cause__ = StoreError("ExpiredToken", 400)
    return error


class FaultyObjects:
    """Objects in memory that fail by plan, and count what is asked.

    *before* has for each of a few next requests what to raise instead of doing it, None to do it; *after* what to raise
    when it was done, as where an answer is lost. *unlisted* are names, or parts of them, that no list has yet.
    """

    def __init__(self, objects, before=(), after=()):
        self.objects = objects
        self.before, self.after = list(before), list(after)
        self.always = None
        self.unlisted = set()
        self.counts = {}
        self.lock = threading.Lock()

    def _do(self, what, call):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            before = self.before.pop(0) if self.before else self.always
            after = self.after.pop(0) if self.after and what in ("put", "create") else None
        if before is not None:
            raise before() if callable(before) else before
        found = call()
        if after is not None:
            raise after() if callable(after) else after
        return found

    def get(self, name):
        return self._do("get", lambda: self.objects.get(name))

    def put(self, name, data):
        return self._do("put", lambda: self.objects.put(name, data))

    def create(self, name, data):
        return self._do("create", lambda: self.objects.create(name, data))

    def names(self, folder):
        found = self._do("names", lambda: self.objects.names(folder))
        return [name for name in found if not any(part in name for part in self.unlisted)]

    def versions(self, folder):
        return self._do("names", lambda: self.objects.versions(folder))

    def remove(self, name):
        return self._do("remove", lambda: self.objects.remove(name))


def memory_place():
    """Return a place in memory that nobody else has."""
    return StorePlace(f"memory://{uuid.uuid4().hex}/ws")


def objects_at(place):
    return FsspecObjects(fsspec.filesystem("memory"), place.url)


def faulty_store(place=None, *, patience=5, **plan):
    """Return a store that fails by plan, what it fails by, and the seconds for which it waited."""
    place = place or memory_place()
    waits = []
    objects = FaultyObjects(objects_at(place), **plan)
    store = ObjectStore(place, objects, patience, lambda seconds: bool(waits.append(seconds)))
    return store, objects, waits


class Kind:
    """A kind of workspace: opens the same one as often as it is asked."""

    def __init__(self, name, folder):
        self.place = {"folder": folder, "memory": memory_place(), "file": StorePlace(folder.as_uri())}[name]
        self.is_store = name != "folder"

    def open(self, **options):
        return opened_workspace(self.place, **options)

    @contextlib.contextmanager
    def memory(self):
        with self.open() as (_, memory):
            yield memory

    def read(self, name):
        """Return the text of a file of the workspace; None if there is none."""
        if isinstance(self.place, Path) or self.place.local_folder:
            path = (self.place if isinstance(self.place, Path) else self.place.local_folder) / name
            return path.read_text() if path.is_file() else None
        with contextlib.suppress(FileNotFoundError):
            return objects_at(self.place).get(name).decode()

    def write(self, name, text):
        if isinstance(self.place, Path) or self.place.local_folder:
            path = (self.place if isinstance(self.place, Path) else self.place.local_folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        else:
            objects_at(self.place).put(name, text.encode())


def page(number=1, text="Hello", status="valid", **fields):
    return PageRecord(number, status, PageResponse("en", True, 0, False, False, text), **fields)


def document(key="ab12", name="a.pdf", state="done", **fields):
    values = {"stat": "1 2 3", "sha256": SHA, "selection": "", "page_count": 1, **fields}
    return KnownDocument(key, name, state=state, **values)
