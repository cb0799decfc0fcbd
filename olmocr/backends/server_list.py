"""Named servers, or a file of them -> addresses, and the key for each.

A name is an address, optionally followed by a space and the source of the key: ``$NAME`` is that environment variable,
``-`` means no key. Without either, the server gets the key that was given for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from olmocr.errors import UsageError
from olmocr.text import one_line

_NO_KEY = "-"
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True)
class NamedServer:
    """A server's address as it was given, and the key to send to it."""

    url: str
    api_key: str | None = field(default=None, repr=False)


def named_servers(names: Iterable[str], api_key: str | None, environment: Mapping[str, str]) -> tuple[NamedServer, ...]:
    """Return the servers that *names* stand for; *api_key* is for those whose name does not mention a key.

    Raises:
        UsageError: a name is invalid, or the variable with its key is not set.
    """
    return tuple(_named(name, api_key, environment) for name in names)


def _named(name: str, api_key: str | None, environment: Mapping[str, str]) -> NamedServer:
    url, key = _parts(name)
    if key is None:
        return NamedServer(url, api_key)
    if key == _NO_KEY:
        return NamedServer(url)
    variable = key.removeprefix("$")
    if not environment.get(variable):
        raise UsageError(
            f"the key of the server {_shown(url)} is expected in the variable {variable}, which is not set; set it"
        )
    return NamedServer(url, environment[variable])


def require_server_names(names: Iterable[str]) -> None:
    """Check that each of *names* has a valid form, and appears once.

    Raises:
        UsageError: a name is invalid, or appears twice.
    """
    seen = set()
    for name in names:
        url, _ = _parts(name)
        if url in seen:
            raise UsageError(f"the server {_shown(url)} is named twice; name it once")
        seen.add(url)


def _parts(name: str) -> tuple[str, str | None]:
    url, *more = name.split() or [""]
    if not url:
        raise UsageError("a server's address is empty; give one such as http://localhost:8000/v1")
    if not more:
        return url, None
    if len(more) > 1 or not (more[0] == _NO_KEY or _VARIABLE.fullmatch(more[0])):
        raise UsageError(
            f"the server {_shown(url)} is followed by more than the name of the variable with its key; "
            "write $NAME for that, or - for no key"
        )
    return url, more[0]


def _shown(url: str) -> str:
    """Return an address in a form fit for messages: one with an @ is hidden, since it may contain a password."""
    return "whose address has an @" if "@" in url else one_line(url, 100)


def read_server_list(path: Path) -> tuple[str, ...]:
    """Return the names of servers in a file, one per line. Empty lines and comments, which begin with #, are ignored.

    Raises:
        UsageError: the file cannot be read, or names no server.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        hint = "; name a server itself with `server`" if "://" in str(path) or ":/" in str(path) else ""
        raise UsageError(f"the list of servers {path} cannot be read: {error}{hint}") from error
    names = tuple(name for name in (_COMMENT.sub("", line).strip() for line in text.splitlines()) if name)
    if not names:
        raise UsageError(f"the list of servers {path} names none; write one address per line")
    return names
