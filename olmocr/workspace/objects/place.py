"""What a person calls a workspace -> a folder on this disk, or a place in a store that several machines see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from olmocr.errors import UsageError

SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "memory", "file")
"""What may precede ``://`` in a workspace's name; ``memory`` ends with the process, and is for tests."""

STATE = "state"
"""The folder in a store's workspace with everything that only olmocr reads."""

MARK = f"{STATE}/workspace.json"
"""What marks a folder as such a workspace."""

# Path makes one slash of two: whoever passes a URL as a Path means the URL.
_NAME = re.compile(rf"({'|'.join(SCHEMES)}):(//?)(?!/*\Z)(.*)", re.DOTALL | re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True)
class StorePlace:
    """A place in a store, by its *url*: ``s3://bucket/prefix``, or ``file:///mnt/shared/ws`` for a shared folder."""

    url: str

    def __str__(self) -> str:
        """Return the URL as it may be shown: without a user's name and password."""
        return _USER.sub("", self.url)

    def __truediv__(self, name: str) -> StorePlace:
        return StorePlace(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        """What kind of store it is in."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return str(self).rpartition("/")[2]

    @property
    def local_folder(self) -> Path | None:
        """The folder that a ``file://`` URL names; None for others."""
        return Path(unquote(urlsplit(self.url).path)) if self.scheme == "file" else None


def store_place(name: str | Path | StorePlace) -> StorePlace | None:
    """Return the place in a store that the URL *name* means, or a folder that was made as one; None if it is neither.

    Raises:
        UsageError: it is a URL of a machine's folder whose path is not absolute.
    """
    if isinstance(name, StorePlace):
        return name
    match = _NAME.fullmatch(str(name))
    if match is None:
        return _made_as_one(Path(name).expanduser())
    scheme, slashes, rest = match[1].lower(), match[2], match[3]
    if scheme != "file":
        return StorePlace(f"{scheme}://{rest.rstrip('/')}")
    if slashes == "//" and not rest.startswith("/"):
        raise UsageError(f"{name} is not a folder of this machine: write file:// and its absolute path")
    return StorePlace(f"file:///{rest.strip('/')}")


def _made_as_one(folder: Path) -> StorePlace | None:
    try:
        is_one = (folder / MARK).is_file()
        return StorePlace(folder.resolve().as_uri()) if is_one else None
    except OSError:
        return None
