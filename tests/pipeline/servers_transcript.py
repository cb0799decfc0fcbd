"""``python -m tests.pipeline.servers_transcript``: one command over three servers, as text for docs/scale.md.

Three times ``olmocr serve`` with the demo model at 8 bits, each a process of its own at a port that is free, which is
shown as 8101 to 8103. The second is killed when the workspace has a page of its.
"""

import contextlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from olmocr.conversion.convert import convert
from tests.conftest import CHECKPOINT, ROOT

DOCUMENTS = 12
READ = "olmocr ws --pdfs pages --servers three.txt --target-longest-image-dim 644"
STATS = "olmocr ws --stats --price-per-hour 2.50"
SHOWN_PORTS = (8101, 8102, 8103)

_LISTENS = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")
_SECONDS = 600


def transcript():
    """Run it, and return the markdown: a block."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        convert(CHECKPOINT, "8bit", folder / "demo-8bit")
        _link_pages(folder / "pages")
        started = [stack.enter_context(_server(folder)) for _ in SHOWN_PORTS]
        servers = sorted(started, key=_port)
        ports = [_port(server) for server in servers]
        (folder / "three.txt").write_text("".join(f"http://127.0.0.1:{port}\n" for port in ports))
        reading = subprocess.Popen(_command(READ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_where(folder))
        _wait_until(lambda: _pages_of(folder / "ws", ports[1]) > 0 or reading.poll() is not None)
        servers[1].kill()
        told = reading.communicate(timeout=_SECONDS)[0]
        stats = subprocess.run(_command(STATS), stdout=subprocess.PIPE, check=True, **_where(folder)).stdout
    text = "\n".join(["```", "$ cat three.txt", *(f"http://127.0.0.1:{port}" for port in ports), f"$ {READ}"])
    text = f"{text}\n{told.decode()}$ {STATS}\n{stats.decode()}```\n"
    for port, shown in zip(ports, SHOWN_PORTS, strict=True):
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{shown}")
    return text


def masked(text):
    """Return *text* without what differs from run to run: times and rates, and who had read how much."""
    lines = [line for line in text.splitlines() if " left, " not in line]
    lines = [re.sub(r"(8102/v1) .*(; it is left out, and tried again)", r"\1 …\2", line) for line in lines]
    return [re.sub(r"\d[\d.,]*", "N", line) for line in lines]


def _link_pages(folder):
    folder.mkdir()
    for path in sorted((ROOT / "demo/pages").glob("*.pdf"))[:DOCUMENTS]:
        (folder / path.name).symlink_to(path)


def _where(folder):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OLMOCR_")}
    return {"cwd": folder, "env": {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}}


def _command(command):
    name, *arguments = shlex.split(command)
    return [sys.executable, "-m", name, *arguments]


@contextlib.contextmanager
def _server(folder):
    command = _command("olmocr serve --model demo-8bit --port 0 --max-concurrent-pages 2")
    with (folder / f"server-{time.monotonic_ns()}.log").open("wb+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **_where(folder))
        server.log = Path(log.name)
        try:
            yield server
        finally:
            server.kill()
            server.wait()


def _port(server):
    _wait_until(lambda: _LISTENS.search(server.log.read_text()) or server.poll() is not None)
    found = _LISTENS.search(server.log.read_text())
    assert found, server.log.read_text()
    return int(found[1])


def _pages_of(workspace, port):
    """Return how many pages a workspace has that the server at *port* answered."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{workspace}/workspace.sqlite?mode=ro", uri=True)) as db:
            records = [json.loads(text) for (text,) in db.execute("SELECT record FROM pages")]
    except sqlite3.OperationalError:  # it is not made yet
        return 0
    return sum(record["server"].endswith(f":{port}/v1") for record in records)


def _wait_until(holds):
    until = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


if __name__ == "__main__":
    print(transcript(), end="")
