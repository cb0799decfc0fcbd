"""``python -m tests.pipeline.cluster.ray_transcript``: a three-node Ray reads a bucket, as text for docs/scale.md.

The nodes, the bucket (moto's server) and the demo model are on this machine. One of the two nodes that have readers is
killed when two pages are kept.
"""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from olmocr.conversion.convert import convert
from tests.conftest import CHECKPOINT, PAGES
from tests.pipeline.cluster.nodes import nodes_here
from tests.workspace.s3_server import s3_server

DOCUMENTS = 8


def transcript():
    """Return what a person sees who reads a bucket so."""
    import boto3

    with tempfile.TemporaryDirectory() as name, s3_server("scans"):
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        convert(CHECKPOINT, "8bit", folder / "demo-8bit", method="stock")
        store = boto3.client("s3")
        for pdf in sorted(PAGES.glob("digital_*.pdf"))[:DOCUMENTS]:
            store.upload_file(str(pdf), "scans", f"in/{pdf.name}")
        with nodes_here(2) as nodes:
            return "\n".join(_shown(nodes, folder)).replace(nodes.address, "10.0.0.1:6379")


def _shown(nodes, folder):
    command = "olmocr s3://scans/ws --pdfs s3://scans/in/ --model demo-8bit --markdown --target-longest-image-dim 644"
    yield f"$ {command} --ray {nodes.address}"
    yield from _run([*command.split(), "--ray", nodes.address], folder, _killer(nodes))
    yield "$ olmocr s3://scans/ws --stats"
    yield from _run(["olmocr", "s3://scans/ws", "--stats"], folder)


def _killer(nodes):
    """Return a function that kills a node when two pages are kept: called with a line of the log."""
    kills = [lambda: threading.Thread(target=nodes.kill_a_node).start()]

    def heard(line):
        if ": valid after" in line and kills:
            heard.count += 1
            if heard.count == 2:
                kills.pop()()

    heard.count = 0
    return heard


def _run(command, folder, heard=lambda line: None):
    log = folder / "details.log"
    program = [sys.executable, "-m", *command]
    with_log = ["--disk-logging", str(log)] if "--stats" not in command else []
    process = subprocess.Popen(
        [*program, *with_log], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    ends = threading.Event()
    follower = threading.Thread(target=_follow, args=(log, heard, ends))
    follower.start()
    for line in process.stdout:
        yield line.rstrip()
    ends.set()
    follower.join()
    yield f"(exit code {process.wait()})"


def _follow(log, heard, ends):
    """Call *heard* with each line of a log as it grows."""
    at = 0
    while not ends.wait(0.2):
        lines = log.read_text().splitlines() if log.exists() else []
        for line in lines[at:]:
            heard(line)
        at = len(lines)


if __name__ == "__main__":
    print(transcript())
