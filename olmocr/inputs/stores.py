"""URLs of web servers and object stores -> the files there, and the bytes of each. Only this module imports fsspec."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from olmocr.errors import InputError, MissingDependencyError, OlmocrError
from olmocr.inputs.kinds import has_ending
from olmocr.inputs.limits import InputLimits
from olmocr.inputs.origins import Refused, StoredFile, WebFile
from olmocr.runtime.extras import install_command
from olmocr.strays import is_passed_over
from olmocr.version import __version__

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WEB_SCHEMES = frozenset(("http", "https"))

# The extra that provides each scheme's file system; what reads the Hub comes with this package.
_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SCHEMES = (*_EXTRAS, "hf")

# What stores report about a file, under the names that fsspec's file systems use: those about its content first.
_VERSIONS = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAGIC = re.compile(r"[*?\[]")
_PIECE = 1 << 20
_BLOCK = 8 << 20  # bytes requested at once


def scheme_of(name: str) -> str | None:
    """Return the scheme of a name that is a URL, in lower case, or None."""
    match = _SCHEME.match(name)
    return match[1].lower() if match else None


def missing_extra(scheme: str) -> MissingDependencyError:
    """Return the error that names the extra that provides a store's file system."""
    extra = install_command(_EXTRAS.get(scheme, "mlx"))
    return MissingDependencyError(f"{scheme}:// needs an extra of this package: {extra}")


def web_file(name: str) -> tuple[str, WebFile]:
    """Return the name that a URL is shown by, without its password, and the URL. No request is made yet."""
    url = name.partition("#")[0]
    try:
        authority = urlsplit(url).netloc
    except ValueError as error:
        raise InputError(f"{name} is not a URL: {error}") from error
    return name.replace(authority, authority.rpartition("@")[2], 1), WebFile(url)


def find_stored(name: str) -> list[tuple[str, StoredFile | Refused]]:
    """Return the files that a URL of an object store means: one, all below a prefix, or those that match a pattern.

    If the store does not answer, that is the URL's failure.

    A URL with a document's ending is not looked up: whether it exists is seen when it is read.

    Raises:
        InputError: there are none.
        MissingDependencyError: the extra for this kind of store is not installed.
    """
    filesystem, path = _open_store(name)
    store = _store_of(name)
    if _MAGIC.search(path) is None and has_ending(path):
        return [(name, StoredFile(store, path))]
    try:
        with _faults_of(name):
            found = {name: info for name, info in _list(filesystem, path).items() if has_ending(name)}
            filesystem.invalidate_cache()  # or it would remember everything that it has listed
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        return [(name, Refused(str(error)))]  # a store that is unreachable or refuses is not a typing error
    if not found:
        raise InputError(f"there is no document at {name}")
    scheme = scheme_of(name)
    return [(f"{scheme}://{each}", StoredFile(store, each, version_told(found[each]))) for each in sorted(found)]


def find_below(url: str, is_wanted: Callable[[str], bool]) -> dict[str, StoredFile]:
    """Return the files below a URL of an object store whose paths from there are wanted, by these, in their order.

    Raises:
        InputError: it cannot be listed, or has no such file.
        MissingDependencyError: the extra for this kind of store is not installed.
    """
    filesystem, path = _open_store(url)
    with _faults_of(url):
        listed = filesystem.find(path, detail=True)
        filesystem.invalidate_cache()
    below = {name[len(path.rstrip("/")) + 1 :]: (name, info) for name, info in listed.items()}
    found = {
        name: StoredFile(_store_of(url), *where)
        for name, where in sorted((name, (full, version_told(info))) for name, (full, info) in below.items())
        if is_wanted(name) and not any(map(is_passed_over, name.split("/")))
    }
    if not found:
        raise InputError(f"there is nothing to read at {url}")
    return found


def read_stored(origin: StoredFile, name: str) -> Iterator[bytes]:
    """Yield the bytes of a file in an object store.

    Raises:
        InputError: it does not exist, or the store refuses it.
    """
    filesystem, _ = _open_store(origin.store)
    with _faults_of(name), filesystem.open(origin.path, "rb", block_size=_BLOCK) as file:
        while piece := file.read(_PIECE):
            yield piece


def read_web_file(origin: WebFile, name: str, limits: InputLimits) -> Iterator[bytes]:
    """Yield what a web server returns for a URL, following redirections.

    Raises:
        InputError: the server refuses it, is silent for ``stall_seconds``, takes more than ``download_seconds``,
            announces more than ``document_bytes``, or stops before the end.
    """
    import httpx  # here, since it is slow to import and few runs need it

    deadline = time.monotonic() + limits.download_seconds
    headers = {"User-Agent": f"olmocr/{__version__}"}
    try:
        with httpx.stream(
            "GET", origin.url, follow_redirects=True, timeout=limits.stall_seconds, headers=headers
        ) as response:
            if response.status_code != httpx.codes.OK:
                raise InputError(f"{name} cannot be downloaded: the server answered {_status(response)}")
            _refuse_announced(response.headers.get("Content-Length", ""), name, limits)
            for piece in response.iter_bytes():
                if time.monotonic() > deadline:
                    raise InputError(f"{name} cannot be downloaded: it takes more than {limits.download_seconds:g} s")
                yield piece
    except httpx.TimeoutException as error:
        raise InputError(f"{name} cannot be downloaded: no answer for {limits.stall_seconds:g} s") from error
    except OlmocrError:
        raise
    except Exception as error:  # whatever a server sends, or an environment's proxies and certificates cause
        raise InputError(f"{name} cannot be downloaded: {_one_line(error)}") from error


def _status(response: Any) -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()


def _refuse_announced(length: str, name: str, limits: InputLimits) -> None:
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.document_bytes:
        raise InputError(f"{name} has {length[:20]} bytes, more than {limits.document_bytes}")


def _store_of(url: str) -> str:
    """Return the part of a URL that names its store: scheme, bucket, and an account if it has one."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec.core

    scheme = scheme_of(url)
    if scheme not in _SCHEMES:
        schemes = ", ".join(f"{each}://" for each in ("http", "https", *_SCHEMES))
        raise InputError(f"{url} cannot be read: only {schemes} and files can")
    if not url.partition("://")[2].strip("/"):
        raise InputError(f"{url} does not name a place in a store")
    try:
        with _faults_of(url):
            filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise missing_extra(scheme) from error
    return filesystem, path


def version_told(info: dict[str, Any]) -> str:
    """Return a value that changes when a file in a store does, from the store's list; nothing if the list has none."""
    told = (info.get(name) for name in _VERSIONS)
    version = next((str(each) for each in told if each), "")
    return f"{info.get('size')} {version}" if version else ""


def _list(filesystem: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
    """Return what the store reports about each file that a URL's path stands for."""
    if _MAGIC.search(path):
        matching = filesystem.glob(path, detail=True)
        return {name: info for name, info in matching.items() if not is_passed_over(PurePosixPath(name).name)}
    info = filesystem.info(path)
    if info["type"] == "file":
        return {path: info}
    below, found = len(path.rstrip("/")), filesystem.find(path, detail=True)
    return {name: info for name, info in found.items() if not any(map(is_passed_over, name[below:].split("/")))}


@contextlib.contextmanager
def _faults_of(name: str) -> Iterator[None]:
    """Turn a store's errors into sentences: each store's library has its own classes for them."""
    try:
        yield
    except (OlmocrError, ImportError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no {name}") from error
    except PermissionError as error:
        raise InputError(f"{name} may not be read: {_one_line(error)}; see docs/inputs.md about credentials") from error
    except Exception as error:
        raise InputError(f"{name} cannot be read: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
