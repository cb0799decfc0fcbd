import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from olmocr.errors import InputError, MissingDependencyError
from olmocr.inputs.limits import InputLimits
from olmocr.inputs.local_file import local_file, version_of
from olmocr.inputs.sources import find_sources
from olmocr.runtime.extras import install_command
from tests.hub_server import Commit, HubServer, Repository

PDF = b"%PDF-1.7 " + bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/gone"):
            self.send_error(404)
        elif self.path == "/broken.pdf":
            self.send_error(503, "busy\x1b[31m")
        elif self.path == "/moved.pdf":
            self.send_response(302)
            self.send_header("Location", "/a.pdf")
            self.end_headers()
        elif self.path == "/round.pdf":
            self.send_response(302)
            self.send_header("Location", "/round.pdf")
            self.end_headers()
        elif self.path == "/file.pdf":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            self._send()

    def _send(self):
        self.send_response(200)
        claimed = {"/cut.pdf": len(PDF) + 10, "/announced.pdf": 10**15}.get(self.path, len(PDF))
        if self.path != "/endless.pdf":
            self.send_header("Content-Length", str(claimed))
        self.end_headers()
        try:
            if self.path == "/silent.pdf":
                self.server.may_end.wait(5)
            elif self.path in ("/endless.pdf", "/slow.pdf"):
                while not self.server.may_end.wait(0.02 if self.path == "/slow.pdf" else 0):
                    self.wfile.write(b"x" if self.path == "/slow.pdf" else PDF)
            else:
                self.wfile.write(PDF)
        except OSError:  # who asked has hung up
            pass

    def log_message(self, *args):
        """Stay silent."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.may_end = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.may_end.set()
        server.shutdown()


def download(url, scratch, **limits):
    (source,) = find_sources([url])
    with local_file(source, scratch, limits=InputLimits(**limits)) as path:
        return path.read_bytes()


def refusal(url, scratch, **limits):
    with pytest.raises(InputError) as error:
        download(url, scratch, **limits)
    assert not scratch.exists() or list(scratch.iterdir()) == [], "nothing half done stays"
    return str(error.value)


def test_what_a_url_leads_to_is_read_and_its_copy_removed(server, tmp_path):
    assert download(f"{server.url}/a.pdf?page=1#top", tmp_path / "scratch") == PDF
    assert download(f"{server.url}/moved.pdf", tmp_path / "scratch") == PDF
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nothing_is_asked_before_a_document_is_wanted(server):
    find_sources([f"{server.url}/a.pdf"])
    assert server.asked == []


@pytest.mark.parametrize(
    ("path", "sentence", "limits"),
    [
        ("gone.pdf", "cannot be downloaded: the server answered 404 Not Found", {}),
        ("broken.pdf", "cannot be downloaded: the server answered 503", {}),
        ("round.pdf", "cannot be downloaded: Exceeded maximum allowed redirects", {}),
        ("file.pdf", "cannot be downloaded: ", {}),
        ("cut.pdf", "cannot be downloaded: peer closed connection", {}),
        ("announced.pdf", "has 1000000000000000 bytes, more than 1000000", {"document_bytes": 1_000_000}),
        ("endless.pdf", "has more than 1000000 bytes", {"document_bytes": 1_000_000}),
        ("silent.pdf", "cannot be downloaded: no answer for 0.3 s", {"stall_seconds": 0.3}),
        ("slow.pdf", "cannot be downloaded: it takes more than 0.4 s", {"download_seconds": 0.4}),
    ],
)
def test_a_download_that_fails_is_one_sentence(path, sentence, limits, server, tmp_path):
    said = refusal(f"{server.url}/{path}", tmp_path / "scratch", **limits)
    assert said.startswith(f"{server.url}/{path} {sentence}")
    assert "\n" not in said


def test_a_server_that_is_not_there_is_one_sentence(server, tmp_path):
    server.shutdown()
    server.server_close()
    assert "cannot be downloaded: " in refusal(f"{server.url}/a.pdf", tmp_path / "scratch")


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1/a.pdf", "https://exa mple/a.pdf", "http://127.0.0.1:99999/a.pdf"]
)
def test_a_url_that_is_none_is_one_sentence(url, tmp_path):
    with pytest.raises(InputError):
        download(url, tmp_path)


def test_a_password_in_a_url_is_used_and_never_shown(server, tmp_path):
    url = server.url.replace("http://", "http://me:secret@")
    (source,) = find_sources([f"{url}/a.pdf"])
    assert source.name == f"{server.url}/a.pdf"
    assert download(f"{url}/a.pdf", tmp_path) == PDF
    assert server.asked[0][1].startswith("Basic ")
    assert "secret" not in refusal(f"{url}/gone.pdf", tmp_path / "scratch")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/all.zip",
        "s3://bucket/all.tar.gz",
        "https://example.org/list.txt",
        "s3://bucket/all.zip::a.pdf",
    ],
)
def test_an_archive_or_a_list_on_another_machine_is_refused_with_what_to_do(url):
    with pytest.raises(InputError, match="download it and give the copy"):
        find_sources([url])


@pytest.mark.parametrize(("url", "extra"), [("gs://bucket/a.pdf", "gcs"), ("az://container/a.pdf", "azure")])
def test_a_store_whose_extra_is_missing_names_it(url, extra):
    pytest.importorskip("fsspec")
    if __import__("importlib.util", fromlist=["util"]).find_spec({"gcs": "gcsfs", "azure": "adlfs"}[extra]):
        pytest.skip("this one has it")
    with pytest.raises(MissingDependencyError, match=re.escape(install_command(extra))):
        find_sources([url])


@pytest.fixture(scope="module")
def bucket():
    """A bucket on the loopback interface, with three documents, and what else buckets hold."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    import boto3

    before = dict(os.environ)
    s3fs.S3FileSystem.clear_instance_cache()  # those of another module's server, which is gone
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    store = boto3.client("s3")
    store.create_bucket(Bucket="scans")
    for key in ("in/a.pdf", "in/deep/b.PDF", "in/deep/c.png", "in/deep/notes.md", "in/", "other/d.pdf"):
        store.put_object(Bucket="scans", Key=key, Body=PDF + key.encode())
    yield "s3://scans"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    os.environ.clear()
    os.environ.update(before)


def found(*names):
    return [source.name for source in find_sources(names)]


def test_a_prefix_of_a_bucket_stands_for_the_documents_below_it(bucket):
    everything = ["s3://scans/in/a.pdf", "s3://scans/in/deep/b.PDF", "s3://scans/in/deep/c.png"]
    assert found("s3://scans/in/") == found("s3://scans/in") == everything
    assert found("s3://scans/") == found("s3://scans") == [*everything, "s3://scans/other/d.pdf"]


def test_a_pattern_is_followed_in_a_bucket(bucket):
    assert found("s3://scans/*/*.pdf") == ["s3://scans/in/a.pdf", "s3://scans/other/d.pdf"]
    assert found("s3://scans/in/**/*.png") == ["s3://scans/in/deep/c.png"]


def test_a_document_of_a_bucket_is_read_and_its_copy_removed(bucket, tmp_path):
    assert download("s3://scans/in/a.pdf", tmp_path / "scratch") == PDF + b"in/a.pdf"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_document_of_a_bucket_has_one_key_however_it_was_found(bucket):
    (named,), by_prefix = find_sources(["s3://scans/in/a.pdf"]), find_sources(["s3://scans/in"])
    assert named.key == by_prefix[0].key


def test_a_document_that_was_found_in_a_list_has_a_version_which_changes_when_it_does(bucket):
    import boto3

    before = {source.name: version_of(source) for source in find_sources(["s3://scans/in", "s3://scans/other/*.pdf"])}
    assert all(before.values())
    boto3.client("s3").put_object(Bucket="scans", Key="in/a.pdf", Body=PDF + b"another")
    after = {source.name: version_of(source) for source in find_sources(["s3://scans/in", "s3://scans/other/*.pdf"])}
    boto3.client("s3").put_object(Bucket="scans", Key="in/a.pdf", Body=PDF + b"in/a.pdf")
    assert [name for name in before if before[name] != after[name]] == ["s3://scans/in/a.pdf"]
    (named,) = find_sources(["s3://scans/in/a.pdf"])
    assert version_of(named) == "", "a name alone is asked nothing"


def test_what_a_bucket_does_not_hold_is_one_sentence(bucket, tmp_path):
    assert refusal("s3://scans/gone.pdf", tmp_path / "scratch") == "there is no s3://scans/gone.pdf"
    with pytest.raises(InputError, match=r"there is no s3://scans/gone; there is no document at s3://scans/\*\.gif"):
        found("s3://scans/gone", "s3://scans/*.gif")


def test_a_url_that_names_no_bucket_is_refused_and_not_taken_for_all_of_them(bucket):
    with pytest.raises(InputError, match="does not name a place in a store"):
        found("s3://")


def test_a_document_of_a_bucket_that_is_too_large_is_refused(bucket, tmp_path):
    assert "has more than 1000 bytes" in refusal("s3://scans/in/a.pdf", tmp_path / "scratch", document_bytes=1000)


def test_documents_of_a_repository_on_the_hub_are_found_and_read(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("a.pdf", "b.pdf", "README.md"):
        (folder / name).write_bytes(PDF + name.encode())
    code = (
        "from pathlib import Path; from olmocr.inputs.local_file import local_file\n"
        "from olmocr.inputs.sources import find_sources\n"
        "for source in find_sources(['hf://me/scans', 'hf://me/scans/*.pdf', 'hf://me/scans/gone.pdf']):\n"
        "    try:\n"
        "        with local_file(source, Path('scratch')) as path: print(source.name, path.read_bytes()[-5:])\n"
        "    except Exception as error: print(source.name, error)"
    )
    with HubServer({"me/scans": Repository({"main": Commit(folder)})}) as hub:
        # A process of its own, since the Hub's library reads its environment once, when it is imported.
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.stdout.splitlines() == [
        "hf://me/scans/a.pdf b'a.pdf'",
        "hf://me/scans/b.pdf b'b.pdf'",
        "hf://me/scans/gone.pdf there is no hf://me/scans/gone.pdf",
    ], done.stderr
