"""A Hub's listing of a repository -> usable names, sizes and hashes; and whether files match them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmocr.errors import HubError
from olmocr.files import cache_folder
from olmocr.hub.replies import COMMIT, FILE_HASH, LARGEST_FILE, announce, is_path
from olmocr.hub.sentences import reading_errors
from olmocr.inputs.places import folded
from olmocr.text import one_line

_SHA256 = re.compile(r"[0-9a-f]{64}")

# Devices of Windows, with any ending, which some disks and shares also reserve.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)

# Bytes; a smaller file is read again at each start; for a larger one we remember that it was complete.
_LARGE = 16 << 20
_PIECE = 4 << 20


@dataclass(frozen=True)
class ListedFile:
    """A file as the Hub lists it. *sha256* is None for one in git itself, whose *git_sha1* may be stated instead."""

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None

    def is_same(self, path: Path) -> bool:
        """Return whether the file at *path* is this one: by its size, and all its bytes by the listed hash.

        Raises:
            OSError: it cannot be read.
        """
        if self.size is not None and path.stat().st_size != self.size:
            return False
        expected = self.sha256 or self.git_sha1
        return expected is None or _is_whole(path, expected)


@dataclass(frozen=True)
class Listing:
    """All files of a repository at the commit *sha*."""

    sha: str
    files: tuple[ListedFile, ...]


def list_files(repo_id: str, revision: str | None) -> Listing:
    """Ask the Hub which files *repo_id* has.

    Raises:
        HubError: it does not answer, or not usably.
    """
    with reading_errors(repo_id, revision):
        from huggingface_hub import HfApi

        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
            raise HubError(f"the Hub does not name a commit of {repo_id}; try another HF_ENDPOINT")
        listing = Listing(info.sha, tuple(_listed(repo_id, each) for each in info.siblings or []))
        for file in listing.files:
            if file.size is not None:
                announce(repo_id, file.name, file.size)
        return listing


def _listed(repo_id: str, file: Any) -> ListedFile:
    name, size, blob = file.rfilename, file.size, file.blob_id
    sha256 = file.lfs.sha256 if file.lfs else None
    is_sound = (
        is_path(name)
        and (size is None or (type(size) is int and 0 <= size <= LARGEST_FILE))
        and (sha256 is None or _SHA256.fullmatch(sha256) is not None)
        and (blob is None or FILE_HASH.fullmatch(blob) is not None)
    )
    if not is_sound:
        raise HubError(
            f"the Hub lists {one_line(repr(name), 100)} in {repo_id} with an invalid name, size or hash; "
            "try another HF_ENDPOINT"
        )
    return ListedFile(name, size, sha256, None if sha256 else blob)


def require_names(repo_id: str, names: Iterable[str]) -> None:
    """Refuse names that are not separate files on every disk that may hold a cache.

    Raises:
        HubError: one is too long or reserved, or two are the same to a Mac's disk.
    """
    seen: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if ":" in name or any(_RESERVED.fullmatch(part) or len(part.encode()) > 250 for part in parts):
            raise HubError(
                f"{repo_id} has a file called {one_line(name, 100)!r}, which some disks do not accept as a file's name"
            )
        key = folded(name)
        if key in seen:
            raise HubError(f"{repo_id} has {seen[key]} and {name}, which are one file on many disks")
        seen[key] = name


def as_cached(folder: Path, name: str) -> ListedFile:
    """Return the hash of a file in the Hub's cache, which is the name of its blob."""
    path = folder / name
    blob = path.readlink().name if path.is_symlink() else ""
    if _SHA256.fullmatch(blob):
        return ListedFile(name, None, blob, None)
    return ListedFile(name, None, None, blob if FILE_HASH.fullmatch(blob) else None)


def _is_whole(path: Path, expected: str) -> bool:
    """Read *path* and compare; a large file unchanged since it was found complete is not read again."""
    status = path.stat()
    state = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, expected)
    mark = cache_folder("verified") / hashlib.sha256(repr(state).encode()).hexdigest()
    is_large = status.st_size >= _LARGE
    if is_large and mark.is_file():
        return True
    if expected not in _hashes(path, status.st_size, len(expected)):
        return False
    if is_large:
        with suppress(OSError):  # then it is read again
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return True


def _hashes(path: Path, size: int, digits: int) -> set[str]:
    """Return a file's SHA-256, or git's hash of it; some mirrors list the plain SHA-1 of its bytes as that."""
    if digits == 64:
        digests = [hashlib.sha256()]
    else:
        digests = [hashlib.sha1(start, usedforsecurity=False) for start in (b"blob %d\0" % size, b"")]
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            for digest in digests:
                digest.update(piece)
    return {digest.hexdigest() for digest in digests}
