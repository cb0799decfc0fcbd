"""Commands of this package as a shell runs them."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

OLMOCR = [str(Path(sys.executable).with_name("olmocr"))]


CONVERT = [sys.executable, "-m", "olmocr.convert_to_mlx", "--no-smoke-test"]


VALIDATE = [sys.executable, "-m", "olmocr.validate"]


def run(command, *arguments, cwd=None, **options):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, **options)


def assert_one_sentence(done, exit_code, *words):
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    for word in words:
        assert word in sentence


def texts(workspace):
    """Return {(PDF's name, page number): text}."""
    found = {}
    for path in (workspace / "results").glob("*.jsonl"):
        record = json.loads(path.read_text())
        for start, end, number in record["attributes"]["pdf_page_numbers"]:
            name = Path(record["metadata"]["Source-File"]).name
            found[name, number] = record["text"][start:end].removesuffix("\n")
    return found


# The coverage tool, too, would write to the disk that is full.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def small_disk(largest_file=4096):
    """Let this process write no larger file: what a full disk looks like from inside."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def interrupted(command, *arguments, when, signals=(signal.SIGINT,)):
    process = subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(when, process)
    for each in signals:
        process.send_signal(each)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert "interrupted: finished work is kept" in errors
    return process.returncode


TWICE = (signal.SIGINT, signal.SIGINT)
