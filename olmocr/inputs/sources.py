"""What was given -> the list of documents."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from olmocr.disk_dict import DiskDict
from olmocr.errors import InputError, OlmocrError
from olmocr.inputs.archives import ENDINGS as ARCHIVE_ENDINGS
from olmocr.inputs.archives import list_members
from olmocr.inputs.folders import files_below, files_matching, is_readable, read_start
from olmocr.inputs.kinds import is_document
from olmocr.inputs.limits import LIMITS, InputLimits
from olmocr.inputs.origins import (
    Origin,
    Pipe,
    Refused,
    StandardInput,
    StoredFile,
    TarMember,
    WebFile,
    ZipMember,
    own_descriptor,
)
from olmocr.inputs.places import place_in_store, place_of_file, place_of_url, spelled_place
from olmocr.inputs.stores import WEB_SCHEMES, find_stored, scheme_of, web_file
from olmocr.stages import FindingDocuments, OnStage, unwatched
from olmocr.text import in_a_line

_LIST_ENDING = ".txt"
_MEMBER = "::"
STANDARD_INPUT = "-"

_TOLD_EVERY = 100  # documents, while they are being found


@dataclass(frozen=True, slots=True)
class Source:
    """A document to read.

    *name* is how it was given or found. *key* identifies its place, however that is spelled: the SHA-1 of the place, in
    hexadecimal. It is also the document's name in a workspace. The place of a file is its path without links.
    *spellings* are the keys of the place as it was spelled; a link may lead elsewhere later.
    """

    name: str
    origin: Origin
    key: str = field(init=False)
    spellings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        spelled, place = _places(self.name, self.origin)
        object.__setattr__(self, "key", _key(place))
        object.__setattr__(self, "spellings", self.spellings or (_key(spelled),))


def key_of_archive(source: Source) -> str | None:
    """Return the key of a member's archive, which stands for it if it cannot be read; None for other documents."""
    match source.origin:
        case ZipMember(archive, _) | TarMember(archive, _):
            return _key(place_of_file(archive))
    return None


def _key(place: str) -> str:
    return hashlib.sha1(_bytes(place)).hexdigest()  # noqa: S324


def _bytes(place: str) -> bytes:
    """Return a place as the system knows it; for a name that no file can have, the nearest equivalent."""
    try:
        return place.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return place.encode("utf-8", "surrogatepass")


def _places(name: str, origin: Origin) -> tuple[str, str]:
    """Return where a document is, as spelled and as resolved."""
    match origin:
        case Path() as path:
            return spelled_place(path), place_of_file(path)
        case ZipMember(archive, member) | TarMember(archive, member):
            return f"{spelled_place(archive)}{_MEMBER}{member}", f"{place_of_file(archive)}{_MEMBER}{member}"
        case WebFile(url):
            return url, place_of_url(url)
        case StoredFile(store, path):
            return f"{store}/{path}", place_in_store(store, path)
        case StandardInput():
            return STANDARD_INPUT, STANDARD_INPUT
        case Pipe(path):
            return path, path
        case Refused() if scheme_of(name) is None:  # its fault may be corrected: then it is this document
            archive, separator, member = name.partition(_MEMBER)
            path = path_of(archive)
            return f"{spelled_place(path)}{separator}{member}", f"{place_of_file(path)}{separator}{member}"
        case Refused():
            return name, name


def find_sources(
    names: Iterable[str],
    limits: InputLimits = LIMITS,
    apart_from: Path | None = None,
    on_stage: OnStage = unwatched,
) -> tuple[Source, ...]:
    """Return the documents of :func:`list_sources`, with the same arguments, in memory: for when there are not many."""
    return tuple(list_sources(names, limits, apart_from, on_stage).values())


def list_sources(
    names: Iterable[str],
    limits: InputLimits = LIMITS,
    apart_from: Path | None = None,
    on_stage: OnStage = unwatched,
    not_below: str | None = None,
) -> DiskDict[Source]:
    """Return the documents that *names* stand for, in this order, each place once: by their keys, and on the disk.

    A name is that of a file, a folder (all documents below it), a pattern that the shell did not expand, a ``.txt``
    list of names, an archive, a member (``archive.zip::inner/a.pdf``) or a URL, or it is ``-`` for standard input.
    *apart_from* is a folder that is skipped unless it is named: the workspace may be inside a given folder.
    Documents whose names begin with *not_below* are left out: the workspace may be in a store.
    A fault in an archive or a list becomes the failure of the document that it concerns, when that is read.
    *on_stage* is called now and then with how many were found.

    Raises:
        InputError: some names stand for nothing. Then nothing should be started, since a typing error is likely.
        MissingDependencyError: a URL needs an extra of this package that is not installed.
    """
    finder = _Finder(limits, apart_from)
    found: DiskDict[Source] = DiskDict()
    wrong: list[str] = []
    for name in names:
        try:
            for source in finder.sources(name):
                if not_below and source.name.startswith(not_below):
                    continue
                _add(found, source)
                if len(found) % _TOLD_EVERY == 0:
                    on_stage(FindingDocuments(len(found)))
        except InputError as error:
            wrong.append(str(error))
    on_stage(FindingDocuments(len(found)))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"{'; '.join(wrong[:5])}{more}; nothing was started")
    return found


def listed(sources: Iterable[Source]) -> DiskDict[Source]:
    """Return *sources* as :func:`list_sources` does: by their keys, each place once."""
    found: DiskDict[Source] = DiskDict()
    for source in sources:
        _add(found, source)
    return found


def _add(found: DiskDict[Source], source: Source) -> None:
    known = found.get(source.key)
    found[source.key] = _with_spellings(known, source.spellings) if known else source


def _with_spellings(source: Source, more: Iterable[str]) -> Source:
    spellings = tuple(dict.fromkeys((*source.spellings, *more)))
    return Source(source.name, source.origin, spellings) if spellings != source.spellings else source


@dataclass(frozen=True)
class _Finder:
    """What a name stands for, with a method for each kind of name; one that stands for nothing is an InputError."""

    limits: InputLimits
    apart_from: Path | None

    def sources(self, name: str) -> Iterator[Source]:
        """Yield what a name stands for; what exists but cannot be examined is a document that cannot be read."""
        try:
            yield from self._sources(name)
        except OSError as error:
            yield Source(name, Refused(f"{name} cannot be read: {error.strerror}"))
        except ValueError as error:  # not a name that the system allows: it has a NUL, or characters it cannot encode
            raise InputError(f"there is no file {name!a}: {error}") from error

    def _sources(self, name: str) -> Iterator[Source]:
        if name == STANDARD_INPUT:
            yield _standard_input()
        elif _is_list(name):
            yield from self._in_list(name)
        else:
            yield from self._documents(name)

    def _documents(self, name: str) -> Iterator[Source]:
        """Yield the sources that a *name* means if it is neither a list nor standard input."""
        scheme = scheme_of(name)
        if scheme is None:
            yield from self._on_disk(name)
        elif _MEMBER in name.split("/", 3)[-1] or name.lower().endswith((*ARCHIVE_ENDINGS, _LIST_ENDING)):
            raise InputError(f"{name} is an archive or a list on another machine; download it and give the copy")
        elif scheme in WEB_SCHEMES:
            yield Source(*web_file(name))
        else:
            yield from (Source(*found) for found in find_stored(name))

    def _on_disk(self, name: str) -> Iterator[Source]:
        path = path_of(name)
        archive, separator, member = name.rpartition(_MEMBER)
        if own_descriptor(name) is not None and _is_there(path, Path.exists):
            yield Source(name, _pipe(name, path))
        elif _is_file(path):
            yield from self._in_archive(name, path) if _is_archive(path) else (Source(name, path),)
        elif name and _is_there(path, Path.is_dir):
            yield from self._in_folder(str(path))
        elif separator and _is_archive(path_of(archive)):
            yield from self._only_member(archive, member)
        elif name and _is_there(path, Path.exists):
            yield Source(name, _pipe(name, path))
        elif glob.has_magic(name):
            yield from self._matching(name)
        else:
            raise InputError(f"there is no file {name or repr(name)}")

    def _in_folder(self, folder: str) -> Iterator[Source]:
        empty = True
        for name, origin in files_below(folder, self.apart_from):
            empty = False
            yield Source(name, origin)
        if empty:
            raise InputError(f"the folder {folder} contains no documents")

    def _matching(self, pattern: str) -> Iterator[Source]:
        empty = True
        for name in files_matching(str(path_of(pattern)), self.apart_from):
            path = Path(name)
            if _is_archive(path):
                empty = False
                yield from self._in_archive(name, path)
            elif is_readable(name):
                empty = False
                yield Source(name, path)
        if empty:
            raise InputError(f"no document matches {pattern}")

    def _in_archive(self, name: str, path: Path) -> Iterator[Source]:
        try:
            found = list_members(path, name, self.limits)
        except InputError as error:
            yield Source(name, Refused(str(error)))
            return
        if not found:
            yield Source(name, Refused(f"the archive {name} contains no documents"))
        yield from (Source(*each) for each in found)

    def _only_member(self, archive: str, member: str) -> Iterator[Source]:
        name = f"{archive}{_MEMBER}{member}"
        wanted = [each for each in self._in_archive(archive, path_of(archive)) if each.name in (name, archive)]
        if not wanted:
            raise InputError(f"there is no document {member} in {archive}")
        yield from wanted

    def _in_list(self, name: str) -> Iterator[Source]:
        """Yield what a list's lines stand for; a line that stands for nothing is a document that cannot be read."""
        path = path_of(name)
        encoding = _encoding_of(path, name)
        with path.open(encoding=encoding, errors="surrogateescape" if encoding == "utf-8-sig" else "replace") as lines:
            for number, line in enumerate(lines, 1):
                entry = line.strip()
                if entry and not entry.startswith("#"):
                    yield from self._entry(entry, line.rstrip("\n"), path.parent, f"line {number} of {name}")

    def _entry(self, entry: str, line: str, folder: Path, place: str) -> Iterator[Source]:
        """Yield what a line stands for, seen from the working folder, or else from the list's own *folder*.

        Spaces around a name are usually not part of it; if nothing has the name without them, they may be.
        """
        spellings = [entry] if scheme_of(entry) else [entry, str(folder / entry)]
        if line != entry and not scheme_of(entry):
            spellings += [line, str(folder / line)]
        wrong = []
        for spelling in spellings:
            try:
                if _is_list(spelling):
                    raise InputError(f"{spelling} is a list within a list; give it on its own")
                yield from self._documents(spelling)
            except OlmocrError as error:
                wrong.append(str(error))
            except (OSError, ValueError) as error:
                wrong.append(f"{in_a_line(spelling)} cannot be read: {getattr(error, 'strerror', None) or error}")
            else:
                return
        yield Source(entry, Refused(f"{wrong[0]} ({place})"))


def _standard_input() -> Source:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("- stands for standard input, but nothing is piped into it")
    return Source(STANDARD_INPUT, StandardInput())


def _pipe(name: str, path: Path) -> Pipe:
    """Return the pipe at *path*, or what stands in its place for this process alone: it, too, is read once."""
    mode = path.stat().st_mode
    if not (stat.S_ISFIFO(mode) or (stat.S_ISREG(mode) and own_descriptor(name) is not None)):
        raise InputError(f"{name} is {'a socket' if stat.S_ISSOCK(mode) else 'a device'}, not a file")
    return Pipe(spelled_place(path))


def path_of(name: str) -> Path:
    """Return the path that a name means, with ``~`` expanded if such a user exists."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)


def _encoding_of(path: Path, name: str) -> str:
    """Return the encoding of a list: UTF-8, with other bytes kept, or what Windows programs use.

    Raises:
        InputError: it is not text.
    """
    start = read_start(str(path))
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:
        raise InputError(f"{name} is not a list of names: it is not text")
    return "utf-8-sig"


def _is_file(path: Path) -> bool:
    """Return whether such a file exists.

    Raises:
        OSError: that cannot be known, as in a folder that may not be entered.
    """
    return _is_there(path, Path.is_file)


def _is_there(path: Path, is_so: Callable[[Path], bool]) -> bool:
    try:
        return is_so(path)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ):  # not a file's name, but perhaps a member's
            raise
        return False


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_ENDINGS) and _is_file(path) and not is_document(read_start(str(path)))


def _is_list(name: str) -> bool:
    path = path_of(name)
    is_called_so = scheme_of(name) is None and path.name.lower().endswith(_LIST_ENDING)
    return is_called_so and _is_file(path) and not is_document(read_start(str(path)))
