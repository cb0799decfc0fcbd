"""Names of files that systems and other programs put into a person's folders: they do not belong to the content.

This is the only list of them. A disk that cannot store what macOS knows of a file gets ``._NAME`` beside it, whoever
writes it; Windows, network disks, synchronizers, editors and git leave files of their own.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path

NOT_TO_READ = ".olmocr-files"
"""A file that marks its folder as written by us: there may be pictures in it, but none of a person's documents."""

# Thumbnails, indexes, undo data: a system makes them again by itself, so a folder with nothing else counts as empty.
_METADATA = (
    # macOS: https://developer.apple.com/library/archive/documentation/FileManagement/Conceptual/FileSystemProgrammingGuide
    "._*",
    ".ds_store",
    ".localized",
    ".apdisk",
    ".spotlight-v100",
    ".fseventsd",
    ".temporaryitems",
    ".documentrevisions-v100",
    ".metadata_never_index*",
    ".metadata_direct_scope_only",
    ".com.apple.timemachine.*",
    # An AppleDouble folder of netatalk's, and what Finder keeps on file servers.
    ".appledouble",
    ".appledb",
    ".appledesktop",
    "network trash folder",
    "temporary items",
    # Windows.
    "thumbs.db",
    "thumbs.db:*",
    "ehthumbs*.db",
    "desktop.ini",
    # Synology and QNAP: thumbnails and indexes.
    "@eadir",
    ".@__thumb",
    # KDE.
    ".directory",
)

_OTHERS = (
    # Folders' and volumes' icons: the carriage return is U+F00D on file servers.
    "icon\r",
    "icon\uf00d",
    ".volumeicon.icns",
    # Deleted files, snapshots, and what a disk check found.
    ".trash",
    ".trashes",
    ".trash-*",
    "$recycle.bin",
    "#recycle",
    "@recycle",
    "#snapshot",
    ".snapshot",
    ".snapshots",
    ".zfs",
    "system volume information",
    "lost+found",
    "found.[0-9][0-9][0-9]",
    # Files that were removed while a program had them open.
    ".nfs[0-9a-f]*",
    ".smbdelete*",
    ".fuse_hidden*",
    # Synchronizers.
    ".dropbox*",
    ".tmp.drivedownload",
    ".tmp.driveupload",
    ".*.icloud",
    ".sync",
    ".stfolder*",
    ".stversions",
    ".stignore",
    ".syncthing.*",
    "~syncthing~*",
    ".owncloudsync.log*",
    ".sync_*.db*",
    ".~lock.*#",
    ".~tmp~",
    ".rsync-partial",
    # Editors' copies and locks.
    "?*~",
    "~$*",
    ".*.sw[a-p]",
    ".#*",
    ".goutputstream-*",
    ".idea",
    ".vscode",
    ".ipynb_checkpoints",
    "__pycache__",
    # Archives packed on macOS.
    "__macosx",
    # Version control, and what the Hub's client leaves in its download folders.
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitkeep",
    ".gitmodules",
    ".hg",
    ".svn",
    ".cache",
    ".huggingface",
)


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(name) for name in names))


_IS_METADATA = _pattern(_METADATA)
_IS_STRAY = _pattern((*_METADATA, *_OTHERS))
_PLACEHOLDER = re.compile(r"\.(?P<name>.+)\.icloud", re.DOTALL)


def is_stray(name: str) -> bool:
    """Return whether a system or another program keeps a file or folder of this name for itself."""
    return _IS_STRAY.match(name.casefold()) is not None


def is_metadata(name: str) -> bool:
    """Return whether the system makes it again by itself, so that nobody would miss it."""
    return _IS_METADATA.match(name.casefold()) is not None


def is_passed_over(name: str) -> bool:
    """Return whether a file or folder that nobody named is left out: a hidden one, or a stray."""
    return (name.startswith(".") and name not in (".", "..")) or is_stray(name)


def awaited(name: str) -> str | None:
    """Return the name of the file that iCloud's placeholder *name* stands for, as it is not on this disk; else None."""
    match = _PLACEHOLDER.fullmatch(name)
    return match["name"] if match else None


def files_in(folder: Path, ending: str) -> list[Path]:
    """Return what is in *folder* under a name with that *ending* (``.safetensors``), in order, without strays.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(path for path in folder.glob(f"*{ending}") if not is_passed_over(path.name))


def own_parts(path: Path, folder: Path) -> bool:
    """Return whether *path*, below *folder*, is neither hidden nor a stray, nor in such a folder."""
    return not any(is_passed_over(part) for part in path.relative_to(folder).parts)


def in_stray(path: Path, folder: Path) -> bool:
    """Return whether *path*, below *folder*, is a stray or in one."""
    return any(is_stray(part) for part in path.relative_to(folder).parts)
