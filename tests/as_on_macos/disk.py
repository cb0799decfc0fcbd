"""A folder that behaves as a Mac's disk does.

Names there are told apart neither by case nor by how an accent is written, and keep the spelling in which they were
made; a name that is not Unicode, and a path of 1024 bytes, are refused. There is no ``/proc`` and no ``/sys``, and
``/dev/fd`` is a folder, not a link. Only what Python opens is seen so: libraries in C see the disk as it is.
"""

import builtins
import errno
import functools
import io
import os
import unicodedata

_PATH_MAX = 1024
_NEEDS_ONE = (
    *("access", "chdir", "chmod", "chown", "listdir", "lstat", "mkdir", "mkfifo", "open", "pathconf", "readlink"),
    *("remove", "rmdir", "scandir", "stat", "statvfs", "truncate", "unlink", "utime"),
)
_ABSENT = ("/proc", "/sys")
_LINKS_IN_DEV = {"/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}

_lstat, _stat, _listdir, _readlink, _getcwd = os.lstat, os.stat, os.listdir, os.readlink, os.getcwd


def folded(name):
    """Return what all spellings of one name have in common."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class Disk:
    """The folder *root*, and all below it."""

    def __init__(self, root):
        self._inside = f"{root.rstrip('/')}/"

    def found(self, path, dir_fd=None):
        """Return *path* as its folders spell it, as far as it is there; one that needs no change is the same object.

        Raises:
            OSError: macOS would have no such path.
        """
        if isinstance(path, int):
            return path
        told = os.fsdecode(path)
        here = _getcwd() if dir_fd is None else _readlink(f"/proc/self/fd/{dir_fd}")
        whole = os.path.join(here, told)
        if any(whole == absent or whole.startswith(f"{absent}/") for absent in _ABSENT):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not told or not whole.startswith(self._inside):
            return path
        _refuse_what_is_no_path(path, told)
        if _is_there(whole):
            return path
        spelled = self._spelled(whole)
        if spelled == whole:
            return path
        spelled = spelled if os.path.isabs(told) else spelled[len(here) + 1 :]
        return os.fsencode(spelled) if isinstance(path, bytes) else spelled

    def _spelled(self, whole):
        here = self._inside.rstrip("/")
        for part in whole[len(self._inside) :].split("/"):
            here = os.path.join(here, part if part in ("", ".", "..") else _spelled_in(here, part))
        return here


def _refuse_what_is_no_path(path, told):
    encoded = os.fsencode(told)
    try:
        encoded.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), path) from None
    if len(encoded) >= _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)


def _is_there(path):
    try:
        _lstat(path)
    except (OSError, ValueError):
        return False
    return True


def _spelled_in(folder, name):
    if _is_there(os.path.join(folder, name)):
        return name
    try:
        entries = _listdir(folder)
    except OSError:
        return name
    wanted = folded(name)
    return next((entry for entry in entries if _is_spelled(entry, wanted)), name)


def _is_spelled(entry, wanted):
    """Say whether *entry* is a spelling of what folds to *wanted*; that of most names is seen without folding them."""
    return len(entry) == len(wanted) and entry.lower() == wanted if entry.isascii() else folded(entry) == wanted


def mount(root):
    """Have Python see the folder *root*, and all below it, as a Mac's disk."""
    disk = Disk(root)
    for name in _NEEDS_ONE:
        _put(name, _with_one_path(disk, getattr(os, name)))
    for name in ("rename", "replace"):
        _put(name, _renaming(disk, getattr(os, name)))
    _put("link", _with_two_paths(disk, os.link))
    _put("symlink", _with_second_path(disk, os.symlink))
    _put("lstat", _without_links_in_dev(os.lstat))
    _put("readlink", _reading_links(os.readlink))
    builtins.open = io.open = _with_one_path(disk, io.open)


def _put(name, function):
    """Replace a function of ``os``, also in the sets that tell what it can do."""
    replaced = getattr(os, name)
    for able in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
        if replaced in able:
            able.add(function)
    setattr(os, name, function)


def _with_one_path(disk, function):
    @functools.wraps(function)
    def with_one_path(*arguments, **settings):
        if arguments:
            arguments = (disk.found(arguments[0], settings.get("dir_fd")), *arguments[1:])
        else:
            named = next((key for key in ("path", "file") if settings.get(key) is not None), None)
            settings |= {named: disk.found(settings[named], settings.get("dir_fd"))} if named else {}
        return function(*arguments, **settings)

    return with_one_path


def _with_two_paths(disk, function):
    @functools.wraps(function)
    def with_two_paths(src, dst, *, src_dir_fd=None, dst_dir_fd=None, **settings):
        found = disk.found(src, src_dir_fd), disk.found(dst, dst_dir_fd)
        return function(*found, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **settings)

    return with_two_paths


def _with_second_path(disk, function):
    @functools.wraps(function)
    def with_second_path(src, dst, *others, dir_fd=None, **settings):
        return function(src, disk.found(dst, dir_fd), *others, dir_fd=dir_fd, **settings)

    return with_second_path


def _renaming(disk, function):
    """Let a file be renamed to another spelling of its own name."""

    @functools.wraps(function)
    def renaming(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
        from_, to = disk.found(src, src_dir_fd), disk.found(dst, dst_dir_fd)
        if os.path.abspath(from_) == os.path.abspath(to) and os.path.basename(dst) != os.path.basename(to):
            to = os.path.join(os.path.dirname(to), os.path.basename(dst))
        return function(from_, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    return renaming


def _without_links_in_dev(lstat):
    @functools.wraps(lstat)
    def without_links_in_dev(path, *, dir_fd=None):
        is_in_dev = not isinstance(path, int) and os.fsdecode(path).startswith("/dev/fd")
        return _stat(path) if is_in_dev else lstat(path, dir_fd=dir_fd)

    return without_links_in_dev


def _reading_links(readlink):
    @functools.wraps(readlink)
    def reading_links(path, *, dir_fd=None):
        told = os.fsdecode(path)
        if told.startswith("/dev/fd"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return _LINKS_IN_DEV.get(told) or readlink(path, dir_fd=dir_fd)

    return reading_links
