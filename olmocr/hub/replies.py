"""Checks everything a Hub or a mirror sends before huggingface_hub uses it.

The client joins received names (a commit, a file's hash) to paths. It waits as long as an answer demands, reads answers
of any length to their end, and sends the token to any address that it is given. So its HTTP client gets two hooks.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from olmocr.text import one_line

COMMIT = re.compile(r"[0-9a-f]{40}")
FILE_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LARGEST_FILE = 1 << 44
"""Bytes; the Hub refuses files of a hundredth of that."""

_LONGEST_ANSWER = 64 << 20  # bytes of JSON; the list of a repository with 100,000 files has about 30 MB
_LONGEST_UNKNOWN = 1 << 30  # bytes of a file of unknown size
_LONGEST_ANSWER_TAKES = 300.0  # seconds
_LONGEST_PAUSE = 60  # seconds, whatever a reply requests
_TIMEOUTS = {"connect": 30.0, "read": 300.0, "write": 300.0}  # seconds, if huggingface_hub does not set any
_MOST_REMEMBERED = 100_000
_HUB_HOSTS = ("huggingface.co", "hf.co")

_DESCRIPTION = re.compile(r"/api/models/[^/]+/[^/]+(?:/revision/[^/]+)?/?$")
_TREE = re.compile(r"/api/models/[^/]+/[^/]+/tree/.+")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

_log = logging.getLogger(__name__)


class ReplyError(Exception):
    """A Hub sent something that must not be used. The text continues "the Hub …"."""


class _Announced:
    """The expected length of each file, by its address, once known."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def remember(self, url: str, size: int) -> None:
        if len(self._sizes) >= _MOST_REMEMBERED:
            self._sizes.clear()
        self._sizes[url] = size

    def size(self, url: str) -> int | None:
        return self._sizes.get(url)


_announced = _Announced()


_looking: list[str] = []
"""The endpoint of each active block of :func:`replies_looked_at`: other users of huggingface_hub in this process have
other endpoints, and are left alone."""


@contextmanager
def replies_looked_at(endpoint: str | None = None) -> Iterator[None]:
    """Make huggingface_hub's client check every reply within the block; *endpoint* defaults to ``HF_ENDPOINT``.

    Raises:
        ReplyError: that is not an address of a Hub, or a reply must not be used.
    """
    from huggingface_hub import constants

    endpoint = endpoint or constants.ENDPOINT
    require_endpoint(endpoint)
    _install_hooks(endpoint)
    _looking.append(endpoint)
    try:
        yield
    finally:
        _looking.remove(endpoint)


def _install_hooks(endpoint: str) -> None:
    from huggingface_hub import get_session, set_client_factory

    client: Any = get_session()
    if _look_at_reply in client.event_hooks["response"]:
        return
    # The client is made anew after a broken connection; another factory, if one was set, is kept.
    from huggingface_hub.utils import _http

    make: Any = getattr(_http, "_GLOBAL_CLIENT_FACTORY", None) or _http.default_client_factory
    set_client_factory(lambda: _with_hooks(make()))
    # Its warnings repeat signed addresses of the storage, and texts from a server.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    _warn_of_an_open_token(endpoint)


def _with_hooks(client: Any) -> Any:
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], _look_at_request],
        "response": [_look_at_reply, *hooks["response"]],
    }
    return client


def require_endpoint(endpoint: str) -> None:
    """Refuse an ``HF_ENDPOINT`` that requests cannot be sent to.

    Raises:
        ReplyError: it is invalid; the message continues a sentence.
    """
    try:
        parts = urlsplit(endpoint)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or parts.query or parts.fragment or not endpoint.isprintable() or " " in endpoint:
        raise ReplyError(f"cannot be at HF_ENDPOINT {one_line(endpoint, 100)!r}: that is not an http or https address")


def _warn_of_an_open_token(endpoint: str) -> None:
    from huggingface_hub import get_token

    if urlsplit(endpoint).scheme == "http" and not _is_loopback(urlsplit(endpoint).hostname or "") and get_token():
        _log.warning("HF_ENDPOINT is an http address: others can read the token on the way; use https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _look_at_request(request: Any) -> None:
    """Send the token only to the Hub, do not accept compression, and set timeouts everywhere."""
    if not _looking:
        return
    if "authorization" in request.headers and not _is_hub(str(request.url)):
        raise ReplyError(f"would have the token sent to another host ({one_line(request.url.host, 100)})")
    # If compressed, a short answer may expand endlessly, and bytes in the middle of a file would have other positions.
    request.headers["Accept-Encoding"] = "identity"
    timeouts = request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        request.extensions["timeout"] = timeouts | {
            name: seconds for name, seconds in _TIMEOUTS.items() if timeouts.get(name) is None
        }


def _is_hub(url: str) -> bool:
    asked = urlsplit(url)
    for own in map(urlsplit, _looking):
        if (asked.scheme, asked.hostname, _port(asked)) == (own.scheme, own.hostname, _port(own)):
            return True
    host = asked.hostname or ""
    return asked.scheme == "https" and any(host == each or host.endswith(f".{each}") for each in _HUB_HOSTS)


def _port(parts: Any) -> int:
    return int(parts.port or (443 if parts.scheme == "https" else 80))


def _look_at_reply(response: Any) -> None:
    """Refuse a reply if something used in it is not allowed."""
    if not _looking:
        return
    headers, path = response.headers, unquote(response.request.url.path)
    if headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise ReplyError("sends a compressed reply, which was not requested")
    for name in ("Retry-After", "RateLimit", "X-HF-Warning"):
        _tame(headers, name)
    commit = headers.get("X-Repo-Commit")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise ReplyError(f"calls a commit {_shown(commit)}, not 40 hexadecimal digits")
    file = _FILE.search(path)
    if file and response.status_code < 400:
        _look_at_file(response, *file.groups())
    is_file = response.status_code < 300 and (file or _announced.size(str(response.request.url)) is not None)
    if is_file and response.request.method == "GET":
        _bound(response, _file_limit(response), None)
        return
    _bound(response, _LONGEST_ANSWER, time.monotonic() + _LONGEST_ANSWER_TAKES)
    if response.status_code < 300 and response.request.method == "GET" and "/api/" in path:
        _look_at_answer(response, path)


def _tame(headers: Any, name: str) -> None:
    """Remove from a reply what would make the client wait endlessly, or print control characters."""
    value = headers.get(name)
    if value is None:
        return
    if name == "X-HF-Warning" or any(int(each) > _LONGEST_PAUSE for each in re.findall(r"\d{1,18}", value)):
        del headers[name]


def announce(repo_id: str, name: str, size: int) -> None:
    """Remember a file's *size* in a repository's list of files: no more than that will be read."""
    _announced.remember(f"{repo_id}/{name}", size)


def _look_at_file(response: Any, repo_id: str, revision: str, name: str) -> None:
    """Check the headers by which the client finds a file's place in its cache, and remember its length."""
    headers, url = response.headers, str(response.request.url)
    commit = headers.get("X-Repo-Commit")
    if commit is not None:
        if COMMIT.fullmatch(revision) and commit != revision:
            raise ReplyError(f"gives a file of the commit {commit}, not of {revision} as requested")
        etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
        if not FILE_HASH.fullmatch(etag):
            raise ReplyError(f"gives a file the hash {_shown(etag)}, which is invalid")
    sizes = {name: headers.get(name) for name in ("X-Linked-Size", "Content-Length")}
    for header, stated in sizes.items():
        if stated is not None and not (re.fullmatch(r"[0-9]{1,14}", stated) and int(stated) <= LARGEST_FILE):
            raise ReplyError(f"states {_shown(stated)} as a file's size ({header})")
    location = headers.get("Location")
    size = sizes["X-Linked-Size"] or (None if location or response.status_code == 206 else sizes["Content-Length"])
    listed = _announced.size(f"{repo_id}/{name}")
    if listed is not None and size is not None and int(size) != listed:
        raise ReplyError(f"states {int(size):,} bytes for {_shown(name)}, but listed {listed:,}")
    known = listed if size is None else int(size)
    if known is not None:
        _announced.remember(url, known)
        if location:
            _announced.remember(urljoin(url, location), known)


def _file_limit(response: Any) -> int:
    known = _announced.size(str(response.request.url))
    stated = response.headers.get("Content-Length") or ""
    if known is not None:
        return known
    return int(stated) if re.fullmatch(r"[0-9]{1,14}", stated) else _LONGEST_UNKNOWN


def _bound(response: Any, limit: int, end: float | None) -> None:
    """Make reading *response* fail after *limit* bytes, or when the clock passes *end*."""
    stream = response.stream
    base = next((each for each in type(stream).__mro__ if each.__name__ == "SyncByteStream"), None)
    if base is not None:
        response.stream = _bounded_class(base)(stream, limit, end)


@functools.cache
def _bounded_class(base: type) -> Any:
    """Return a stream of the HTTP library in use, under either of its two names."""

    class Bounded(base):  # type: ignore[misc]
        def __init__(self, stream: Any, limit: int, end: float | None) -> None:
            self._stream, self._limit, self._end = stream, limit, end

        def __iter__(self) -> Iterator[bytes]:
            nbytes = 0
            for chunk in self._stream:
                nbytes += len(chunk)
                if nbytes > self._limit:
                    raise ReplyError(f"sends more than the {self._limit:,} bytes allowed")
                if self._end is not None and time.monotonic() > self._end:
                    raise ReplyError(f"does not end within {_LONGEST_ANSWER_TAKES:g} seconds")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    return Bounded


def _look_at_answer(response: Any, path: str) -> None:
    """Refuse an answer of the Hub's API that does not have the expected type."""
    try:
        value = json.loads(response.read())
    except (ValueError, RecursionError) as error:
        kind = _shown(response.headers.get("Content-Type", "nothing"))
        raise ReplyError(f"answers with {kind} that is not JSON, as a network that requires a login does") from error
    if _DESCRIPTION.search(path):
        _look_at_description(value)
    elif _TREE.search(path):
        _look_at_tree(value)


def _look_at_description(value: Any) -> None:
    if not isinstance(value, dict):
        raise ReplyError("does not describe a repository as a JSON object")
    sha = value.get("sha")
    if not (isinstance(sha, str) and COMMIT.fullmatch(sha)):
        raise ReplyError(f"calls a commit {_shown(sha)}, not 40 hexadecimal digits")
    if not isinstance(value.get("private", False), bool):
        raise ReplyError(f"states {_shown(value['private'])} for whether a repository is private")
    siblings = value.get("siblings")
    if siblings is not None:
        _look_at_files(siblings, "rfilename", "blobId", "sha256")


def _look_at_tree(value: Any) -> None:
    if isinstance(value, list):
        value = [each for each in value if not (isinstance(each, dict) and each.get("type") == "directory")]
    _look_at_files(value, "path", "oid", "oid")


def _look_at_files(files: Any, name_key: str, hash_key: str, lfs_key: str) -> None:
    if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
        raise ReplyError("does not list files as JSON objects")
    for file in files:
        name, lfs = file.get(name_key), file.get("lfs")
        if not is_path(name):
            raise ReplyError(f"lists a file called {_shown(name)}, which is not a file's name")
        _look_at_facts(name, file.get("size"), file.get(hash_key))
        if lfs is None:
            continue
        if not isinstance(lfs, dict):
            raise ReplyError(f"does not describe {_shown(name)} as a JSON object")
        size, sha256 = lfs.get("size"), lfs.get(lfs_key)
        _look_at_facts(name, size, sha256)
        if size is None or sha256 is None or file.get("size") not in (None, size):
            raise ReplyError(f"gives two sizes for {_shown(name)}, or no hash")


def _look_at_facts(name: object, size: object, file_hash: object) -> None:
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST_FILE):
        raise ReplyError(f"states {_shown(size)} as the size of {_shown(name)}")
    if file_hash is not None and not (isinstance(file_hash, str) and FILE_HASH.fullmatch(file_hash)):
        raise ReplyError(f"states {_shown(file_hash)} as the hash of {_shown(name)}")


def is_path(name: object) -> bool:
    """Return whether *name* is a file's path in a repository that stays inside a folder when joined to it."""
    if not isinstance(name, str) or not 0 < len(name) <= 1024 or not name.isprintable() or "\\" in name:
        return False
    return not re.match(r"[A-Za-z]:", name) and not {"", ".", ".."} & set(name.split("/"))


def _shown(value: object) -> str:
    return one_line(repr(value), 100)
