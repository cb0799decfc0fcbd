"""The README and the docs are true: their commands run, their numbers are computed, their links lead somewhere."""

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from olmocr.conversion.plan import make_plan
from olmocr.conversion.plan_text import Resources, plan_json
from olmocr.conversion.recipe import find_recipe
from olmocr.errors import ExitCode
from olmocr.model_folder import BF16_REPOSITORY
from olmocr.reports.smoke import SMOKE_REPORT_FILE
from olmocr.validate.score import character_error_rate
from tests.conftest import ROOT
from tests.conversion.sources import seven_billion
from tests.programs import texts
from tests.serving.servers import OCR
from tests.waiting import until

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "demo").glob("*.md"),
    ROOT / "benchmarks/README.md",
]


def blocks(kind):
    """Return the README's fenced blocks that begin with ```*kind*."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(kind):
    lines = "".join(blocks(kind)).splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder that looks like a clone in which the README's commands have run.

    Models are not calibrated and not tried here, which takes longest: make test-slow does both.
    """
    folder = tmp_path_factory.mktemp("clone")
    (folder / "demo").symlink_to(ROOT / "demo")
    for command in commands("sh"):
        quicker = " --no-smoke-test --method fit" if "convert_to_mlx" in command else ""
        done = shell(command + quicker, folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return folder


def shell(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )


def test_the_readmes_commands_leave_what_it_says_they_do(clone, truth):
    workspace = clone / "build/workspace"
    assert len(list((workspace / "results").glob("output_*.jsonl"))) == 2
    assert (workspace / "markdown/demo/pages/table_15.md").read_text().count("<tr>") > 3
    true = truth["digital_01.pdf", 1]["natural_text"]
    assert character_error_rate(texts(workspace)["digital_01.pdf", 1], true) < 0.02, "it is read at the default size"


@pytest.mark.slow
def test_the_readmes_conversion_is_tried_as_it_ends_and_is_complete(tmp_path):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    for command in (each for each in commands("sh") if "build/demo-mixed" in each):
        done = shell(command, tmp_path)
        assert done.returncode == 0, done.stderr
    assert "build/demo-mixed is complete" in done.stdout
    assert (tmp_path / "build/demo-mixed" / SMOKE_REPORT_FILE).exists()


def test_at_most_150_words_stand_before_the_readers_own_page_is_read():
    before = README[: README.index("olmocr paper.pdf") + len("olmocr paper.pdf")]
    words = [word for word in re.sub(r"\]\([^)]*\)", "]", before).split() if re.search(r"\w", word)]
    assert len(words) <= 150
    assert f"| 4 | 12 | {len(words)} |" in (ROOT / "docs/comparison.md").read_text()


def test_the_readmes_commands_that_end_with_an_exit_code_do(clone):
    (command,) = commands("sh exit=11")
    done = shell(command, clone)
    assert done.returncode == 11
    assert "24 of 26 answers are valid" in done.stdout


def test_the_readmes_python_runs(clone):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert done.stdout == "demo/pages/sparse_14.pdf 1 valid\n1 done, 0 failed\n", done.stderr


def test_the_readmes_make_targets_are_there():
    named = re.findall(r"^make ([\w-]+)", "\n".join(commands("sh make")), re.MULTILINE)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert set(named) <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_readmes_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = ",".join(re.findall(r"\[([\w,]+)\]'", "\n".join(blocks("sh no-run")))).split(",")
    assert len(named) >= 3
    assert set(named) <= set(extras)


def test_the_readmes_commands_for_the_hub_have_options_that_exist(clone):
    for command in commands("sh needs-hub"):
        assert BF16_REPOSITORY in command
        used = re.findall(r"--[\w-]+", command)
        known = shell(f"COLUMNS=200 {command.split(' ' + BF16_REPOSITORY)[0]} --help", clone).stdout
        assert used
        assert set(used) <= set(re.findall(r"--[\w-]+", known))


def rows_of_recipes(text):
    """Return the cells of each row of a table that begins with a recipe's name."""
    rows = [line.replace("**", "").replace(" GB", "").strip("|").split("|") for line in text.splitlines()]
    return {
        cells[0].split()[0].strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows if cells[0][:2] == " `"
    }


@pytest.mark.parametrize(("document", "count"), [("README.md", 7), ("docs/quantization.md", 10)])
def test_the_sizes_that_are_told_are_those_that_a_plan_for_the_7b_model_counts(document, count):
    rows = rows_of_recipes((ROOT / document).read_text())
    assert len(rows) == count
    for recipe, cells in rows.items():
        plan = make_plan(seven_billion(), find_recipe(recipe))
        padding = 32 * 3 * 36 * 1280 + 32 * 2 * 36 if plan.vision_intermediate_size else 0
        assert plan.parameters == 8_292_166_656 + padding
        running = plan_json(plan, Resources(None, None, None))
        assert cells == [
            f"{plan.weight_bytes / 1e9:.2f}",
            f"{plan.bits_per_weight:.2f}",
            f"{running['running_memory']['total'] / 1e9:.2f}",
            f"{running['smallest_mac_gib']}",
        ], recipe


def test_every_exit_code_is_in_the_docs_and_no_other():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == [code.value for code in ExitCode]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text()):
        if target != "page_startx_starty_width_height.png":
            assert (document.parent / target).exists(), target


def modules_in_the_picture(text):
    """Yield the paths under olmocr/ that the picture of the house names: a folder's files stand indented below it."""
    (house,) = re.findall(r"^olmocr/\n(.*?)^\S", text, re.DOTALL | re.MULTILINE)
    folders = [(0, "")]
    for line in house.splitlines():
        words = re.split(r" {2,}", line.strip())[0].split()
        depth = len(line) - len(line.lstrip())
        if words and words[0].endswith(("/", ".py")):
            while folders[-1][0] >= depth:
                folders.pop()
            here = folders[-1][1]
            if words[0].endswith("/"):
                folders.append((depth, here + words[0]))
            yield from (here + word for word in words if word.endswith(".py"))


def test_the_architecture_names_every_module_in_its_folder_and_no_other():
    named = list(modules_in_the_picture((ROOT / "docs/architecture.md").read_text()))
    there = {path.relative_to(ROOT / "olmocr").as_posix() for path in (ROOT / "olmocr").rglob("*.py")}
    assert sorted(named) == sorted(name for name in there if not name.endswith("/__init__.py"))


SNIPPETS = [
    pytest.param(why, code, id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, (why, code) in enumerate(
        re.findall(r"^```python(?: no-run: ([^\n]+))?\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE), 1
    )
]


def test_every_snippet_is_run_or_says_why_not():
    for path in DOCUMENTS:
        for opening in re.findall(r"^```(python.*|py\b.*)$", path.read_text(), re.MULTILINE):
            assert re.fullmatch(r"python( no-run: .+| needs=\w+)?", opening), f"{path}: {opening}"
    assert len(SNIPPETS) > 10


@pytest.mark.parametrize(("why", "code"), SNIPPETS)
def test_no_snippet_of_the_docs_uses_a_name_that_it_does_not_define(why, code):
    names = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F823", "-"]
    checked = subprocess.run(names, input=code, capture_output=True, text=True)
    assert checked.returncode == 0 or "pieces" in why, checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("why", "code"), [each for each in SNIPPETS if not each.values[0]])
def test_every_snippet_of_the_docs_runs_as_it_stands(why, code, clone):
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.mark.slow
def test_the_server_that_the_docs_make_answers_until_it_is_interrupted(clone):
    (code,) = [code for why, code in (each.values for each in SNIPPETS) if why == "it serves until it is interrupted"]
    port = free_port()
    page = (ROOT / "demo/pages/sparse_14.pdf").read_bytes()
    with (
        subprocess.Popen(
            [sys.executable, "-c", code.replace("port=8000", f"port={port}")],
            cwd=clone,
            env=os.environ | {"OLMOCR_API_KEY": "a key"},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=300) as client,
    ):
        until(lambda: process.poll() is not None or is_there(client), seconds=300)
        assert process.poll() is None, process.stderr.read()
        assert client.post(OCR, content=page).status_code == 401
        asked = {"authorization": "Bearer a key", "accept": "text/markdown", "content-type": "application/pdf"}
        assert client.post(OCR, content=page, headers=asked).text.strip()
        process.send_signal(signal.SIGINT)


def is_there(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
