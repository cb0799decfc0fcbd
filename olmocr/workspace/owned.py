"""Files of documents below a folder: who owns each, and what was last written. All others belong to a person."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from olmocr.errors import OutputError, output_error
from olmocr.files import NOT_THERE, file_beside, sha256_of, write_whole
from olmocr.inputs.places import folded

log = logging.getLogger(__name__)

Names = tuple[PurePosixPath, ...]
"""The paths below the folder that a document prefers, in order; numbers are added to the last one."""

ITSELF = ""
"""The name of a document's only file, which is at its path, not in a folder there."""

_FORMAT = "2"  # after a key in a claim: the claim's document also has a list of what was written

_MOST = 100  # names to try; if none of them is free, something else is wrong with the folder

# The errors of memory cards, network disks and synchronized folders without hard links.
_NO_LINKS = NOT_THERE | {errno.EMLINK, errno.EXDEV}
_NO_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}  # the disk does not allow this file name


@dataclass
class _Place:
    """A path of a document: what its files were made of, and the SHA-256 that each may have."""

    made_of: str = ""
    sha256: dict[str, list[str]] = field(default_factory=dict)


_Places = dict[PurePosixPath, _Place]


@dataclass(frozen=True)
class OwnedFiles:
    """The files of documents below *root*. A path belongs to the first document that requests it, then and later.

    *claims* is a folder with a file for each path, which names its document, and a file for each document, which lists
    its paths and the SHA-256 of what was written there. A file that is not listed, or was changed since, belongs to a
    person: it is never written or removed. Several processes may work in one folder at once.
    """

    root: Path
    claims: Path

    def reserve(self, key: str, names: Names) -> Path:
        """Return the path of the document *key*, which owns it from now on; nothing is written there yet.

        Raises:
            OutputError: a claim cannot be written.
        """
        with self._locked():
            places = self._read(key)
            for name in _candidates(places, names):
                if name in places or self._may_have(key, name):
                    self._take(key, name, places, names)
                    return self.root / name
        raise self._no_name_left(names)

    def write(self, key: str, names: Names, files: Mapping[str, str | Path], made_of: str) -> Path:
        """Write the files of the document *key*, and return its path. Its files elsewhere, and extra ones, are removed.

        Args:
            key: which document.
            names: see :data:`Names`.
            files: texts, or files to copy, by their names in a folder at the path; if the path itself is the file, its
                name is :data:`ITSELF`.
            made_of: what the files were made of.

        Raises:
            OutputError: they cannot be written.
        """
        with self._locked():
            places = self._read(key)
            written = {name: place for name, place in places.items() if place.sha256}  # others are only reserved
            for name in _candidates(written, names):
                if not (
                    self._is_as_written(name, places[name], files) if name in places else self._may_have(key, name)
                ):
                    continue
                self._take(key, name, places, names)
                try:
                    self._write_files(key, name, files, places, made_of)
                except OutputError as error:
                    if getattr(error.__cause__, "errno", None) not in _NO_NAME:
                        raise
                else:
                    break
            else:
                raise self._no_name_left(names)
            for other in set(places) - {name}:
                self._clear(other, places[other])
                self._give_up(key, other, places)
            self._keep(key, places)
        return self.root / name

    def made_of(self, key: str, names: Names) -> str | None:
        """Return what the files of the document *key* were made of; None if one is missing, or the names have changed.

        A file that a person has changed still exists: it is theirs, and counts as present.
        """
        places = self._read(key)
        if len(places) != 1:
            return None
        ((name, place),) = places.items()
        is_there = place.sha256 and all(_is_file(self.root / name / suffix) for suffix in place.sha256)
        return place.made_of if is_there and _is_one_of(name, names) else None

    def paths(self, key: str) -> list[Path]:
        """Return the files that were written for the document *key*, in order of their names; some may be missing."""
        places = self._read(key)
        return sorted(self.root / name / suffix for name, place in places.items() for suffix in place.sha256)

    def remove(self, key: str, unless_made_of: str | None = None) -> None:
        """Remove the files of the document *key*, unless what they were made of begins with *unless_made_of*.

        It keeps its paths.

        Raises:
            OutputError: one cannot be removed.
        """
        if not self._of_document(key).exists():
            return
        with self._locked():
            places = self._read(key)
            for name, place in places.items():
                if unless_made_of is None or not place.made_of.startswith(unless_made_of):
                    self._clear(name, place)
            self._keep(key, places)

    def forget(self, key: str) -> None:
        """Remove the files of the document *key*, and release its paths."""
        if not self._of_document(key).exists():
            return
        with self._locked():
            places = self._read(key)
            for name in list(places):
                self._clear(name, places[name])
                self._give_up(key, name, places)
            _remove(self._of_document(key))

    # Which path.

    def _may_have(self, key: str, name: PurePosixPath) -> bool:
        """Claim a path for a document, and return whether this worked: no other owns it, and nothing is there."""
        claim = self._claim_of(name)
        owner, _, written = claim.partition(" ")
        if owner not in ("", key):
            return False
        is_of_old = owner == key and not written  # a claim of the first format: its owner wrote what is there
        if not is_of_old and (_exists(self.root / name) or self._is_blocked(name)):
            return False
        try:
            if not claim:
                self.claims.mkdir(parents=True, exist_ok=True)
                _write_first(self._of_path(name), f"{key} {_FORMAT}")
        except OSError as error:
            raise output_error(error, str(self._of_path(name))) from error
        return self._claim_of(name).partition(" ")[0] == key

    def _take(self, key: str, name: PurePosixPath, places: _Places, names: Names) -> None:
        """Note that a document has a path, and log it once if a person's file is at the path that it prefers."""
        if name in places:
            return
        for wanted in itertools.takewhile(lambda each: each != name, names):
            path, owner = self.root / wanted, self._claim_of(wanted).partition(" ")[0]
            if owner in ("", key) and os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112
                log.warning("%s is not as olmocr wrote it: it stays, and %s is written instead", path, self.root / name)
                break
        places[name] = _Place(sha256=self._found(name))
        self._keep(key, places)

    def _found(self, name: PurePosixPath) -> dict[str, list[str]]:
        """Return what is at a path that was just taken: something only if the claim is of the first format."""
        sha256 = _sha256(self.root / name)
        return {ITSELF: [sha256]} if sha256 else {}

    def _is_as_written(self, name: PurePosixPath, place: _Place, files: Mapping[str, str | Path]) -> bool:
        if self._is_blocked(name) or (ITSELF not in files and _is_file(self.root / name)):
            return False
        paths = {suffix: self.root / name / suffix for suffix in files}
        return all(not _exists(path) or _sha256(path) in place.sha256.get(suffix, ()) for suffix, path in paths.items())

    def _is_blocked(self, name: PurePosixPath) -> bool:
        """Return whether one of the path's folders has a file's name."""
        return any(_is_file(self.root / parent) for parent in name.parents if parent.name)

    def _no_name_left(self, names: Names) -> OutputError:
        return OutputError(
            f"{self.root / names[0]} could not be written, and neither could other names; choose another folder"
        )

    # What is there.

    def _write_files(
        self, key: str, name: PurePosixPath, files: Mapping[str, str | Path], places: _Places, made_of: str
    ) -> None:
        place = places[name]
        new = {suffix: _sha256_of_content(text) for suffix, text in files.items()}
        # Both the old and the new one until all are written: a run may be killed at any moment.
        place.sha256 = {
            suffix: list(dict.fromkeys([*place.sha256.get(suffix, []), *([new[suffix]] if suffix in new else [])]))
            for suffix in (place.sha256 | new)
        }
        place.made_of = ""
        self._keep(key, places)
        for suffix, text in files.items():
            path = self.root / name / suffix
            if _sha256(path) != new[suffix]:
                write_whole(path, text.read_bytes() if isinstance(text, Path) else text)
        self._clear(name, place, apart_from=new)
        place.sha256, place.made_of = {suffix: [sha256] for suffix, sha256 in new.items()}, made_of

    def _clear(self, name: PurePosixPath, place: _Place, apart_from: Mapping[str, str] | None = None) -> None:
        """Remove what was written at a path, unless somebody has changed it since."""
        for suffix in set(place.sha256) - set(apart_from or ()):
            path = self.root / name / suffix
            if _sha256(path) in place.sha256[suffix]:
                _remove(path)
            del place.sha256[suffix]
        if not place.sha256:
            place.made_of = ""
            with contextlib.suppress(OSError):
                (self.root / name).rmdir()  # the pages' own folder, if it is empty

    # Who owns what.

    def _give_up(self, key: str, name: PurePosixPath, places: _Places) -> None:
        del places[name]
        if self._claim_of(name).partition(" ")[0] == key:
            _remove(self._of_path(name))

    def _claim_of(self, name: PurePosixPath) -> str:
        try:
            return self._of_path(name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def _of_path(self, name: PurePosixPath) -> Path:
        # Folded, since on a Mac's disk A.md is a.md, and two ways to write an accent are the same.
        digest = hashlib.sha1(folded(str(name)).encode("utf-8", "surrogateescape")).hexdigest()  # noqa: S324
        return self.claims / digest

    def _of_document(self, key: str) -> Path:
        return self.claims / f"{key}.json"

    def _read(self, key: str) -> _Places:
        """Return the paths that a document owns; one that another has taken meanwhile is left out."""
        try:
            found = json.loads(self._of_document(key).read_text(encoding="utf-8"))
            places = {PurePosixPath(name): _Place(each["made_of"], each["sha256"]) for name, each in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {name: place for name, place in places.items() if self._claim_of(name).partition(" ")[0] == key}

    def _keep(self, key: str, places: _Places) -> None:
        found = {str(name): vars(place) for name, place in places.items()}
        write_whole(self._of_document(key), json.dumps(found) + "\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Make other processes wait. A disk without such locks does without: only one of them gets the claim anyway."""
        try:
            self.claims.mkdir(parents=True, exist_ok=True)
            lock = (self.claims / ".lock").open("wb")
        except OSError as error:
            raise output_error(error, str(self.claims)) from error
        with lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _all(names: Names) -> Iterator[PurePosixPath]:
    """Yield all paths that a document may get: those that it prefers, and then the last with numbers."""
    yield from names
    yield from (names[-1].with_name(f"{names[-1].stem}-{number}{names[-1].suffix}") for number in range(2, _MOST))


def _is_one_of(name: PurePosixPath, names: Names) -> bool:
    return folded(str(name)) in (folded(str(each)) for each in _all(names))


def _candidates(places: _Places, names: Names) -> Iterator[PurePosixPath]:
    """Yield the paths that a document may get, beginning with those that it has, as it has them."""
    have = {folded(str(name)): name for name in places}
    wanted = [folded(str(name)) for name in _all(names)] if have else []
    yield from (have[name] for name in wanted if name in have)
    yield from (name for name in _all(names) if folded(str(name)) not in have)


def _exists(path: Path) -> bool:
    """Return whether anything is at *path*, even a broken link; a path that cannot exist is not free either."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:  # what blocks the way reports it
        return False
    except OSError as error:
        return error.errno in _NO_NAME
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is missing, or is a link, which somebody else has put there."""
    try:
        return None if path.is_symlink() else sha256_of(path)
    except OSError:
        return None


def _sha256_of_content(content: str | Path) -> str:
    if isinstance(content, Path):
        return sha256_of(content)
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()  # as write_whole writes it


def _write_first(path: Path, text: str) -> None:
    """Write a file unless it already exists. It is complete from the first moment: a run may be killed at any time."""
    with file_beside(path) as (temporary, file):
        file.write(text.encode("ascii"))
        file.flush()
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(path)


def _remove(path: Path) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"{path} is in the way and could not be removed: {error.strerror}") from error
