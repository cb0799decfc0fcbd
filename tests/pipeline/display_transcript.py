"""``python -m tests.pipeline.display_transcript``: what a first run shows, as text for docs/display.md.

Every command runs as a process of its own, and downloads its model from a Hub on the loopback interface.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from olmocr.conversion.convert import convert
from tests.conftest import CHECKPOINT, ROOT
from tests.hub_server import Commit, HubServer, Repository
from tests.screens import screens

MODEL = "small-ocr/tiny-olmocr-8bit"
PDFS = ("table_15.pdf", "sparse_14.pdf")
COMMAND = f"olmocr workspace --pdfs {' '.join(PDFS)} --model {MODEL} --target-longest-image-dim 644"
SHORT = COMMAND.replace(f"{PDFS[0]} ", "")

# What only a slow machine shows, and what another process has left.
_PASSING = re.compile(r"reading the first page|loading |removed /")

_STAGES = {
    "downloading": re.compile(r"^downloading .*\n.* of .*/s", re.M),
    "loading": re.compile(r"^loading ", re.M),
    "first page": re.compile(r"^reading the first page: .*letters.*\n\S", re.M),
    "pages": re.compile(r"^\S+ +[1-9]\d* of \d+\+? pages +.*left\n", re.M),
}


def transcript():
    """Run everything and return the markdown: a title and a block for each way to look at it."""
    with tempfile.TemporaryDirectory() as folder:
        convert(CHECKPOINT, "8bit", Path(folder) / "model")
        with HubServer({MODEL: Repository({"main": Commit(Path(folder) / "model")})}) as hub:
            hub.seconds_a_piece = 0.008
            parts = [
                _on_a_terminal(hub, Path(folder) / "80", 80),
                _on_a_terminal(hub, Path(folder) / "120", 120),
                _without_one(hub, Path(folder) / "none", "Without a terminal", SHORT),
                _without_one(hub, Path(folder) / "quiet", "With --quiet", f"{SHORT} --quiet"),
                _without_one(hub, Path(folder) / "json", "With --json", f"{SHORT} --json"),
            ]
    return "\n".join(parts)


def masked(text):
    """Return *text* without what differs from run to run: sizes, times, rates, and how far each was."""
    text = re.sub(r"(?m)^(reading the first page: ).*\n.*", r"\1…\n…", text)
    text = re.sub(r"last: \S+, page \d+", "last: …", text)
    text = re.sub(r"(?m)^(olmocr|tiny-olmocr-8bit): .*", r"\1: …", text)
    text = re.sub(r"[━╸╺─-]{3,}", "BAR", text)
    text = re.sub(r"\d[\d.,]*( (kB|MB|GB|bytes|s|min|h)\b)?(?!\w)", "N", text)
    return re.sub(r" {2,}", "  ", text)


def _start(hub, folder):
    folder.mkdir()
    for name in PDFS:
        (folder / name).symlink_to(ROOT / "demo" / "pages" / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "hf"), "PATH": path}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "OLMOCR_"))}
    return {"cwd": folder, "env": {**kept, **own, "PYTHONPATH": str(ROOT), "TERM": "xterm", "LANG": "C.UTF-8"}}


def _command(command):
    name, *arguments = shlex.split(command)
    return [sys.executable, "-m", name, *arguments]


def _on_a_terminal(hub, folder, width):
    shown, code = screens(_command(COMMAND), width, **_start(hub, folder))
    lines = [f"## {width} columns", ""]
    for name, look in _STAGES.items():
        found = [text for text in ("\n".join(each).strip() for each in shown) if look.search(text)]
        block = found[-1] if name != "pages" else found[0]
        lines += ["```", _from(block, look), "```", ""]
    last = "\n".join(line for line in shown[-1] if not _PASSING.match(line)).strip()
    return "\n".join([*lines, f"And in the end (exit code {code}):", "", "```", f"$ {COMMAND}", last, "```", ""])


def _from(screen, look):
    """Return the part of a screen that is drawn anew, again and again."""
    return screen[look.search(screen).start() :]


def _without_one(hub, folder, title, command):
    done = subprocess.run(_command(command), **_start(hub, folder), text=True, capture_output=True, check=False)
    told = [line for line in done.stderr.splitlines() if not _PASSING.match(line)]
    return "\n".join([f"## {title}", "", "```", f"$ {command}", *told, *done.stdout.splitlines(), "```", ""])


if __name__ == "__main__":
    print(transcript(), end="")
