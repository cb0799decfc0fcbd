"""A file's first bytes -> the kind of document it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import PurePosixPath

FIRST_BYTES = 1024
"""How many bytes it takes to recognise a file's kind: readers allow that much before a PDF's header."""


class Kind(StrEnum):
    """A kind of document, by its everyday name."""

    PDF = "PDF"
    PNG = "PNG"
    JPEG = "JPEG"
    TIFF = "TIFF"
    WEBP = "WebP"
    GIF = "GIF"
    BMP = "BMP"
    HEIC = "HEIC"
    AVIF = "AVIF"
    JPEG2000 = "JPEG 2000"


ENDINGS = frozenset(
    (".pdf", ".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".heic", ".heif", ".avif")
) | {".jp2", ".j2k", ".j2c", ".jpx", ".jpf"}

_IMAGE_STARTS = {
    b"\x89PNG\r\n\x1a\n": Kind.PNG,
    b"\xff\xd8\xff": Kind.JPEG,
    b"II*\x00": Kind.TIFF,
    b"MM\x00*": Kind.TIFF,
    b"II+\x00": Kind.TIFF,  # with 64-bit offsets
    b"MM\x00+": Kind.TIFF,
    b"\0\0\0\x0cjP  \r\n\x87\n": Kind.JPEG2000,
    b"\xff\x4f\xff\x51": Kind.JPEG2000,  # without a file around its codestream
    b"GIF87a": Kind.GIF,
    b"GIF89a": Kind.GIF,
}
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEADLESS = re.compile(rb"\s*(?:%[^\r\n]*[\r\n]\s*)*\d{1,10}\s+\d{1,5}\s+obj\b")  # a PDF that has lost its first line
_BLANKS = b"\xef\xbb\xbf \t\r\n\x00"  # a byte order mark among them


def kind_of(start: bytes) -> Kind | None:
    """Return the kind of a file that begins with *start* (:data:`FIRST_BYTES` of it), or None."""
    for magic, kind in _IMAGE_STARTS.items():
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return Kind.WEBP
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return Kind.BMP
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return Kind.HEIC
    if start[4:8] == b"ftyp" and start[8:12] in _AVIF_BRANDS:
        return Kind.AVIF
    return Kind.PDF if b"%PDF-" in start or _HEADLESS.match(start) else None


def is_document(start: bytes) -> bool:
    """Return whether a file that begins with *start* is a document, and not one that contains or mentions one."""
    kind = kind_of(start)
    return kind is not None and (kind != Kind.PDF or start.lstrip(_BLANKS).startswith(b"%PDF-"))


def has_ending(name: str) -> bool:
    """Return whether a file's name ends as a document's does."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def looks_readable(name: str, read_start: Callable[[], bytes]) -> bool:
    """Return whether a file found in a folder or an archive is to be read: by its ending, or else its content."""
    return has_ending(name) or is_document(read_start())
