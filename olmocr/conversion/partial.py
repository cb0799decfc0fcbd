"""The folder beside its target that a conversion writes into, and that a later run of the same conversion resumes.

It is called ``.NAME.partial``. Its ``state.json`` says which conversion it belongs to and lists the shards that were
complete and verified. Everything else in it is worthless after an interruption. A lock keeps two conversions apart; the
operating system releases it however the process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from olmocr.conversion.companions import write_json
from olmocr.conversion.disk import Buffer, reading
from olmocr.conversion.shards import WrittenShard
from olmocr.errors import CheckpointError, OutputError, PlanError, output_error
from olmocr.files import flushed
from olmocr.reports.typed_json import parse_as
from olmocr.strays import is_metadata, is_stray

STATE_FILE = "state.json"

# File servers answer this to a rename of something that is open.
_IN_USE = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY}
_DOWNLOADS = "source"
_PIECE = 4 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _State:
    """What a later run resumes from: complete shards by name, and the SHA-256 of source shards that were read."""

    fingerprint: str
    hashes: dict[str, str]
    shards: dict[str, WrittenShard]
    sha256: str = ""

    @property
    def digest(self) -> str:
        """What changes if the shard was changed since it was written, by a person or by a failing disk."""
        content = json.dumps(dataclasses.asdict(dataclasses.replace(self, sha256="")), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class PartialFolder:
    """What exists of a conversion so far: complete (*whole*) shards by name, and the SHA-256 of source shards read."""

    def __init__(self, path: Path, fingerprint: str, unlock: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        self.whole: dict[str, WrittenShard] = {}
        self.hashes: dict[str, str] = {}
        self._fingerprint = fingerprint
        self._unlock = unlock
        self._lock = threading.Lock()

    @property
    def downloads(self) -> Path:
        """The folder for a source's shards fetched one by one."""
        return self.path / _DOWNLOADS

    def add(self, shard: WrittenShard) -> None:
        """Remember that *shard* is complete."""
        with self._lock:
            self.whole[shard.file_name] = shard
            self._save()

    def add_hash(self, shard: str, sha256: str) -> None:
        """Remember the SHA-256 of a source shard."""
        with self._lock:
            self.hashes[shard] = sha256
            self._save()

    def _save(self) -> None:
        state = _State(self._fingerprint, self.hashes, self.whole)
        temporary = self.path / f"{STATE_FILE}.new"
        write_json(temporary, dataclasses.asdict(dataclasses.replace(state, sha256=state.digest)))
        temporary.replace(self.path / STATE_FILE)

    def resume(self) -> None:
        """Take over what an earlier run of the same conversion completed, and remove the rest."""
        is_ours = False
        try:
            state = parse_as(_State, (self.path / STATE_FILE).read_text(encoding="utf-8"))
            is_ours = state.fingerprint == self._fingerprint and state.sha256 == state.digest
            if is_ours:
                self.hashes = state.hashes
                self.whole = {name: shard for name, shard in state.shards.items() if _is_intact(self.path, shard)}
        except (OSError, ValueError):
            self.whole, self.hashes = {}, {}
        if self.whole:
            _log.info("resuming in %s: %d shards are complete", self.path, len(self.whole))
        if not is_ours or self.downloads.is_symlink():
            _remove(self.downloads)
        self.remove_unfinished()
        self._save()  # so that a download interrupted before the first complete shard can be resumed

    def remove_unfinished(self) -> None:
        """Remove incomplete shards and everything else that a later run does not resume from."""
        for entry in self.path.iterdir():
            if entry.name not in {*self.whole, STATE_FILE, _DOWNLOADS} and not is_stray(entry.name):
                _remove(entry)

    def finish(self, target: Path, rename: Callable[[Path, Path], object] = Path.rename) -> None:
        """Give the folder, which now holds a complete model, its name.

        A folder of that name that holds only files the system makes by itself gives way. Where a disk cannot rename a
        folder that is open, as some file servers, this works without the lock.

        Raises:
            OSError: it cannot be renamed.
        """
        _remove(self.downloads)
        if target.is_dir():
            for entry in target.iterdir():
                if is_metadata(entry.name):
                    _remove(entry)
            target.rmdir()  # a Windows disk renames a folder only to a free name
        _remove(self.path / STATE_FILE)
        _sync(self.path)
        try:
            self._rename(target, rename)
        except OSError:
            self._save()  # everything is complete: a later run has only to do this again
            raise
        _sync(target.parent)

    def _rename(self, target: Path, rename: Callable[[Path, Path], object]) -> None:
        try:
            rename(self.path, target)
        except OSError as error:
            if error.errno not in _IN_USE or not self._unlock():
                raise
            rename(self.path, target)

    def is_worth_keeping(self) -> bool:
        """Return whether what is here would save a later run work."""
        return bool(self.whole) or (self.downloads.is_dir() and not is_empty(self.downloads))


@contextlib.contextmanager
def partial_folder(target: Path, fingerprint: str) -> Iterator[PartialFolder]:
    """Yield the folder beside *target* that this conversion is written into, locked.

    When the block fails, the folder stays if a later run can resume from it. It is removed if nothing is complete yet,
    or if the source or the plan is at fault.

    Raises:
        OutputError: it cannot be written, or another process is writing to it.
    """
    stack = contextlib.ExitStack()

    def unlock() -> bool:
        stack.close()
        return True

    folder = PartialFolder(target.with_name(f".{target.name}.partial"), fingerprint, unlock)
    if folder.path.is_symlink():  # what it leads to is not ours to clear
        raise OutputError(f"{folder.path} is a link; remove it, or choose another `output`")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir(exist_ok=True)
        lock = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise output_error(error, str(target)) from error
    stack.callback(os.close, lock)
    with stack:
        _lock(lock, target)
        try:
            folder.resume()
            yield folder
        except (CheckpointError, PlanError):
            _remove(folder.path)
            raise
        except OSError as error:
            raise output_error(error, str(target)) from error
        finally:
            if folder.path.is_dir() and not folder.is_worth_keeping():
                _remove(folder.path)
            elif folder.path.is_dir():
                folder.remove_unfinished()


def _lock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another process is converting to {target}; wait for it, or choose another `output`"
        ) from error
    except OSError as error:  # a network disk without locks: go on, two at once are the exception
        _log.warning("%s cannot be locked (%s); do not convert to it twice at once", target, error.strerror)


def _is_intact(folder: Path, shard: WrittenShard) -> bool:
    """Read a shard that an earlier run left, and compare it with the hash that it had."""
    digest, buffer = hashlib.sha256(), Buffer()
    path = folder / shard.file_name
    if Path(shard.file_name).name != shard.file_name or path.is_symlink() or not path.is_file():
        return False
    if path.stat().st_size != shard.nbytes:
        return False
    with reading(path) as reader:
        for offset in range(0, shard.nbytes, _PIECE):
            digest.update(reader.read(offset, min(_PIECE, shard.nbytes - offset), buffer).data)
    return digest.hexdigest() == shard.sha256


def is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing but what a system makes by itself, like ``.DS_Store``.

    Raises:
        OSError: it cannot be looked into.
    """
    return all(is_metadata(entry.name) for entry in folder.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flushed(descriptor)
    finally:
        os.close(descriptor)
