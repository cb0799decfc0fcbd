"""An archive -> its readable members, and the bytes of each."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gzip
import hashlib
import logging
import lzma
import os
import re
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from olmocr.errors import InputError, output_error
from olmocr.files import whole_file
from olmocr.inputs.kinds import FIRST_BYTES, looks_readable
from olmocr.inputs.limits import InputLimits
from olmocr.inputs.origins import Refused, TarMember, ZipMember
from olmocr.strays import is_passed_over
from olmocr.text import one_line

log = logging.getLogger(__name__)

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")

Found = tuple[str, ZipMember | TarMember | Refused]
"""A member's name, and where its bytes are, or why they are not read."""

_PIECE = 1 << 20
_HEADER_BYTES = 1 << 20  # the longest name or comment of a member that is read into memory
_DIGITS = re.compile(rb"[0-9]+")
_MOST_DIGITS = 1024  # in a row in a member's header; tarfile searches for digits in quadratic time
_ZIP = b"PK"
_GZIP = b"\x1f\x8b"
_ENCRYPTED = 0x1
_UTF8 = 0x800
_ENTRY, _ENTRY_LENGTH = b"PK\x01\x02", 46  # how an entry of a zip's directory begins, and its bytes before the name
_HEADER, _HEADER_LENGTH = b"PK\x03\x04", 30  # the same for the header before a member

# What the standard library raises for an archive that is damaged, or crafted to look so.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,  # includes RecursionError and NotImplementedError
)


def list_members(archive: Path, name: str, limits: InputLimits) -> list[Found]:
    """Return the documents in *archive*, which is called *name*; a document that may not be read comes with the reason.

    Hidden members are left out, and so are members that are not documents by ending or first bytes. From a tar that is
    damaged or cut, the members before the damage are returned, and then the archive's own name with what is wrong.

    Raises:
        InputError: it is damaged, or unpacks to more than *limits* allow.
    """
    with _damage(name):
        with archive.open("rb") as file:
            is_zip = file.read(2) == _ZIP
        found = _list_zip(archive, name, limits) if is_zip else _list_tar(archive, name, limits)
    return list(dict(found).items())  # of two members with one name the later counts, as when they are unpacked


def read_zip_member(origin: ZipMember) -> Iterator[bytes]:
    """Yield the bytes of a zip's member.

    Raises:
        InputError: it is damaged.
    """
    name = f"{origin.archive}::{origin.member}"
    with _damage(name), _opened_zip(origin.archive).open(origin.member) as file:
        while piece := file.read(_PIECE):
            yield piece


def _opened_zip(path: str | Path) -> zipfile.ZipFile:
    """Return an open zip, kept open for the next member; members' names may differ from what their flags claim."""
    status = os.stat(path)  # noqa: PTH116
    return _zip_as_it_was(str(path), status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=1)  # opening one reads the names of all members, and each member is read by itself
def _zip_as_it_was(path: str, *version: int) -> zipfile.ZipFile:
    file = Path(path).open("rb")  # noqa: SIM115
    try:
        archive = zipfile.ZipFile(cast(BinaryIO, _TrueNames(file)))
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)  # not earlier: members may still be read elsewhere
    return archive


def read_tar_member(origin: TarMember, scratch: Path, limits: InputLimits) -> Iterator[bytes]:
    """Yield the bytes of a tar's member; a packed archive is unpacked into *scratch* once, and stays there.

    Raises:
        InputError: it is damaged, or unpacks to more than *limits* allow.
        OutputError: the disk is full.
    """
    archive = Path(origin.archive)
    path = _unpacked(archive, scratch, limits) if origin.is_packed else archive
    with _damage(f"{archive}::{origin.member}"), path.open("rb") as file:
        file.seek(origin.offset)
        left = origin.size
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise EOFError("it ends early")
            left -= len(piece)
            yield piece


@contextlib.contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {name}") from error
    except _DAMAGE as error:
        raise InputError(f"{name} is damaged, or not a readable archive: {one_line(str(error), 200)}") from error


def _refuse_bomb(name: str, members: int, unpacked: int, packed: int, limits: InputLimits) -> None:
    if members > limits.archive_members:
        raise InputError(f"{name} has more than {limits.archive_members} members; split it")
    if limits.is_bomb(unpacked, packed):
        raise InputError(f"{name} unpacks to {unpacked} bytes or more, too many for its {packed}; unpack it by hand")


def _why_refused(label: str, member: str, size: int, limits: InputLimits) -> str | None:
    parts = PurePosixPath(member).parts
    if ".." in parts or member.startswith("/"):
        return f"{label} points outside its archive"
    if size > limits.document_bytes:
        return f"{label} has {size} bytes, more than {limits.document_bytes}"
    return None


def _is_hidden(member: str) -> bool:
    return any(map(is_passed_over, PurePosixPath(member).parts))


def _list_zip(path: Path, name: str, limits: InputLimits) -> list[Found]:
    archive = _opened_zip(path)
    members = archive.infolist()
    unpacked = sum(each.file_size for each in members)
    _refuse_bomb(name, len(members), unpacked, path.stat().st_size, limits)
    return [found for each in members if (found := _zip_member(archive, each, path, name, limits))]


class _TrueNames:
    """A zip's file with true flags: zipfile refuses a complete archive if one name falsely claims to be UTF-8."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if data.startswith(_ENTRY):
            return _with_true_flags(data)
        if data.startswith(_HEADER) and len(data) == _HEADER_LENGTH:  # the name is read after it
            at = self._file.tell()
            name = self._file.read(struct.unpack_from("<H", data, 26)[0])
            self._file.seek(at)
            return data if _is_text(name) else data[:6] + _without_utf8(data, 6) + data[8:]
        return data


def _with_true_flags(directory: bytes) -> bytes:
    """Return a zip's *directory* with the UTF-8 flag cleared where a name is not UTF-8."""
    pieces, at = [], 0
    while directory.startswith(_ENTRY, at) and len(directory) >= at + _ENTRY_LENGTH:
        lengths = struct.unpack_from("<HHH", directory, at + 28)
        entry = directory[at : at + _ENTRY_LENGTH + sum(lengths)]
        if not _is_text(entry[_ENTRY_LENGTH : _ENTRY_LENGTH + lengths[0]]):
            entry = entry[:8] + _without_utf8(entry, 8) + entry[10:]
        pieces.append(entry)
        at += len(entry)
    return b"".join((*pieces, directory[at:]))


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_utf8(header: bytes, at: int) -> bytes:
    return struct.pack("<H", struct.unpack_from("<H", header, at)[0] & ~_UTF8)


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str, limits: InputLimits
) -> Found | None:
    encrypted = bool(info.flag_bits & _ENCRYPTED)

    def start() -> bytes:
        if encrypted:
            return b""
        with contextlib.suppress(*_DAMAGE), archive.open(info) as file:
            return file.read(FIRST_BYTES)
        return b""  # one that cannot be opened does not stop the others

    if info.is_dir() or _is_hidden(info.filename) or not looks_readable(info.filename, start):
        return None
    label = f"{name}::{info.filename}"
    why = _why_refused(label, info.filename, info.file_size, limits)
    if why is None and encrypted:
        why = f"{label} is encrypted; unpack the archive with its password and give the files"
    return label, Refused(why) if why else ZipMember(str(path), info.filename)


class _Headers:
    """What listing may read of a tar: never much at once, and never past what an archive may unpack to."""

    def __init__(self, file: BinaryIO, name: str, packed: int, limits: InputLimits) -> None:
        self._file, self._name, self._packed, self._limits = file, name, packed, limits

    def read(self, size: int = -1) -> bytes:
        """Return what tarfile takes for a header, or for part of one."""
        if not 0 <= size <= _HEADER_BYTES:
            raise InputError(f"{self._name} has a header of {size} bytes, which no tar needs")
        header = self.read_content(size)
        if size > _MOST_DIGITS and any(len(digits) > _MOST_DIGITS for digits in _DIGITS.findall(header)):
            raise InputError(f"{self._name} has a header with a number of more than {_MOST_DIGITS} digits")
        return header

    def read_content(self, size: int) -> bytes:
        self._may_reach(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        self._may_reach(offset)
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def _may_reach(self, offset: int) -> None:
        _refuse_bomb(self._name, 0, offset, self._packed, self._limits)


def _list_tar(path: Path, name: str, limits: InputLimits) -> list[Found]:
    with path.open("rb") as packed:
        is_packed = packed.read(2) == _GZIP
        packed.seek(0)
        with contextlib.ExitStack() as stack:
            file = cast(BinaryIO, stack.enter_context(gzip.open(packed)) if is_packed else packed)
            headers = _Headers(file, name, path.stat().st_size, limits)
            archive = stack.enter_context(tarfile.TarFile(fileobj=cast(BinaryIO, headers)))
            found: list[Found] = []
            try:
                found += _tar_members(archive, headers, path, name, is_packed, limits)
                _refuse_cut(archive, headers)
            except _DAMAGE as error:
                if not found:
                    raise
                found.append(
                    (
                        name,
                        Refused(
                            f"{name} is damaged: {len(found)} documents come before that ({one_line(str(error), 200)})"
                        ),
                    )
                )
            return found


def _refuse_cut(archive: tarfile.TarFile, headers: _Headers) -> None:
    """Refuse a tar that continues with something other than a header: tarfile takes that for the end.

    Raises:
        ReadError: it does.
    """
    headers.seek(archive.offset)
    block = headers.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0") or len(block) % tarfile.BLOCKSIZE:
        raise tarfile.ReadError("what follows is not a member's header")


def _tar_members(
    archive: tarfile.TarFile, headers: _Headers, path: Path, name: str, is_packed: bool, limits: InputLimits
) -> Iterator[Found]:
    count = 0
    while info := archive.next():
        archive.members = []  # type: ignore[attr-defined]  # or it would remember each of them
        count += 1
        _refuse_bomb(name, count, 0, 0, limits)
        if info.isdir() or _is_hidden(info.name):
            continue
        label, is_plain = f"{name}::{info.name}", info.isreg() and not info.issparse()

        def start(info: tarfile.TarInfo = info, is_plain: bool = is_plain) -> bytes:
            if not is_plain:
                return b""
            headers.seek(info.offset_data)
            return headers.read_content(max(0, min(FIRST_BYTES, info.size)))

        if looks_readable(info.name, start):
            why = _why_refused(label, info.name, info.size, limits)
            if why is None and not is_plain:
                why = f"{label} is a link or a device, not a file"
            member = TarMember(str(path), info.name, info.offset_data, info.size, is_packed)
            yield label, Refused(why) if why else member


def _unpacked(archive: Path, scratch: Path, limits: InputLimits) -> Path:
    """Return the tar inside a packed *archive*, unpacked into *scratch* unless an earlier call did so."""
    with _damage(str(archive)):
        status = archive.stat()
    identity = f"{os.path.abspath(archive)}\0{status.st_mtime_ns}\0{status.st_size}"  # noqa: PTH100
    path = scratch / f"{hashlib.sha1(os.fsencode(identity)).hexdigest()}.tar"  # noqa: S324
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("wb") as lock:
            with contextlib.suppress(OSError):  # a disk without locks: at worst it is unpacked twice
                fcntl.flock(lock, fcntl.LOCK_EX)  # several documents of one archive may be wanted at once
            if not path.exists():
                _unpack(archive, path, status.st_size, limits)
    except OSError as error:
        raise output_error(error, str(path)) from error
    return path


def _unpack(archive: Path, path: Path, packed: int, limits: InputLimits) -> None:
    with whole_file(path) as target:
        try:
            with gzip.open(archive) as source:
                while piece := source.read1(_PIECE):  # not read, which loses what comes before damage
                    _refuse_bomb(str(archive), 0, target.tell() + len(piece), packed, limits)
                    target.write(piece)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            log.debug("%s is damaged: %s", archive, error)  # what comes before is complete; what is missing fails later
