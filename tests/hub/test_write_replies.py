"""What a Hub that lies says to who writes: each lie is one sentence, and nothing is taken for done."""

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest

from olmocr.errors import HubError
from olmocr.hub.write import Hub, LocalFile, why_not_writable
from olmocr.publish.scan import made_file
from tests.hub.liar import DEEP, HTML, SHA
from tests.hub_server import TOKEN, LoopbackServer

ABOUT = {"id": "a/b", "sha": SHA, "private": False, "siblings": []}
NONSENSE = [b"[1, 2]", b'"x"', b"null", b"5", b"", b"{}", HTML, DEEP, b"\xff\xfe", b'{"name": 5, "id": 5, "sha": 5}']
COMMIT = {"success": True, "commitOid": SHA, "commitUrl": "https://huggingface.co/a/b/commit/x"}


@pytest.fixture
def hub() -> Iterator[SimpleNamespace]:
    """A Hub whose replies a test sets by the end of the path; all others are those of an honest Hub."""
    replies: dict[str, bytes] = {}
    headers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay silent."""

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            path = self.path.partition("?")[0]
            honest = {
                "whoami-v2": {"name": "a", "auth": {"accessToken": {"role": "write"}}},
                "tree": [],
                "preupload": {"files": [{"path": "x.json", "uploadMode": "regular", "shouldIgnore": False}]},
                "commit": COMMIT,
                "about": ABOUT,
            }
            what = next((each for each in honest if f"/{each}" in path), "about")
            body = replies.get(what, json.dumps(honest[what]).encode())
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

    with LoopbackServer(("127.0.0.1", 0), Handler) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield SimpleNamespace(replies=replies, headers=headers, client=Hub(endpoint, TOKEN))


def file() -> LocalFile:
    return made_file("x.json", "{}")


def commit(hub, **options):
    return hub.client.commit("a/b", [file()], [], "add", parent=SHA, revision="main", **options)


def refused(call) -> str:
    with pytest.raises(HubError) as error:
        call()
    assert str(error.value).isprintable()
    assert TOKEN not in str(error.value)
    return str(error.value)


def test_an_honest_hub_is_believed(hub):
    assert hub.client.require_permission("a/b") == "a"
    assert hub.client.read_state("a/b").sha == SHA
    assert commit(hub).sha == SHA


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_refused_wherever_it_is_sent(hub, body):
    for what, call in {
        "whoami-v2": lambda: hub.client.require_permission("a/b"),
        "about": lambda: hub.client.read_state("a/b"),
        "tree": lambda: hub.client.read_state("a/b"),
        "commit": lambda: commit(hub),
        "preupload": lambda: commit(hub),
    }.items():
        hub.replies.clear()
        hub.replies[what] = body
        refused(call)


@pytest.mark.parametrize("sha", ["../../x", "abc", "", None, 5, ["x"], SHA + "\n"])
def test_a_commit_that_is_none_is_refused(hub, sha):
    hub.replies["commit"] = json.dumps({**COMMIT, "commitOid": sha}).encode()
    assert "40 hexadecimal digits" in refused(lambda: commit(hub))
    hub.replies["about"] = json.dumps({**ABOUT, "sha": sha}).encode()
    assert "40 hexadecimal digits" in refused(lambda: hub.client.read_state("a/b"))


@pytest.mark.parametrize(
    "url",
    ["https://huggingface.co/a/b/discussions/x", "nonsense", 5, "https://huggingface.co/a/b/discussions/1/../../x"],
)
def test_a_pull_request_that_is_none_is_refused(hub, url):
    hub.replies["commit"] = json.dumps({**COMMIT, "pullRequestUrl": url}).encode()
    refused(lambda: commit(hub, create_pr=True))


def test_what_is_compressed_is_refused_before_it_grows(hub):
    hub.headers["Content-Encoding"] = "gzip"
    hub.replies["about"] = gzip.compress(json.dumps(ABOUT).encode())
    assert "sends a compressed reply" in refused(lambda: hub.client.read_state("a/b"))


def test_the_token_is_not_sent_to_the_address_where_a_list_continues(hub):
    hub.headers["Link"] = '<http://localhost:1/next>; rel="next"'
    assert "token sent to another host (localhost)" in refused(lambda: hub.client.read_state("a/b"))


@pytest.mark.parametrize(
    "about",
    [
        {"orgs": 5},
        {"orgs": [5, {"name": ["b"]}, {}]},
        {"auth": []},
        {"auth": {"accessToken": "x"}},
        {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": 5}}},
        {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [5, {"entity": 5}]}}}},
        {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [{"entity": {"name": ["b"]}}]}}}},
        {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [{"permissions": 5}]}}}},
    ],
)
def test_whose_the_token_is_may_be_told_in_any_form(about):
    assert why_not_writable({"name": "a", **about}, "b/model") == "b is not its owner, a, or an organisation of theirs"
    assert why_not_writable({"name": "b\x1b[2J", **about}, "c/model").isprintable()
    why_not_writable({"name": "b", **about}, "b/model")
