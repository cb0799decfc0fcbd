"""A Hub that lies: a repository for each lie, otherwise honest. What is asked of it goes through the real client."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_server import LoopbackServer

SHA = "ab" * 20
FILES = {
    "config.json": b'{"a": 1}',
    "tokenizer.json": b"{}" * 600,
    "model.safetensors": b"\2\0\0\0\0\0\0\0{}" + b"w" * 5000,
}
JSON = "application/json"


@dataclass
class Reply:
    """What is sent; *body* may be pieces without an end, sent in chunks."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def siblings() -> list[dict[str, Any]]:
    return [sibling(name, content) for name, content in FILES.items()]


def sibling(name: str, content: bytes = b"{}") -> dict[str, Any]:
    about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_name(content)}
    if name.endswith(".safetensors"):
        about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return about


def described(**changes: Any) -> Callable[[Reply, str, str], Reply]:
    """Return a lie in the description of a repository, and the same in its tree."""

    def lie(reply: Reply, what: str, name: str) -> Reply:
        if what not in ("about", "tree"):
            return reply
        about = {"id": "a/b", "sha": SHA, "private": False, "siblings": siblings(), **changes}
        return as_json(about if what == "about" else as_tree(about["siblings"]))

    return lie


def listed(change: Callable[[dict[str, Any]], object]) -> Callable[[Reply, str, str], Reply]:
    """Return a lie about the first file, and about the weights."""
    files = siblings()
    change(files[0])
    change(files[-1])
    return described(siblings=files)


def also(*names: str) -> Callable[[Reply, str, str], Reply]:
    return described(siblings=[*siblings(), *map(sibling, names)])


def as_tree(files: Any) -> Any:
    if not isinstance(files, list):
        return files
    return [
        {
            "type": "file",
            "path": each.get("rfilename"),
            "size": each.get("size"),
            "oid": each.get("blobId"),
            **({"lfs": {**each["lfs"], "oid": each["lfs"].get("sha256")}} if isinstance(each.get("lfs"), dict) else {}),
        }
        if isinstance(each, dict)
        else each
        for each in files
    ]


def as_json(value: Any) -> Reply:
    return Reply(headers={"Content-Type": JSON}, body=json.dumps(value).encode())


def replying(*whats: str, **changes: Any) -> Callable[[Reply, str, str], Reply]:
    """Return a lie that is another reply to what is asked: about, tree or file."""

    def lie(reply: Reply, what: str, name: str) -> Reply:
        if what not in whats:
            return reply
        headers = {**reply.headers, **changes.get("headers", {})}
        body = changes.get("body", reply.body)
        return Reply(changes.get("status", reply.status), headers, body() if callable(body) else body)

    return lie


def changed_bytes(reply: Reply, what: str, name: str) -> Reply:
    if what == "file" and isinstance(reply.body, bytes):
        reply.body = reply.body[:-1] + b"?"
    return reply


def endless() -> Iterator[bytes]:
    return itertools.repeat(b"x" * 65536)


NOT_FOUND = {"X-Error-Code": "EntryNotFound"}
HTML = b"<!doctype html><title>Log in to the network</title>"
DEEP = b"[" * 200_000

# Each repository's lie.
LIES: dict[str, Callable[[Reply, str, str], Reply]] = {
    "sha-leads-out": described(sha="../../../../outside"),
    "sha-absolute": described(sha="/tmp/outside"),
    "sha-short": described(sha="abc"),
    "sha-upper": described(sha="AB" * 20),
    "sha-newline": described(sha=SHA + "\n"),
    "sha-null": described(sha=None),
    "sha-number": described(sha=5),
    "private-text": described(private="no"),
    "siblings-text": described(siblings="config.json"),
    "siblings-object": described(siblings={"rfilename": "config.json"}),
    "siblings-of-text": described(siblings=["config.json"]),
    "siblings-of-null": described(siblings=[None]),
    "tags-number": described(tags=5, cardData=[1], lastModified=7, safetensors=[1], config="x", gguf=3),
    "last-modified": described(lastModified="yesterday"),
    "name-leads-out": also("../outside.json"),
    "name-leads-out-within": also("a/../../../../outside.json"),
    "name-absolute": also("/tmp/outside.json"),
    "name-backslash": also("..\\outside.json"),
    "name-drive": also("C:outside.json"),
    "name-stream": also("config.json:outside.json"),
    "name-control": also("con\x1b[2Jfig.json"),
    "name-zero": also("a\0.json"),
    "name-newline": also("a\n.json"),
    "name-turned": also("a\u202e.json"),
    "name-half": also("\ud800.json"),
    "name-empty-part": also("a//b.json"),
    "name-dot": also("./b.json"),
    "name-empty": also(""),
    "name-long": also("a" * 300 + ".json"),
    "name-deep": also("a/" * 600 + "b.json"),
    "name-reserved": also("NUL.json"),
    "name-collides": also("Config.json"),
    "name-collides-composed": also("\u00e9.json", "e\u0301.json"),
    "name-number": listed(lambda file: file.update(rfilename=5)),
    "name-null": listed(lambda file: file.update(rfilename=None)),
    "size-text": listed(lambda file: file.update(size="5")),
    "size-negative": listed(lambda file: file.update(size=-1)),
    "size-float": listed(lambda file: file.update(size=5.5)),
    "size-true": listed(lambda file: file.update(size=True)),
    "size-huge": listed(lambda file: file.update(size=10**30)),
    "size-other": listed(lambda file: file.update(size=file["size"] + 1)),
    "size-of-settings": listed(lambda file: file.update(size=10**12)),
    "hash-text": listed(lambda file: file.update(blobId="../outside")),
    "hash-other": listed(lambda file: file.update(blobId="0" * 40)),
    "hash-other-of-weights": listed(lambda file: "lfs" in file and file["lfs"].update(sha256="0" * 64)),
    "disk-full": listed(lambda file: "lfs" in file and [file.update(size=10**13), file["lfs"].update(size=10**13)]),
    "lfs-list": listed(lambda file: file.update(lfs=[1])),
    "lfs-text": listed(lambda file: file.update(lfs="x")),
    "lfs-empty": listed(lambda file: file.update(lfs={"x": 1})),
    "lfs-two-sizes": listed(lambda file: file.update(lfs={"sha256": "0" * 64, "size": 5, "pointerSize": 1})),
    "lfs-hash-short": listed(lambda file: file.update(lfs={"sha256": "00", "size": file["size"], "pointerSize": 1})),
    "bytes-other": changed_bytes,
    "about-list": replying("about", body=b"[1, 2]"),
    "about-text": replying("about", body=b'"x"'),
    "about-null": replying("about", body=b"null"),
    "about-number": replying("about", body=b"5"),
    "about-empty": replying("about", body=b""),
    "about-html": replying("about", body=HTML, headers={"Content-Type": "text/html"}),
    "about-deep": replying("about", body=DEEP),
    "about-binary": replying("about", body=b"\xff\xfe\0"),
    "about-no-keys": replying("about", body=b"{}"),
    "about-endless": replying("about", body=endless),
    "about-gzip": replying("about", body=gzip.compress(b" " * (1 << 20)), headers={"Content-Encoding": "gzip"}),
    "about-204": replying("about", status=204, body=b""),
    "about-redirects-to-itself": replying("about", status=302, headers={"Location": "?again"}),
    "about-redirects-to-a-file": replying("about", status=302, headers={"Location": "file:///etc/passwd"}),
    "about-redirects-to-nonsense": replying("about", status=302, headers={"Location": "http://[::1"}),
    "tree-object": replying("tree", body=b'{"a": 1}'),
    "tree-of-text": replying("tree", body=b'["config.json"]'),
    "tree-html": replying("tree", body=HTML),
    "tree-null": replying("tree", body=b"null"),
    "tree-leads-out": replying("tree", body=b'[{"type": "file", "path": "../out.json", "size": 1, "oid": "00"}]'),
    "tree-no-keys": replying("tree", body=b'[{"type": "file"}]'),
    "tree-goes-on-elsewhere": replying("tree", headers={"Link": '<http://localhost:1/next>; rel="next"'}),
    "file-html": replying("file", body=HTML, headers={"Content-Type": "text/html"}),
    "file-empty": replying("file", body=b""),
    "file-endless": replying("file", body=endless),
    "file-gzip": replying("file", body=gzip.compress(b" " * (1 << 20)), headers={"Content-Encoding": "gzip"}),
    "file-404": replying("file", status=404, headers=NOT_FOUND, body=b""),
    "file-etag-leads-out": replying("file", headers={"ETag": '"../../../../outside"'}),
    "file-etag-linked-leads-out": replying("file", headers={"X-Linked-Etag": '"/tmp/outside"'}),
    "file-etag-none": replying("file", headers={"ETag": ""}),
    "file-commit-leads-out": replying("file", headers={"X-Repo-Commit": "../../../../outside"}),
    "file-missing-leads-out": replying("file", status=404, headers={"X-Repo-Commit": "../x", **NOT_FOUND}),
    "file-size-text": replying("file", headers={"X-Linked-Size": "many"}),
    "file-size-negative": replying("file", headers={"X-Linked-Size": "-5"}),
    "file-size-huge": replying("file", headers={"X-Linked-Size": "9" * 30}),
    "file-redirects-to-a-file": replying("file", status=302, headers={"Location": "file:///etc/passwd"}),
    "file-redirects-to-nonsense": replying("file", status=302, headers={"Location": "http://[::1"}),
    "file-redirects-to-itself": replying("file", status=302, headers={"Location": "?again"}),
    "file-of-another-commit": replying("file", headers={"X-Repo-Commit": "cd" * 20}),
    "waits-for-ever": replying("about", status=429, headers={"Retry-After": "999999999"}, body=b""),
    "waits-for-ever-too": replying("tree", status=429, headers={"RateLimit": '"api";r=0;t=999999999'}, body=b""),
    "warns": replying("about", headers={"X-HF-Warning": "\x1b[2Jhello"}, status=500, body=b""),
}  # fmt: skip


class Liar(LoopbackServer):
    """``Liar()`` has a repository lie/NAME for each of LIES, and lie/none, which is honest."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.tokens: set[tuple[str, str | None]] = set()  # host and header of every request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that has enough breaks the connection off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def do_GET(self) -> None:
        self.server.tokens.add((self.headers["Host"], self.headers["Authorization"]))
        path = unquote(urlsplit(self.path).path)
        owner_and_name = path.removeprefix("/api/models").split("/")[1:3]
        lie = LIES.get(owner_and_name[-1], lambda reply, what, name: reply)
        self._send(lie(*self._honest(path)))

    do_HEAD = do_GET  # noqa: N815

    def _honest(self, path: str) -> tuple[Reply, str, str]:
        if "/resolve/" in path:
            name = path.split("/resolve/", 1)[1].split("/", 1)[1]
            content = FILES.get(name, b"{}")
            large = name.endswith(".safetensors")
            etag = hashlib.sha256(content).hexdigest() if large else git_name(content)
            return Reply(200, {"X-Repo-Commit": SHA, "ETag": f'"{etag}"'}, content), "file", name
        if "/tree/" in path:
            return as_json(as_tree(siblings())), "tree", ""
        return as_json({"id": "a/b", "sha": SHA, "private": False, "siblings": siblings()}), "about", ""

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if isinstance(reply.body, bytes):
            self.send_header("Content-Length", str(len(reply.body)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(reply.body, bytes):
            self.wfile.write(reply.body)
            return
        for piece in reply.body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
