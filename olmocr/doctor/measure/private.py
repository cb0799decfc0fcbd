"""A sentence about this machine -> the same sentence without names of people, machines and folders."""

from __future__ import annotations

import getpass
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_SHORTEST = 3  # letters of a name to look for; shorter names are parts of words


def private_names(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the paths that a report must not contain, with what replaces each; the keys of *folders* replace them."""
    told = {str(folder): name for name, folder in folders.items()}
    told |= {str(folder.resolve()): name for name, folder in folders.items()}
    told |= {sys.prefix: "PYTHON", sys.base_prefix: "PYTHON", str(Path(__file__).parents[3]): "PACKAGE"}
    told |= {str(Path.cwd()): ".", str(Path.home()): "~"}
    return {path: name for path, name in told.items() if len(path) > 1}


def person_and_machine() -> tuple[str, ...]:
    """Return the names of this user and this machine, as far as the system knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    host = platform.node()
    return tuple(name for name in (user, host, host.partition(".")[0]) if len(name) >= _SHORTEST)


def without_names(text: str, told: Mapping[str, str], names: Iterable[str]) -> str:
    """Return *text* with folders replaced as in *told*, the longest first, and without *names* that stand as words."""
    for path in sorted(told, key=len, reverse=True):
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", told[path], text)
    for name in names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return re.sub(r"/(?:Users|home)/[^/\s'\"]+", "~", text)
