"""The words of the README, the docs and the code: make lint finds no mistakes in them, and finds mistakes elsewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs import DOCUMENTS

LINES = re.findall(r"^\t\$\(BIN\)/((?:codespell|proselint) .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
MISTAKES = ["adress", "irregardless"]  # codespell:ignore adress,irregardless


def findings(line, *instead):
    """Return what a line of the Makefile prints: of the files that it names, or *instead* of these, of others."""
    program, *arguments = shlex.split(line)
    if instead:
        arguments = arguments[: arguments.index("check") + 1] if "check" in arguments else []
    named = [sorted(ROOT.glob(each)) if "*" in each else [each] for each in [*arguments, *instead]]
    command = [Path(sys.executable).parent / program, *(each for names in named for each in names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_nothing_is_found_in_what_make_lint_reads(line):
    assert findings(line) == ""


@pytest.mark.parametrize(("program", "mistake"), list(zip(["codespell", "proselint"], MISTAKES, strict=True)))
def test_a_mistake_is_found(program, mistake, tmp_path):
    (line,) = (line for line in LINES if line.startswith(program))
    text = tmp_path / "text.md"
    text.write_text(f"This is {mistake} of the page.\n")
    assert "text.md:1" in findings(line, str(text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_word_stands_twice_in_a_row(document):
    """Proselint's own check takes a heading and the word after it, or two commands, for a sentence."""
    prose = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n|^[|#-].*$", re.sub(r"`[^`]*`", ".", prose), flags=re.MULTILINE)
    assert [twice[0] for text in paragraphs for twice in re.finditer(r"\b([a-z]{2,})\s+\1\b", text)] == []
