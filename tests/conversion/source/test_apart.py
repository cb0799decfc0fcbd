"""A stranger's program in a process of its own."""

import os
import subprocess
import sys

import pytest

from olmocr.conversion.source.apart import ApartError, run_apart
from olmocr.runtime.memory import resident_memory, resident_memory_by_ps

ANSWER = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
# A system that takes the limit of memory and does not keep to it, as a Mac: the process lifts it again.
WITHOUT_LIMIT = (
    "import resource; resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)"
)
GROWS = "held = []\nwhile True: held.append(bytearray(b'x' * 2**20))"


def reason(code, **limits):
    with pytest.raises(ApartError) as error:
        run_apart(code, b"", **{"seconds": 5, "memory": 200 * 10**6, **limits})
    return str(error.value)


def test_the_answer_is_what_the_program_prints():
    assert run_apart(ANSWER, b"abc" * 100_000, seconds=5, memory=10**9) == b"cba" * 100_000


def test_a_program_that_computes_for_ever_is_ended():
    assert reason("while True: pass", seconds=1) == "it computes for more than 1 seconds"


def test_a_program_that_waits_for_ever_is_ended():
    assert reason("import time; time.sleep(60)", waits=0.1) == "it does not end"


@pytest.mark.parametrize("code", [GROWS, f"{WITHOUT_LIMIT}\n{GROWS}"], ids=["limited", "watched"])
def test_a_program_that_takes_all_memory_is_ended(code):
    assert reason(code) == "it takes more memory than 200MB"


def test_a_program_that_fails_is_told_by_the_last_line_of_its_complaint():
    assert reason("raise ValueError('of its own\\x1b[2J')") == "ValueError: of its own\\x1b[2J"
    assert reason("import os; os._exit(7)") == "its process ended with 7"
    assert reason("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == "its process ended with -11"


def test_a_module_in_the_current_folder_is_not_taken_for_one_of_pythons(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("print('taken')")
    monkeypatch.chdir(tmp_path)
    assert run_apart("import json; print(json.dumps(1))", b"", seconds=5, memory=10**9) == b"1\n"


@pytest.mark.parametrize("look", [resident_memory, resident_memory_by_ps])
def test_another_processs_memory_is_seen_from_outside(look):
    held = "import sys; held = bytearray(b'x' * 60_000_000); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 60_000_000 < look(process.pid) < 400_000_000
        process.stdin.close()
    assert resident_memory(process.pid) == 0
    assert resident_memory(os.getpid()) > 0
