"""A folder, or a pattern that the shell did not expand -> the files to read."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from olmocr.inputs.kinds import FIRST_BYTES, has_ending, looks_readable
from olmocr.inputs.origins import Refused
from olmocr.strays import NOT_TO_READ, awaited, is_passed_over, is_stray

_EVERY_DEPTH = "**"


def files_below(folder: str, apart_from: Path | None = None) -> Iterator[tuple[str, Path | Refused]]:
    """Yield every document below *folder*, in order of its path; one that cannot be examined comes with the reason.

    Hidden files and folders and strays are left out, and so are files that are not documents by ending or first bytes.
    A document that is only in iCloud is included, as one that cannot be read.
    A folder that a link reaches again is not entered twice, and *apart_from* is not entered at all.
    """
    for path, origin in _walk(folder, apart_from):
        if isinstance(origin, Refused) or is_readable(path):
            yield path, origin


def files_matching(pattern: str, apart_from: Path | None = None) -> Iterator[str]:
    """Yield the files that match *pattern*, in order; ``**`` stands for folders of any depth, except hidden ones."""
    parts = pattern.split("/")
    # Of several ** in a row one is enough, and each one more would multiply the work.
    parts = [part for at, part in enumerate(parts) if part != _EVERY_DEPTH or parts[at - 1 : at] != [part]]
    if _EVERY_DEPTH not in parts:
        found = (path for path in sorted(glob.iglob(pattern)) if os.path.isfile(path))  # noqa: PTH113, PTH207
        yield from (path for path in found if not _is_met_by_the_way(path, pattern))
        return
    # The standard library's ** follows links for ever, so the walk above finds the files.
    depth = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    base = "/".join(parts[:depth]) + "/" if depth else ""
    for path, origin in _walk(base or ".", apart_from):
        below = path[len(base) or 2 :].split("/")
        if not isinstance(origin, Refused) and _matches(below, parts[depth:]):
            yield path if base else path[2:]


def _is_met_by_the_way(path: str, pattern: str) -> bool:
    """Return whether *path* matches *pattern* through a stray's name that the pattern does not spell out."""
    pairs = zip(reversed(path.split("/")), reversed(pattern.split("/")), strict=False)
    return any(glob.has_magic(part) and is_stray(name) for name, part in pairs)


def is_readable(path: str) -> bool:
    """Return whether a file that was found, not named, is a document."""
    return looks_readable(path, lambda: read_start(path))


def read_start(path: str) -> bytes:
    """Return a file's first bytes, or none if it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(FIRST_BYTES)
    except OSError:
        return b""


def _walk(folder: str, apart_from: Path | None) -> Iterator[tuple[str, Path | Refused]]:
    seen = _identity(apart_from)
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode):
                yield path, Path(path)
            elif stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                names = sorted(os.listdir(path))  # noqa: PTH208
                if NOT_TO_READ in names and path != folder:  # our own figures, unless that folder was named
                    continue
                yield from _elsewhere(path, names)
                own = [name for name in names if not is_passed_over(name)]
                waiting += [os.path.join(path, name) for name in reversed(own)]  # noqa: PTH118
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):  # a link to nothing, or to itself
                yield path, Refused(f"{path} cannot be read: {error.strerror}")


def _elsewhere(folder: str, names: list[str]) -> Iterator[tuple[str, Refused]]:
    """Yield the documents that are in iCloud only, for which macOS keeps a placeholder here."""
    for name in filter(None, map(awaited, names)):
        if name not in names and not is_passed_over(name) and has_ending(name):
            path = os.path.join(folder, name)  # noqa: PTH118
            yield path, Refused(f"{path} is in iCloud, not on this disk; download it in the Finder, then run it again")


def _identity(folder: Path | None) -> set[tuple[int, int]]:
    """Return what identifies a folder on this machine, or nothing if it does not exist."""
    try:
        status = folder.stat() if folder else None
    except OSError:
        return set()
    return {(status.st_dev, status.st_ino)} if status else set()


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a path's *parts* match *pattern* one by one, with ``**`` as any number of folders.

    All ways through the pattern are followed at once, as far as the parts seen so far allow.
    """
    reached = {0}  # how many parts of the path may be matched
    for piece in pattern[:-1]:
        if piece == _EVERY_DEPTH:
            reached = set(range(min(reached), len(parts) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], piece)}
    if pattern[-1] == _EVERY_DEPTH:
        return any(at < len(parts) for at in reached)
    return len(parts) - 1 in reached and fnmatchcase(parts[-1], pattern[-1])
