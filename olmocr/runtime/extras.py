"""Extras of this package -> the command that installs them where it is: a clone, a tool's environment, a venv.

Imports needed only for a message are made when there is one: every process of a renderer imports this module.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

DISTRIBUTION = "olmocr-mlx"
"""The name of this package on a package index, where ``olmocr`` is upstream's."""

REPOSITORY: str | None = None
"""The address of this package's public repository, as in every card; None until there is one.

It is defined only here: pyproject.toml repeats it as ``urls.Repository``, and tests compare that and the kept cards.
"""


@dataclass(frozen=True)
class Origin:
    """Where this package came from.

    *text* is a folder's path, a URL that installers accept, or None for the package index. *is_editable* means that the
    code in the folder runs, not a copy.
    """

    text: str | None = None
    is_folder: bool = False
    is_editable: bool = False


@dataclass(frozen=True)
class Installation:
    """Where this package is installed.

    *installer* made the environment. *python* is its interpreter; None if a bare ``pip`` is the right one. *extras* are
    those in a tool's environment, which a new installation of the tool would lose.
    """

    origin: Origin
    installer: Literal["pip", "uv", "uv tool", "pipx"] = "pip"
    python: str | None = None
    extras: tuple[str, ...] = ()


def install_command(*extras: str, installation: Installation | None = None) -> str:
    """Return the shell command that adds *extras* of this package to what is installed."""
    here = installation or find_installation()
    wanted = ",".join(dict.fromkeys((*here.extras, *extras)))
    origin = here.origin
    if origin.text is None:
        requirement = f"{DISTRIBUTION}[{wanted}]"
    elif origin.is_folder:
        requirement = f"{origin.text}[{wanted}]"
    else:
        requirement = f"{DISTRIBUTION}[{wanted}] @ {origin.text}"
    editable = ["--editable"] if origin.is_editable else []
    return shlex.join([*_installer(here), *editable, requirement])


def upgrade_command(requirement: str, *, installation: Installation | None = None) -> str:
    """Return the shell command that installs another version of a library: *requirement* is like ``mlx>=0.32``."""
    here = installation or find_installation()
    if here.installer == "uv tool":
        return f"uv tool upgrade {DISTRIBUTION}"
    if here.installer == "pipx":
        return shlex.join(["pipx", "inject", "--force", DISTRIBUTION, requirement])
    return shlex.join([*_installer(here), "--upgrade", requirement])


def _installer(here: Installation) -> list[str]:
    if here.installer == "uv tool":
        return ["uv", "tool", "install"]
    if here.installer == "pipx":
        return ["pipx", "install", "--force"]
    if here.installer == "uv":
        return ["uv", "pip", "install", *(["--python", here.python] if here.python else [])]
    return [here.python, "-m", "pip", "install"] if here.python else ["pip", "install"]


def find_installation() -> Installation:
    """Return where this package is installed."""
    prefix = Path(sys.prefix)
    origin = _folder_with_project() or parse_origin(_direct_url())
    receipt, metadata = _text_of(prefix / "uv-receipt.toml"), _text_of(prefix / "pipx_metadata.json")
    if receipt is not None:
        return Installation(origin, "uv tool", extras=extras_of_receipt(receipt))
    if metadata is not None:
        return Installation(origin, "pipx", extras=extras_of_metadata(metadata))
    is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
    has_pip = importlib.util.find_spec("pip") is not None
    return Installation(origin, "pip" if has_pip else "uv", None if is_active else sys.executable)


def _folder_with_project() -> Origin | None:
    """Return the clone that contains this file, if there is one."""
    folder = Path(__file__).parent.parent
    return Origin(str(folder), is_folder=True, is_editable=True) if (folder / "pyproject.toml").is_file() else None


def _direct_url() -> str | None:
    """Return an installer's record of where this package came from; nothing for an index."""
    import importlib.metadata

    try:
        return importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return None


def parse_origin(direct_url: str | None) -> Origin:
    """Return where a distribution came from, by its ``direct_url.json`` (PEP 610); without one, the index."""
    found = recorded(direct_url)
    url = found.get("url")
    if not isinstance(url, str) or not url:
        return Origin()
    if isinstance(found.get("dir_info"), dict) and url.startswith("file:"):
        from urllib.request import url2pathname

        is_editable = found["dir_info"].get("editable") is True
        return Origin(url2pathname(url.removeprefix("file://")), is_folder=True, is_editable=is_editable)
    vcs, below = found.get("vcs_info"), found.get("subdirectory")
    shown = _without_password(url)
    if isinstance(vcs, dict):
        revision = vcs.get("requested_revision") or vcs.get("commit_id")
        shown = f"{vcs.get('vcs', 'git')}+{shown}" + (f"@{revision}" if revision else "")
    return Origin(shown + (f"#subdirectory={below}" if below else ""))


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)) if at and (":" in user or parts.scheme == "https") else url


def extras_of_receipt(text: str) -> tuple[str, ...]:
    """Return the extras that ``uv tool install`` noted in its ``uv-receipt.toml``."""
    import tomllib

    try:
        requirements = tomllib.loads(text)["tool"]["requirements"]
        own = [each for each in requirements if each["name"] == DISTRIBUTION]
        return _names(extra for each in own for extra in each.get("extras", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def extras_of_metadata(text: str) -> tuple[str, ...]:
    """Return the extras that pipx noted in its ``pipx_metadata.json``: ``{"package_or_url": "olmocr-mlx[mlx]"}``."""
    package = recorded(text).get("main_package")
    given = package.get("package_or_url") if isinstance(package, dict) else None
    if not isinstance(given, str) or "[" not in given:
        return ()
    return _names(each.strip() for each in given.rpartition("[")[2].partition("]")[0].split(","))


def _names(extras: Iterable[Any]) -> tuple[str, ...]:
    return tuple(each for each in extras if isinstance(each, str) and each)


def recorded(text: str | None) -> dict[str, Any]:
    """Return the JSON object that an installer recorded; an empty one if there is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
