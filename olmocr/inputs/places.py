"""A name -> the one place it stands for, however it is spelled, so that two names of one document are recognised."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit

# Characters that mean the same with and without their percent escape (RFC 3986, section 2.3).
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_DEFAULT_PORTS = {"http": 80, "https": 443}

# Schemes of one store; all but the first are only other names for it.
_ONE_STORE = {"abfs": "az", "abfss": "az", "az": "az"}


def spelled_place(path: str | Path) -> str:
    """Return a file's absolute path as spelled, links included."""
    return os.path.abspath(path)  # noqa: PTH100


def place_of_file(path: str | Path) -> str:
    """Return a file's absolute path without links, each part spelled as its folder spells it.

    A Mac's disk takes ``A.PDF`` for ``a.pdf``, and one way to write an accent for the other.
    """
    try:
        real = os.path.realpath(path)
        # /dev/fd/63 is a link to a pipe, which has no path.
        if os.path.exists(path) and not os.path.lexists(real):  # noqa: PTH110
            return spelled_place(path)
    except (OSError, ValueError):  # not a possible name of a file
        return spelled_place(path)
    found, *parts = Path(real).parts
    for part in parts:
        found = os.path.join(found, _spelled_by_folder(found, part))  # noqa: PTH118
    return found


def place_of_url(url: str) -> str:
    """Return the URL of a file on a web server, in one spelling and without a password."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    user, _, host = parts.netloc.rpartition("@")
    name, colon, port = host.lower().rpartition(":")
    if colon and (not port or (port.isascii() and port.isdigit() and int(port) == _DEFAULT_PORTS.get(scheme))):
        host = name
    who = f"{user.partition(':')[0]}@" if user else ""
    query = f"?{_unescaped(parts.query)}" if parts.query else ""
    return f"{scheme}://{who}{host.lower()}{_without_dots(_unescaped(parts.path or '/'))}{query}"


def place_in_store(store: str, path: str) -> str:
    """Return the URL of a file in an object store; *store* may name an account."""
    scheme, colon, rest = store.partition(":")
    return f"{_ONE_STORE.get(scheme.lower(), scheme.lower())}{colon}{rest}/{path}"


def folded(name: str) -> str:
    """Return one form for all spellings of a name that some disk takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _spelled_by_folder(folder: str, name: str) -> str:
    """Return an entry of *folder* as it is listed there, or *name* itself if no other spelling leads to it."""
    path = os.path.join(folder, name)  # noqa: PTH118
    spellings = {name.swapcase(), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)} - {name}
    if not any(_is_same(path, os.path.join(folder, each)) for each in spellings):  # noqa: PTH118
        return name  # this disk takes each spelling for a different file, or the file does not exist
    entries = _entries(folder, _changed(folder))
    if name in entries.get(folded(name), ()):
        return name
    same = (each for each in entries.get(folded(name), ()) if _is_same(path, os.path.join(folder, each)))  # noqa: PTH118
    return next(same, name)


def _is_same(path: str, other: str) -> bool:
    try:
        one, two = os.lstat(path), os.lstat(other)
    except (OSError, ValueError):
        return False
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


@functools.lru_cache(maxsize=64)
def _entries(folder: str, changed: int) -> dict[str, tuple[str, ...]]:
    """Return a folder's entries by their folded names. The folder is listed once for all documents in it."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for name in os.listdir(folder):  # noqa: PTH208
            found[folded(name)] = (*found.get(folded(name), ()), name)
    except OSError:  # a folder that may be entered but not listed
        return {}
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()


def _without_dots(path: str) -> str:
    """Return an absolute path without ``.`` and ``..`` (RFC 3986, section 5.2.4)."""
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            del kept[max(1, len(kept) - 1) :]
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
