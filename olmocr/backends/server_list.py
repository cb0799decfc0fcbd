"""What was named as servers, one by one or in a file -> each one's address, and the key that it alone is shown.

A name is an address, and after a blank may say whose key goes there: ``$NAME`` is that variable of the environment,
``-`` is none. Without either it is the key that was given for all.
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
    """A server's address as it was given, and what it is shown."""

    url: str
    api_key: str | None = field(default=None, repr=False)


def named_servers(names: Iterable[str], api_key: str | None, environment: Mapping[str, str]) -> tuple[NamedServer, ...]:
    """Return the servers that *names* stand for; *api_key* is shown to those that say nothing of a key.

    Raises:
        UsageError: a name is none, or the variable is not set that has its key.
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
        raise UsageError(f"the key of {_shown(url)} is to be in the variable {variable}, which is not set; set it")
    return NamedServer(url, environment[variable])


def require_server_names(names: Iterable[str]) -> None:
    """See to it that each of *names* has the form of one, and is there once.

    Raises:
        UsageError: one has not, or is there twice.
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
            f"after the server {_shown(url)} stands more than the name of a variable that has its key; "
            "write $NAME for one, or - for no key"
        )
    return url, more[0]


def _shown(url: str) -> str:
    """Return an address as sentences may have it: what has an @ may have a password before it."""
    return "whose address has an @" if "@" in url else one_line(url, 100)


def read_server_list(path: Path) -> tuple[str, ...]:
    """Return the names of servers in a file, one a line. Empty lines, and what follows a #, are left out.

    Raises:
        UsageError: the file cannot be read, or names none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        hint = "; a server itself is named with `server`" if "://" in str(path) or ":/" in str(path) else ""
        raise UsageError(f"the list of servers {path} cannot be read: {error}{hint}") from error
    names = tuple(name for name in (_COMMENT.sub("", line).strip() for line in text.splitlines()) if name)
    if not names:
        raise UsageError(f"the list of servers {path} names none; write one address a line")
    return names
