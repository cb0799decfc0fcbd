"""What becomes of a terminal, a pipe or a log never ends work: processes, with real descriptors that fail."""

import ast
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import olmocr
from olmocr.runtime.extras import install_command
from olmocr.terminal.command import as_options, log_to_file
from olmocr.text import in_a_line
from tests import programs
from tests.backends.model_server import ModelServer, chat_stream
from tests.conftest import CHECKPOINT, PAGES
from tests.pipeline.doubles import write_pdf
from tests.programs import OLMOCR, VALIDATE, assert_one_sentence, texts

PROGRAM = """
import logging, sys, time
from pathlib import Path
import typer
from olmocr.terminal.command import complain, ends_with_exit_code, log_to_file, progress_bar, say, start_logging

folder = Path(sys.argv[1])
app = typer.Typer(pretty_exceptions_enable=False)

@app.command()
@ends_with_exit_code
def work(name: str, code: int = 0, log_file: Path | None = None, wait: bool = False):
    console = start_logging(quiet=False)
    if log_file:
        log_to_file(log_file)
    log = logging.getLogger("olmocr.test")
    with (folder / "first file that is opened").open("w") as file, progress_bar(console, quiet=False) as bar:
        task = bar.add_task("working")
        (folder / "ready").touch()
        while wait and not (folder / "go on").exists():
            time.sleep(0.01)
        for number in range(50):
            bar.update(task, description=str(number))
            say("\\u00e9 \\u6587 \\udcff" * 100), complain("\\u00e9 \\u6587" * 100)
            log.warning("\\u00e9 \\u6587 %s", "\\udcff" * 100)
            print("a library prints", flush=True), print("and complains", file=sys.stderr, flush=True)
    (folder / "done").touch()
    raise typer.Exit(code)

app(args=sys.argv[1:])
"""


CLOSED = {"input": "<&-", "output": ">&-", "error": "2>&-", "all": "<&- >&- 2>&-"}


def run(folder, redirection="", *options, **environment):
    command = f'exec "$0" -c "$1" "$2" {" ".join(options)} {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, PROGRAM, str(folder)],
        capture_output=True,
        env=os.environ | environment,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert (folder / "done").exists()
    assert (folder / "first file that is opened").read_bytes() == b""
    return done


@pytest.mark.parametrize("which", CLOSED)
def test_descriptors_that_are_closed_do_not_end_work_and_nothing_is_printed_into_other_files(which, tmp_path):
    assert run(tmp_path, CLOSED[which]).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_results_without_room_are_reported_at_the_end(tmp_path):
    done = run(tmp_path, ">/dev/full")
    assert done.returncode == 6
    assert b"the disk is full: standard output could not be written" in done.stderr
    assert run(tmp_path, ">/dev/full", "--code 9").returncode == 9
    assert run(tmp_path, "2>/dev/full").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_log_whose_disk_is_full_is_told_once(tmp_path):
    done = run(tmp_path, "", "--log-file /dev/full")
    assert done.returncode == 0
    assert done.stderr.count(b"the log /dev/full can no longer be written (No space left on device)") == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("code", [0, 9])
def test_a_pipe_whose_reader_has_seen_enough_changes_nothing(stream, code, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: writer}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "--code", str(code)]
    assert subprocess.run(command, **streams, check=False).returncode == code
    os.close(writer)
    assert (tmp_path / "done").exists()


def test_a_terminal_that_is_closed_does_not_end_work_that_was_told_to_outlive_it(tmp_path):
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), "--wait"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
    )
    os.close(slave)
    until = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go on").touch()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_what_a_locale_has_no_characters_for_is_shown_as_escapes(locale, tmp_path):
    done = run(tmp_path, "", **locale)
    assert done.returncode == 0
    assert rb"\u6587 \udcff" in done.stdout


@pytest.mark.usefixtures("own_log")
def test_a_name_with_line_ends_looks_like_no_line_of_the_log(tmp_path):
    log_to_file(tmp_path / "log")
    logging.getLogger("olmocr.test").warning("%s", "a\n2026-01-01 ERROR all is lost\x1b[31m\udcff")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("a")
    assert second == r"    2026-01-01 ERROR all is lost\x1b[31m\udcff"


@pytest.fixture
def own_log():
    package = logging.getLogger("olmocr")
    before = package.handlers[:], package.level
    yield
    for handler in package.handlers[len(before[0]) :]:
        handler.close()
    package.handlers, package.level = before


def test_a_name_is_told_in_one_line():
    assert in_a_line("a\nb\r\x1b\udcff\u2028é") == r"a\nb\r\x1b\udcff\u2028é"


OPTIONS = {"model": "--model", "low_disk": "--low-disk", "keep": "--keep", "drafts": "--drafts"}


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("name one with `model`", "name one with --model"),
        ("use `low_disk=True`, or `drafts=False`", "use --low-disk, or --no-drafts"),
        ("add `keep='a.*.b'`, like `keep=PATTERN`", "add --keep 'a.*.b', like --keep PATTERN"),
        ("choose `model='m'`", "choose --model m"),
        ("there is no `port` here, nor `rm -rf /`", "there is no `port` here, nor `rm -rf /`"),
    ],
)
def test_a_command_names_settings_as_its_options(sentence, told):
    assert as_options(sentence, OPTIONS) == told


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["olmocr", "ws", "--pdfs", "a.pdf", "--server", "http://127.0.0.1:9", "--drafts"], "choose --backend mlx"),
        (["olmocr.convert_to_mlx", "nowhere", "--group-size", "48"], "--group-size is 48"),
    ],
)
def test_what_python_calls_a_setting_the_command_calls_an_option(tmp_path, command, sentence):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=tmp_path)
    assert sentence in done.stderr
    assert "`" not in done.stderr


def test_errors_name_no_options_but_those_of_commands():
    """Sentences that Python raises too name settings; only what a command alone says may name its options."""
    commands = ("__main__.py", "convert_to_mlx.py", "to_text.py", "default_model.py", "upstream_options.py")
    by_commands_alone = (
        "doctor/",
        "publish/",
        "validate/",
        "serving/",
        "runtime/",
        "hub/write.py",
        "pipeline/metrics.py",
    )
    package = Path(olmocr.__file__).parent
    named = [
        f"{name}: {text}"
        for path in sorted(package.rglob("*.py"))
        if not (name := path.relative_to(package).as_posix()).endswith(commands)
        and not name.startswith(by_commands_alone)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error")
        for part in ast.walk(node)
        if isinstance(part, ast.Constant)
        and isinstance(text := part.value, str)
        and re.search(r"(^|[ (])--[a-z]", text)
    ]
    assert named == []


def test_an_output_that_cannot_be_written_to_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*VALIDATE, "pages", str(PAGES / "digital_01.md")], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert_one_sentence(done, 6, "standard output could not be written")


def test_a_closed_standard_error_does_not_stop_a_run(tmp_path):
    with ModelServer(chat_stream()) as server:
        command = [*OLMOCR, tmp_path / "ws", "--pdfs", PAGES / "sparse_14.pdf", "--server", server.url]
        done = subprocess.run(f"{shlex.join(map(str, command))} 2>&-", shell=True, capture_output=True, text=True)
    assert done.returncode == 0
    assert ("sparse_14.pdf", 1) in texts(tmp_path / "ws")


def test_a_file_whose_name_looks_like_an_option_can_be_given(tmp_path):
    write_pdf(tmp_path / "-a_b.pdf", password="x")
    with ModelServer(chat_stream()) as server:
        done = programs.run(OLMOCR, "ws", "--server", server.url, "--pdfs=-a_b.pdf", cwd=tmp_path)
    assert done.returncode == 9
    assert "-a_b.pdf is encrypted" in done.stderr


def test_a_machine_without_mlx_is_one_sentence(tmp_path):
    (tmp_path / "path/mlx").mkdir(parents=True)
    (tmp_path / "path/mlx/__init__.py").write_text("raise ImportError('no MLX here')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "path")}
    done = programs.run(
        OLMOCR, tmp_path / "ws", "--pdfs", write_pdf(tmp_path / "a.pdf"), "--model", CHECKPOINT, env=environment
    )
    assert_one_sentence(done, 3, "install it with: ", install_command("mlx").partition(" ")[2])


def test_control_characters_in_a_name_are_shown_and_not_obeyed(tmp_path):
    done = programs.run(VALIDATE, "pages", tmp_path / "\x1b[31mred")
    assert "\x1b" not in done.stderr
    assert r"\x1b[31mred" in done.stderr
