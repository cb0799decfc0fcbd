"""Where a document's bytes are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip archive on this disk."""

    archive: str
    member: str


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar archive on this disk: *size* bytes from *offset*, once the archive is unpacked."""

    archive: str
    member: str
    offset: int
    size: int
    is_packed: bool


@dataclass(frozen=True, slots=True)
class WebFile:
    """What a web server returns for a URL, which includes its user name and password."""

    url: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in an object store. *store* is a URL that leads there, shared by many; *path* has no scheme.

    *version* changes when the file does, according to the store's list; it is empty if the file was not listed.
    """

    store: str
    path: str
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class StandardInput:
    """What is piped into this process: one document."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """What another program writes into a named pipe, such as ``<(…)`` and ``/dev/stdin``: one document."""

    path: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nowhere: it was named, but cannot be read; *why* is a sentence that says why."""

    why: str


Origin = Path | ZipMember | TarMember | WebFile | StoredFile | StandardInput | Pipe | Refused
"""A Path is a file on this disk."""


_DESCRIPTOR = re.compile(r"/+(?:dev|proc/self)/+fd/+(\d{1,9})")
_STANDARD_DESCRIPTORS = {"/dev/stdin": 0}


def own_descriptor(path: str) -> int | None:
    """Return the number of this process's open file that a path stands for: 63 for ``/dev/fd/63``.

    In another process, such as one that renders, the same path is another file.
    """
    if (match := _DESCRIPTOR.fullmatch(path)) is not None:
        return int(match[1])
    return _STANDARD_DESCRIPTORS.get(path)
