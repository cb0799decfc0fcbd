import http.client
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from olmocr.errors import UsageError
from olmocr.extras import install_command
from olmocr.viewer.serve import address, make_server
from tests.viewer.workspaces import write_record

VIEWER = [sys.executable, "-m", "olmocr.viewer"]


@pytest.fixture
def server(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/a-1.html").write_text("a page")
    (tmp_path / "index.html").write_text("the index")
    (tmp_path / "secret.txt").write_text("a secret")
    (tmp_path / "documents/secret.txt").write_text("a secret")
    server = make_server(tmp_path, 0)
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
    assert get(server, "/")[1] == "the index"
    response, body = get(server, "/documents/a-1.html")
    assert (response.status, body) == (200, "a page")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/documents/secret.txt",
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


def test_a_page_elsewhere_that_takes_this_address_for_its_own_is_refused(server):
    assert get(server, "/", host="evil.example")[0].status == 403
    assert get(server, "/", host="evil.example:80")[0].status == 403


def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken; choose another one with --port"):
            make_server(tmp_path, port)
    with pytest.raises(UsageError, match="port 99999 cannot be used"):
        make_server(tmp_path, 99999)


def test_the_command_writes_pages_and_says_where(tmp_path):
    write_record(tmp_path / "ws", ["a", "b"], attempts=[1, 2])
    done = subprocess.run([*VIEWER, tmp_path / "ws", "--output_dir", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"documents: 1\npages:     2, 1 to look at\nopen:      {tmp_path / 'out' / 'index.html'}\n")
    assert (tmp_path / "out/index.html").is_file()


def test_a_workspace_that_is_none_is_one_sentence(tmp_path):
    done = subprocess.run([*VIEWER, tmp_path, "--quiet"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith(f"error: {tmp_path} is no workspace")


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
