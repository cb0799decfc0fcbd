import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse

import pytest

from olmocr.errors import UsageError
from olmocr.runtime.extras import install_command
from olmocr.viewer.catalogue import Choice
from olmocr.viewer.pages import Look
from olmocr.viewer.serve import ServedSite, address, make_server, set_site
from olmocr.viewer.site import opened_catalogue
from tests.viewer.workspaces import write_record

VIEWER = [sys.executable, "-m", "olmocr.viewer"]


@pytest.fixture
def server(tmp_path):
    write_record(tmp_path / "ws", ["# A page", "two Wörds </p> here"])
    write_record(tmp_path / "ws", ["other words"], name="b.pdf", file="output_b.jsonl")
    write_record(tmp_path / "ws", [], name="c.pdf", file="c.json", failed="broken")
    (tmp_path / "ws/secret.txt").write_text("a secret")
    (tmp_path / "viewer/documents").mkdir(parents=True)
    (tmp_path / "viewer/documents/secret.html").write_text("a secret")
    server = make_server(0)
    with opened_catalogue(tmp_path / "ws", tmp_path / "viewer", Choice()) as catalogue:
        set_site(server, ServedSite(catalogue, Look("ws", is_served=True)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    server.server_close()


def get(server, path, host=None):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


def test_the_index_and_the_documents_are_served_to_this_machine_only(server):
    assert address(server).startswith("http://127.0.0.1:")
    index = get(server, "/")[1]
    assert "3 documents" in index
    assert '<script type="application/json"' not in index, "the server is asked instead"
    response, body = get(server, "/" + re.search("documents/a-[a-z0-9]+.html", index)[0])
    assert response.status == 200
    assert "<h1>A page</h1>" in body
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/documents/secret.html",
        "/index-2.html",
        "/index-0.html",
        "/index-999999999999.html",
        "/.olmocr-viewer.sqlite",
        "/documents/",
        "/documents",
        "/../etc/passwd",
        "/documents/../secret.txt",
        "/%2e%2e/x.html",
        "/documents/%61.html",
        "/documents/b.html",
    ],
)
def test_nothing_else_is_served(server, path):
    response, body = get(server, path)
    assert response.status == 404
    assert "secret" not in body


def test_nothing_is_written_for_what_is_served(server, tmp_path):
    get(server, "/")
    assert sorted(path.name for path in (tmp_path / "viewer").rglob("*")) == [
        ".olmocr-viewer.sqlite",
        "documents",
        "secret.html",
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("wörds", ["a.pdf, page 2"]),
        ("W%C3%96RDS+TWO", ["a.pdf, page 2"]),
        ("two+other", []),
        ("wor", ["b.pdf, page 1"]),
        ("%3C/p%3E+here", ["a.pdf, page 2"]),
        ("%22%27+*)(", []),
        ("%FF%00", []),
    ],
)
def test_the_server_finds_pages_with_all_words(server, query, found):
    response, body = get(server, "/?q=" + (query if "%" in query else urllib.parse.quote(query, safe="+")))
    assert response.status == 200
    assert re.findall(r"<li><a href=[^>]*>([^<]*)</a>\n<p>", body) == found
    assert "</p> here" not in body


def test_a_record_that_went_while_pages_are_served_is_not_found(server, tmp_path):
    link = "/" + re.search("documents/b-[a-z0-9]+.html", get(server, "/")[1])[0]
    (tmp_path / "ws/results/output_b.jsonl").unlink()
    assert get(server, link)[0].status == 404


def test_a_page_elsewhere_that_takes_this_address_for_its_own_is_refused(server):
    assert get(server, "/", host="evil.example")[0].status == 403
    assert get(server, "/", host="evil.example:80")[0].status == 403


def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken; choose another with `port`"):
            make_server(port)
    with pytest.raises(UsageError, match="port 99999 cannot be used"):
        make_server(99999)


def test_the_command_writes_pages_and_says_where(tmp_path):
    write_record(tmp_path / "ws", ["a", "b"], attempts=[1, 2])
    done = subprocess.run([*VIEWER, tmp_path / "ws", "--output_dir", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"documents: 1\npages:     2, 1 to look at\nopen:      {tmp_path / 'out' / 'index.html'}\n")
    assert (tmp_path / "out/index.html").is_file()


def test_a_workspace_that_is_none_is_one_sentence(tmp_path):
    done = subprocess.run([*VIEWER, tmp_path, "--quiet"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith(f"error: {tmp_path} is not a workspace")


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    write_record(tmp_path / "ws", ["a"])
    command = [*VIEWER, tmp_path / "ws", "--serve", "--port", "0", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[1]
        connection = http.client.HTTPConnection("127.0.0.1", int(url.split(":")[2].strip("/")), timeout=5)
        connection.request("GET", "/")
        assert b"1 document" in connection.getresponse().read()
        connection.close()
    finally:
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    write_record(tmp_path, ["a"])
    code = "import sys; sys.modules['nh3'] = None; from olmocr.viewer.__main__ import app; app()"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == f"error: the viewer needs nh3, which is not installed: {install_command('viewer')}\n"
