"""What is measured apart may fail, crash or hang, and takes nothing with it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from olmocr.doctor.measure.apart import Apart, PartFailedError, environment
from olmocr.errors import MissingDependencyError, UsageError
from tests.conftest import ROOT


def double(number, *, plus=0):
    print("words that nobody reads")
    return 2 * number + plus


def fail_in_words(kind):
    raise kind("the sentence\nand more")


def import_what_is_not_there():
    import no_such_library  # noqa: F401


def crash():
    print("the driver's last words", flush=True)
    os.abort()


def leave_a_program_running(note):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note.write_text(str(program.pid))
    time.sleep(600)


def wait_long(note):
    note.write_text(str(os.getpid()))
    time.sleep(600)


def where_temporary_files_go():
    return tempfile.gettempdir(), str(Path.cwd())


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_what_a_function_returns_comes_back(tmp_path):
    assert Apart(tmp_path, 60).call(double, 3, plus=1) == 7


def test_it_works_in_the_temporary_folder_alone(tmp_path):
    temporary, here = Apart(tmp_path, 60).call(where_temporary_files_go)
    assert Path(temporary).resolve().is_relative_to(tmp_path.resolve())
    assert Path(here).resolve() == tmp_path.resolve()


@pytest.mark.parametrize(
    ("function", "given", "kind", "words"),
    [
        (fail_in_words, [UsageError], PartFailedError, "the sentence\nand more"),
        (fail_in_words, [RuntimeError], PartFailedError, "the sentence"),
        (fail_in_words, [MissingDependencyError], MissingDependencyError, "the sentence\nand more"),
        (import_what_is_not_there, [], MissingDependencyError, "no_such_library is not installed"),
    ],
)
def test_an_error_comes_back_in_its_own_words(function, given, kind, words, tmp_path):
    with pytest.raises(kind) as raised:
        Apart(tmp_path, 60).call(function, *given)
    assert str(raised.value) == words


def test_a_crash_is_told_with_the_last_words(tmp_path):
    with pytest.raises(PartFailedError, match=f"ended by signal {int(signal.SIGABRT)}; .*the driver's last words"):
        Apart(tmp_path, 60).call(crash)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    note = tmp_path / "pid"
    with Apart(tmp_path, 60).started(leave_a_program_running, note) as running:
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        with pytest.raises(PartFailedError, match="longer than 0 seconds"):
            running.result(0.01)
    for _ in range(500):
        if not is_running(int(note.read_text())):
            break
        time.sleep(0.02)
    assert not is_running(int(note.read_text()))


def test_a_process_ends_when_the_one_that_waits_for_it_is_killed(tmp_path):
    note = tmp_path / "pid"
    code = (
        "from pathlib import Path; from olmocr.doctor.measure.apart import Apart; "
        "from tests.doctor.measure.test_apart import wait_long; "
        f"Apart(Path({str(tmp_path)!r}), 600).call(wait_long, Path({str(note)!r}))"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not (note.exists() and note.read_text()):
        time.sleep(0.02)
    waiting.kill()
    waiting.wait()
    for _ in range(1000):
        if not is_running(int(note.read_text())):
            break
        time.sleep(0.02)
    assert not is_running(int(note.read_text()))


def test_a_persons_settings_do_not_count_and_no_network_is_asked(tmp_path):
    given = {"OLMOCR_MAX_TOKENS": "5", "OLMOCR_BLAS": "reference", "PATH": "/bin"}
    made = environment(tmp_path, given)
    assert "OLMOCR_MAX_TOKENS" not in made
    assert (made["OLMOCR_BLAS"], made["PATH"], made["HF_HUB_OFFLINE"]) == ("reference", "/bin", "1")
    assert made["TMPDIR"].startswith(str(tmp_path))
    assert made["XDG_CACHE_HOME"].startswith(str(tmp_path))
