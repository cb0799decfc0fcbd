"""docs/mistakes.md: each command is run, and answers what stands there."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DOCUMENT = ROOT / "docs/mistakes.md"
ROWS = re.findall(r"^\| `(olmocr[^`]*)` \| (\d+) \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder that the document describes."""
    here = tmp_path_factory.mktemp("here")
    for name in ("x.pdf", "report.pdf"):
        (here / name).write_bytes((ROOT / "demo/pages/sparse_14.pdf").read_bytes())
    (here / "notes.docx").touch()
    (here / "empty").mkdir()
    (here / "read").mkdir()
    (here / "read/workspace.sqlite").touch()
    (here / "demo").symlink_to(ROOT / "demo")
    return here


def answer_to(command, folder):
    """Return the exit code, and what is answered, in one line, boxes and names of this machine left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OLMOCR_", "HF_"))}
    alone = {"XDG_CACHE_HOME": str(folder / ".cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "TERM": "dumb"}
    arguments = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(
        arguments, cwd=folder, env=kept | alone, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    lines = [line.strip("│ ") for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("╭", "╰"))]
    return done.returncode, " ".join(line for line in lines if line)


def test_there_are_as_many_as_are_promised():
    assert len(ROWS) == 21


def test_a_misspelt_variable_of_the_servers_key_is_named(folder):
    arguments = [sys.executable, "-m", "olmocr", "serve", "--model", "m/m", "--host", "0.0.0.0"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OLMOCR_")}
    done = subprocess.run(
        arguments, cwd=folder, env=kept | {"OLMOCR_API_KYE": "k"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "OLMOCR_API_KYE is not a setting, and has no effect; did you mean OLMOCR_API_KEY?" in done.stderr


@pytest.mark.parametrize(("command", "code", "answer"), ROWS, ids=[row[0] for row in ROWS])
def test_a_common_mistake_is_answered_as_the_docs_say(command, code, answer, folder):
    exit_code, said = answer_to(command, folder)
    assert exit_code == int(code), said
    pattern = ".*".join(re.escape(piece.strip()) for piece in answer.split("…"))
    assert answer
    assert re.search(pattern, said), said
    assert "Traceback" not in said
