"""A Hub on the loopback interface that can be written to, in the protocol that huggingface_hub's client speaks.

As on the real one: a commit goes through whole or not at all, and only onto the parent that it names; large files lie
in a storage of their own, on another host, to which no token belongs; a file is in a commit only if it was uploaded.
Everything is in memory. What goes wrong is a ``Fault``, put into ``faults`` before it happens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub_server import LoopbackServer

TOKEN = "hf_" + "LoopbackWriter" * 3

_LARGE = (".safetensors",)
_GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether it lies in the large file storage."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls it: the hash of the file, or of what stands for it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        content = pointer.encode() if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        size = len(self.content)
        lfs = {"lfs": {"oid": self.sha256, "size": size, "pointerSize": 134}} if self.large else {}
        return {"type": "file", "path": path, "size": size, "oid": self.oid, **lfs}


@dataclass(frozen=True)
class Commit:
    """All files by path after a commit, and its parent's name."""

    files: dict[str, Blob]
    parent: str | None
    message: str

    @property
    def sha(self) -> str:
        named = {path: blob.oid for path, blob in self.files.items()}
        return hashlib.sha1(json.dumps([named, self.parent, self.message]).encode()).hexdigest()


@dataclass
class Repository:
    """Commits by branch, the newest last; pull requests are branches called refs/pr/1 …"""

    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches.setdefault("main", [Commit({".gitattributes": Blob(_GITATTRIBUTES, False)}, None, "initial")])

    def find(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((each for log in self.branches.values() for each in log if each.sha == revision), None)

    def add(self, files: dict[str, Blob], message: str = "by somebody", branch: str = "main") -> Commit:
        before = self.branches[branch][-1]
        commit = Commit({**before.files, **files}, before.sha, message)
        self.branches[branch].append(commit)
        return commit


@dataclass
class Fault:
    """What happens, *times* times, to requests of this method whose path matches, from *after* such ones on.

    A *status* is answered; *cut* breaks the connection after so many bytes of the request's body; of a body longer
    than *keep* bytes the rest is lost; *lost* does what is asked and loses the answer; *meanwhile* is called, and then
    the request is answered as ever.
    """

    method: str
    path: str
    status: int | None = None
    message: str = "not this time"
    cut: int | None = None
    keep: int | None = None
    lost: bool = False
    meanwhile: Callable[[], object] | None = None
    times: int = 1
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def strikes(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.path, path):
            return False
        self.after -= 1
        if self.after >= 0 or self.times == 0:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Asked:
    """A request, with how many bytes its body had and whether a token came with it."""

    method: str
    host: str
    path: str
    nbytes: int
    with_token: bool


@dataclass
class Account:
    """Whose token ``TOKEN`` is: *role* is the token's, *organisations* the person's role in each."""

    name: str = "tester"
    role: Literal["read", "write", "fineGrained"] = "write"
    organisations: dict[str, str] = field(default_factory=dict)
    may_write_to: tuple[str, ...] = ()  # what a fine-grained token is for

    def about(self) -> dict[str, object]:
        token: dict[str, object] = {"displayName": "loopback", "role": self.role}
        if self.role == "fineGrained":
            scopes = [
                {"entity": {"type": "user", "name": each}, "permissions": ["repo.write"]} for each in self.may_write_to
            ]
            token["fineGrained"] = {"global": [], "scoped": scopes}
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.organisations.items()]
        return {"type": "user", "name": self.name, "orgs": orgs, "auth": {"accessToken": token}}

    def may_write(self, namespace: str) -> bool:
        mine = namespace == self.name or self.organisations.get(namespace, "read") != "read"
        return mine and (self.role == "write" or namespace in self.may_write_to)


class _RefusalError(Exception):
    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message.replace("\n", " "), **(headers or {})}


class WritableHub(LoopbackServer):
    """``with WritableHub() as hub: HfApi(endpoint=hub.endpoint, token=TOKEN)``."""

    daemon_threads = True

    def __init__(self, account: Account | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.account = account or Account()
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.collections: dict[str, list[str]] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.tampered: dict[str, bytes] = {}  # what is kept instead of a file, by path
        self.parts_of: int | None = None  # bytes a part, where large files are taken in parts
        self.lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}"

    def puts(self) -> list[str]:
        """Return which large files' contents were uploaded, one entry an upload."""
        return [each.path.rpartition("/")[2] for each in self.asked if each.method == "PUT"]

    def writes(self) -> list[str]:
        """Return the paths of requests that change a repository."""
        return [each.path for each in self.asked if re.search(r"/(create|commit/|branch/|items|stored/)", each.path)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client went away."""


_JSON = {"Content-Type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]


def _json(value: object, status: int = 200) -> Answer:
    return status, _JSON, json.dumps(value).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # or the body would wait for the client to acknowledge the headers, a twentieth of a second
    server: WritableHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self._fault(path)
        if fault and fault.cut is not None:
            self._remember(path, len(self.rfile.read(min(fault.cut, int(self.headers["Content-Length"] or 0)))))
            self._reset()
            return
        body = self._body()[: fault.keep if fault else None]
        self._remember(path, len(body))
        try:
            if fault and fault.meanwhile:
                fault.meanwhile()
            elif fault and fault.status:
                raise _RefusalError(fault.status, fault.message, headers=fault.headers)
            status, headers, content = self._answer(path, body)
        except _RefusalError as refusal:
            status, headers, content = (
                refusal.status,
                {**_JSON, **refusal.headers},
                json.dumps({"error": str(refusal)}).encode(),
            )
        if fault and fault.lost:
            self._reset()
        else:
            self._send(status, headers, content)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _fault(self, path: str) -> Fault | None:
        with self.server.lock:
            return next((each for each in self.server.faults if each.strikes(self.command, path)), None)

    def _remember(self, path: str, nbytes: int) -> None:
        host = self.headers["Host"].partition(":")[0]
        with self.server.lock:
            asked = Asked(self.command, host, path, nbytes, self.headers["Authorization"] is not None)
            self.server.asked.append(asked)

    def _reset(self) -> None:
        """Break the connection off, as a network does that fails."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _chunks(self) -> Iterator[bytes]:
        while length := int(self.rfile.readline().strip() or b"0", 16):
            yield self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer(self, path: str, body: bytes) -> Answer:
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                with self.server.lock:
                    return answer(self, body, *match.groups())
        raise _RefusalError(404, f"this server knows no {self.command} {path}")

    def _require_token(self, namespace: str | None = None) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            raise _RefusalError(401, "Invalid credentials in Authorization header")
        if namespace is not None and not self.server.account.may_write(namespace):
            raise _RefusalError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def _whoami(self, body: bytes) -> Answer:
        self._require_token()
        return _json(self.server.account.about())

    def _create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        organisation = asked.get("organization") or self.server.account.name
        self._require_token(organisation)
        name = f"{organisation}/{asked['name']}"
        url = {"url": f"{self.server.endpoint}/{name}", "name": name}
        if name in self.server.repositories:
            return _json({"error": "You already created this model repo", **url}, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.server.repositories[name] = Repository(private=private)
        return _json(url)

    def _validate(self, body: bytes) -> Answer:
        text = json.loads(body)["content"]
        errors = [] if re.match(r"---\n.+?\n---\n", text, re.DOTALL) else [{"message": "no metadata"}]
        return _json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _repository(self, name: str, revision: str) -> tuple[Repository, Commit]:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.headers["Authorization"] is None):
            raise _RefusalError(404 if self.headers["Authorization"] else 401, "Repository not found", "RepoNotFound")
        commit = repository.find(revision)
        if commit is None:
            raise _RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, commit

    def _revision(self, body: bytes, name: str, revision: str = "main") -> Answer:
        repository, commit = self._repository(name, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        about = {"id": name, "modelId": name, "sha": commit.sha, "private": repository.private, "siblings": siblings}
        card = commit.files.get("README.md")
        said = yaml.safe_load(card.content.split(b"---")[1]) if card and card.content.startswith(b"---\n") else {}
        return _json({**about, "cardData": said} if said else about)

    def _tree(self, body: bytes, name: str, revision: str) -> Answer:
        _, commit = self._repository(name, revision)
        return _json([blob.entry(path) for path, blob in commit.files.items()])

    def _branch(self, body: bytes, name: str, branch: str) -> Answer:
        self._require_token(name.partition("/")[0])
        repository, commit = self._repository(name, "main")
        if branch in repository.branches:
            return _json({"error": "Reference already exists"}, 409)
        repository.branches[branch] = [commit]
        return _json({})

    def _preupload(self, body: bytes, name: str, revision: str) -> Answer:
        self._require_token()
        _, commit = self._repository(name, revision)
        files = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            assert len(base64.b64decode(asked["sample"])) == min(asked["size"], 512)
            there = commit.files.get(path)
            oid = (there.sha256 if there.large else there.oid) if there else None
            mode = "lfs" if path.endswith(_LARGE) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _json({"files": files})

    def _batch(self, body: bytes, name: str) -> Answer:
        self._require_token()
        self._repository(name, "main")
        asked = json.loads(body)
        assert (asked["operation"], asked["hash_algo"]) == ("upload", "sha256")
        return _json({"transfer": "basic", "objects": [self._object(name, each) for each in asked["objects"]]})

    def _object(self, name: str, asked: dict[str, Any]) -> dict[str, object]:
        oid, size = asked["oid"], asked["size"]
        if oid in self.server.stored:
            return {"oid": oid, "size": size}
        upload: dict[str, object] = {"href": f"{self.server.storage}/stored/{oid}"}
        if self.server.parts_of:
            parts = range(1, -(-size // self.server.parts_of) + 1)
            urls = {str(part): f"{self.server.storage}/stored/{oid}/{part}" for part in parts}
            upload = {
                "href": f"{self.server.endpoint}/complete/{oid}",
                "header": {"chunk_size": str(self.server.parts_of), **urls},
            }
        verify = {"href": f"{self.server.endpoint}/{name}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _store(self, body: bytes, oid: str, part: str | None = None) -> Answer:
        # A signed address is all that the storage takes; with a second way to sign in it answers 400.
        if self.headers["Authorization"] is not None:
            raise _RefusalError(400, "Only one auth mechanism allowed")
        self.server.stored[oid + (f"/{part}" if part else "")] = body
        return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""

    def _complete(self, body: bytes, oid: str) -> Answer:
        parts = [f"{oid}/{part['partNumber']}" for part in json.loads(body)["parts"]]
        self.server.stored[oid] = b"".join(self.server.stored.pop(part) for part in parts)
        return _json({})

    def _verify(self, body: bytes, name: str) -> Answer:
        self._require_token()
        asked = json.loads(body)
        if hashlib.sha256(self.server.stored.get(asked["oid"], b"")).hexdigest() != asked["oid"]:
            self.server.stored.pop(asked["oid"], None)
            raise _RefusalError(422, "The object is not what it should be")
        return _json({})

    def _commit(self, body: bytes, name: str, revision: str) -> Answer:
        self._require_token()
        create_pr = "create_pr" in parse_qs(urlsplit(self.path).query)
        repository, before = self._repository(name, revision)
        if not create_pr and not revision.startswith("refs/pr/"):  # whose author may go on with it
            self._require_token(name.partition("/")[0])
        header, *changes = [json.loads(line) for line in body.splitlines()]
        assert header["key"] == "header"
        if header["value"].get("parentCommit", before.sha) != before.sha:
            raise _RefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(before.files)
        for change in changes:
            self._change(files, change["key"], change["value"])
        commit = Commit(files, before.sha, header["value"]["summary"])
        number = sum(branch.startswith("refs/pr/") for branch in repository.branches) + 1
        branch = f"refs/pr/{number}" if create_pr else revision
        repository.branches.setdefault(branch, []).append(commit)
        url = f"{self.server.endpoint}/{name}"
        about = {"success": True, "commitOid": commit.sha, "commitUrl": f"{url}/commit/{commit.sha}", "hookOutput": ""}
        return _json({**about, "pullRequestUrl": f"{url}/discussions/{number}" if create_pr else None})

    def _change(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "deletedFile":
            del files[path]
        elif key == "file":
            assert value["encoding"] == "base64"
            files[path] = Blob(self.server.tampered.get(path, base64.b64decode(value["content"])), False)
        elif key == "lfsFile":
            content = self.server.stored.get(value["oid"])
            if content is None or len(content) != value["size"]:
                raise _RefusalError(400, f"LFS pointer of {path} points to a file that does not exist")
            files[path] = Blob(self.server.tampered.get(path, content), True)
        else:
            raise _RefusalError(400, f"unknown operation {key}")

    def _collect(self, body: bytes, slug: str) -> Answer:
        self._require_token(slug.partition("/")[0])
        if slug not in self.server.collections:
            raise _RefusalError(404, "Collection not found")
        item = json.loads(body)["item"]["id"]
        if item in self.server.collections[slug]:
            return _json({"error": "Item already exists in collection"}, 409)
        self.server.collections[slug].append(item)
        return self._collection(body, slug)

    def _collection(self, body: bytes, slug: str) -> Answer:
        if slug not in self.server.collections:
            raise _RefusalError(404, "Collection not found")
        about = {"slug": slug, "title": "t", "owner": {"name": "o"}, "lastUpdated": "2026-01-01T00:00:00.000Z"}
        return _json({**about, "items": [], "position": 0, "private": False, "theme": "blue", "upvotes": 0})

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> Answer:
        _, commit = self._repository(name, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise _RefusalError(404, f"{name} has no {path}", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"'}
        if blob.large:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
            return 302, {**headers, "Location": f"{self.server.storage}/content/{name}/{commit.sha}/{path}"}, b""
        return 200, headers, blob.content

    def _content(self, body: bytes, name: str, revision: str, path: str) -> Answer:
        commit = self.server.repositories[name].find(revision)  # a signed address: it needs no token
        assert commit is not None
        blob = commit.files[path]
        return 200, {"ETag": f'"{blob.sha256}"'}, blob.content


_REPO = r"([^/]+/[^/]+)"
_REVISION = r"([^/]+|refs/pr/\d+)"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", "/api/whoami-v2", _Handler._whoami),
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("GET", f"/api/models/{_REPO}", _Handler._revision),
    ("GET", f"/api/models/{_REPO}/revision/{_REVISION}", _Handler._revision),
    ("GET", f"/api/models/{_REPO}/tree/{_REVISION}", _Handler._tree),
    ("POST", f"/api/models/{_REPO}/branch/([^/]+)", _Handler._branch),
    ("POST", f"/api/models/{_REPO}/preupload/{_REVISION}", _Handler._preupload),
    ("POST", f"/api/models/{_REPO}/commit/{_REVISION}", _Handler._commit),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler._batch),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/verify", _Handler._verify),
    ("PUT", "/stored/([0-9a-f]{64})", _Handler._store),
    ("PUT", r"/stored/([0-9a-f]{64})/(\d+)", _Handler._store),
    ("POST", "/complete/([0-9a-f]{64})", _Handler._complete),
    ("POST", f"/api/collections/{_REPO}/items", _Handler._collect),
    ("GET", f"/api/collections/{_REPO}", _Handler._collection),
    ("GET HEAD", f"/{_REPO}/resolve/{_REVISION}/(.+)", _Handler._resolve),
    ("GET HEAD", f"/content/{_REPO}/([^/]+)/(.+)", _Handler._content),
]
