"""A Hub on the loopback interface: folders served in the part of the Hub's protocol that a download speaks.

As on the real one, a gated repository can be looked at but not downloaded, weights lie on another host
(to which no token belongs), and who is not logged in is told 401 where 404 would say that a name exists.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_LoopbackSecret"
WEIGHTS = ".safetensors"

_PIECE = 1 << 16

_API = re.compile(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)")
_ABOUT = re.compile(r"/api/models/([^/]+/[^/]+)")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORED = re.compile(r"/stored/([^/]+/[^/]+)/([^/]+)/(.+)")


@dataclass(frozen=True)
class Commit:
    """A folder as it is now."""

    folder: Path

    @cached_property
    def files(self) -> dict[str, str]:
        """Each file's path and SHA-256."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    @cached_property
    def git_names(self) -> dict[str, str]:
        """Each file's path and what git calls its content."""
        contents = {path: (self.folder / path).read_bytes() for path in self.files}
        return {
            path: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() for path, content in contents.items()
        }

    @cached_property
    def sha(self) -> str:
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()[:40]

    def siblings(self, *, with_blobs: bool) -> list[dict[str, object]]:
        return [
            self._sibling(path, sha256) if with_blobs else {"rfilename": path} for path, sha256 in self.files.items()
        ]

    def _sibling(self, path: str, sha256: str) -> dict[str, object]:
        size = (self.folder / path).stat().st_size
        lfs = {"lfs": {"sha256": sha256, "size": size, "pointerSize": 134}} if path.endswith(WEIGHTS) else {}
        return {"rfilename": path, "size": size, "blobId": self.git_names[path], **lfs}

    def tree(self) -> list[dict[str, object]]:
        return [self._entry(path, sha256) for path, sha256 in self.files.items()]

    def _entry(self, path: str, sha256: str) -> dict[str, object]:
        size = (self.folder / path).stat().st_size
        lfs = {"lfs": {"oid": sha256, "size": size, "pointerSize": 134}} if path.endswith(WEIGHTS) else {}
        return {"type": "file", "path": path, "size": size, "oid": self.git_names[path], **lfs}


@dataclass(frozen=True)
class Repository:
    """Commits by branch. *private*: nobody sees it without the token; the others: nobody downloads it."""

    branches: Mapping[str, Commit]
    access: Literal["public", "private", "gated", "disabled", "down"] = "public"

    def commit(self, revision: str) -> Commit | None:
        return next((each for name, each in self.branches.items() if revision in (name, each.sha)), None)


@dataclass(frozen=True)
class Asked:
    """A request, as a test may want to know it. *path* is a file's path in its repository, or the API's path."""

    method: str
    host: str
    path: str
    byte_range: str | None
    with_token: bool


@dataclass(frozen=True)
class Cut:
    """Break the connection after *nbytes* of an answer's body: closed in order, or reset."""

    nbytes: int
    how: Literal["closed", "reset"]


class _RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


class LoopbackServer(ThreadingHTTPServer):
    """Serves in a thread of its own while the context lasts."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()


class HubServer(LoopbackServer):
    """``with HubServer({"org/name": Repository({"main": Commit(folder)})}) as hub: hub.endpoint``."""

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.asked: list[Asked] = []
        self.sent: Counter[str] = Counter()  # bytes of bodies, by file
        self.cut_once: dict[str, Cut] = {}  # by file
        self.refuse_once: dict[str, int] = {}  # status, by file or the API's path
        self.knows_ranges = True
        self.lists_sizes = True
        self.seconds_a_piece = 0.0  # of weights
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/stored"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def setup(self) -> None:
        # Or the kernel would take megabytes that nobody reads, and they would count as sent.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        super().setup()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            if match := _STORED.fullmatch(path):
                self._send_stored(*match.groups())
            elif match := _RESOLVE.fullmatch(path):
                self._resolve(*match.groups())
            elif match := _API.fullmatch(path):
                self._describe(path, *match.groups())
            elif match := _ABOUT.fullmatch(path):
                self._describe(path, match[1], "revision", "main")
            else:
                raise _RefusalError(404, "NotFound", f"this server knows no {path}")
        except _RefusalError as refusal:
            self._send(refusal.status, refusal.headers, b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def _describe(self, path: str, name: str, what: str, revision: str) -> None:
        self._remember(path)
        repository, commit = self._find(name, revision)
        about: object = commit.tree()
        if what == "revision":
            with_blobs = self.server.lists_sizes and "blobs" in parse_qs(urlsplit(self.path).query)
            siblings = commit.siblings(with_blobs=with_blobs)
            private = repository.access == "private"
            about = {"id": name, "sha": commit.sha, "private": private, "siblings": siblings}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(about).encode())

    def _resolve(self, name: str, revision: str, file: str) -> None:
        self._remember(file)
        repository, commit = self._find(name, revision)
        if repository.access == "gated":
            raise _RefusalError(403, "GatedRepo", f"Access to model {name} is restricted")
        if file not in commit.files:
            raise _RefusalError(404, "EntryNotFound", f"{name} has no {file}")
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{commit.git_names[file]}"'}
        if file.endswith(WEIGHTS):
            size = str((commit.folder / file).stat().st_size)
            headers |= {"X-Linked-Etag": f'"{commit.files[file]}"', "X-Linked-Size": size}
            self._send(302, {**headers, "Location": f"{self.server.storage}/{name}/{commit.sha}/{file}"}, b"")
        else:
            self._send_file(commit, file, headers)

    def _send_stored(self, name: str, revision: str, file: str) -> None:
        self._remember(file)
        commit = self.server.repositories[name].commit(revision)
        assert commit is not None
        self._send_file(commit, file, {"ETag": f'"{commit.files[file]}"'})

    def _find(self, name: str, revision: str) -> tuple[Repository, Commit]:
        authorization = self.headers["Authorization"]
        if authorization not in (None, f"Bearer {TOKEN}"):
            # The real one says this without the token; a mirror may not be so careful.
            raise _RefusalError(401, "", f"Invalid credentials in Authorization header: {authorization}")
        repository = self.server.repositories.get(name)
        if repository is None or (repository.access == "private" and not authorization):
            raise _RefusalError(404 if authorization else 401, "RepoNotFound", "Repository not found")
        if repository.access == "disabled":
            raise _RefusalError(403, "", "Access to this resource is disabled.")
        if repository.access == "down":
            raise _RefusalError(500, "", "Internal Error - We're working hard to fix this as soon as possible!")
        commit = repository.commit(revision)
        if commit is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _send_file(self, commit: Commit, file: str, headers: dict[str, str]) -> None:
        body = (commit.folder / file).read_bytes()
        cut = self.server.cut_once.pop(file, None) if self.command == "GET" else None
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "") if self.server.knows_ranges else None
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            content_range = f"bytes {first}-{last}/{len(body)}"
            self._send(206, {**headers, "Content-Range": content_range}, body[first : last + 1], cut, file)
        else:
            self._send(200, {**headers, "Accept-Ranges": "bytes"}, body, cut, file)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, cut: Cut | None = None, file: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body[: cut.nbytes] if cut else body, file)
        if cut:
            self._break(cut)

    def _send_body(self, body: bytes, file: str | None) -> None:
        """Send piece by piece and count, so that a client that has enough is seen to stop."""
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            if file is not None:
                self.server.sent[file] += len(piece)
                if file.endswith(WEIGHTS):
                    time.sleep(self.server.seconds_a_piece)
            try:
                self.wfile.write(piece)
            except ConnectionError:
                self.close_connection = True
                return

    def _break(self, cut: Cut) -> None:
        self.close_connection = True
        if cut.how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # or it would hold the socket open
            self.connection.close()

    def _remember(self, path: str) -> None:
        host = self.headers["Host"].partition(":")[0]
        with_token = self.headers["Authorization"] is not None
        self.server.asked.append(Asked(self.command, host, path, self.headers["Range"], with_token))
        if status := self.server.refuse_once.pop(path, None):
            raise _RefusalError(status, "", "not this time")
