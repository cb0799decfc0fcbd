"""Where a document's bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip archive on this disk."""

    archive: str
    member: str


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar archive on this disk: *size* bytes from *offset* on, once the archive is unpacked."""

    archive: str
    member: str
    offset: int
    size: int
    is_packed: bool


@dataclass(frozen=True, slots=True)
class WebFile:
    """What a web server gives for a URL, its user name and password included."""

    url: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in an object store. *store* is a URL that leads there, shared by many; *path* has no scheme."""

    store: str
    path: str


@dataclass(frozen=True, slots=True)
class StandardInput:
    """What is piped into this process: one document."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nowhere: it was named, but cannot be read, and *why* says so in a sentence."""

    why: str


Origin = Path | ZipMember | TarMember | WebFile | StoredFile | StandardInput | Refused
"""A Path is a file on this disk."""
