"""The imitation of a Mac does what it says, and the tests that are kept for it hold there."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from tests.as_on_macos.__main__ import FILES, LEFT_OUT, make_environment, run
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a Mac needs no imitation")


@pytest.fixture(scope="module")
def mac(tmp_path_factory):
    """Return a function: Python code -> what it prints where a Mac is imitated, in a folder on a Mac's disk."""
    environment = make_environment(tmp_path_factory.mktemp("mac").resolve())
    numbers = iter(range(100))

    def printed(code):
        here = Path(environment["TMPDIR"]) / f"{next(numbers)}"
        here.mkdir()
        done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return printed


def test_what_only_linux_has_is_gone_and_asyncio_does_without(mac):
    told = mac("""
import os, select, resource, selectors, asyncio
gone = "posix_fadvise sched_getaffinity memfd_create O_DIRECT copy_file_range eventfd pidfd_open getrandom splice pipe2"
print([name for name in gone.split() if hasattr(os, name)], hasattr(select, "epoll"), hasattr(resource, "prlimit"))
print(selectors.DefaultSelector.__name__, asyncio.run(asyncio.sleep(0, "awake")))
""")
    assert told == "[] False False\nPollSelector awake"


def test_the_package_is_told_that_this_is_a_mac_and_others_are_not(mac):
    told = mac("""
import sys
from olmocr.runtime import machine, memory
print(sys.platform, memory.sys.platform, memory.sys.argv is sys.argv, machine.platform.system(), machine.chip())
print(memory.peak_memory() > 10 << 20, machine.available_memory())
""")
    assert told == "linux darwin True Darwin Apple M2\nTrue 4177920000"


def test_a_module_that_is_run_as_a_command_is_told_so_too(mac):
    told = mac("""
import subprocess, sys
command = [sys.executable, "-i", "-m", "olmocr.version"]
print(subprocess.run(command, input="import sys; print(sys.platform)", capture_output=True, text=True).stdout)
""")
    assert told == "darwin"


@pytest.mark.parametrize("spelling", ["äB.md", "Äb.MD", unicodedata.normalize("NFD", "äb.md")])
def test_every_spelling_of_a_name_is_one_file_which_keeps_its_first(spelling, mac):
    told = mac(f"""
import os, pathlib
given = {spelling!r}
pathlib.Path("Äb.md").write_text("one")
with open(given, "a") as file:
    file.write(" two")
print(pathlib.Path(given).read_text(), os.path.exists(given.encode()), ascii(os.listdir()))
""")
    assert told == f"one two True {['Äb.md']!a}"


def test_folders_on_the_way_are_found_in_any_spelling_and_made_once(mac):
    told = mac("""
import os, pathlib, shutil
pathlib.Path("Ordner/Tief").mkdir(parents=True)
pathlib.Path("ORDNER/tief/a").write_text("x")
pathlib.Path("ordner").mkdir(exist_ok=True)
here = os.open("ORDNER", os.O_RDONLY)
print(sorted(each.name for each in pathlib.Path("ordner").rglob("*")), os.stat("TIEF/A", dir_fd=here).st_size)
shutil.rmtree("ordner/TIEF")
print(os.listdir("Ordner"), os.listdir())
""")
    assert told == "['Tief', 'a'] 1\n[] ['Ordner']"


def test_a_file_can_be_renamed_to_another_spelling_of_its_name(mac):
    told = mac("""
import os
open("a", "w").write("a")
open("B", "w").write("b")
os.rename("A", "A")
print(sorted(os.listdir()))
os.replace("b", "a")
print(os.listdir(), open("a").read())
""")
    assert told == "['A', 'B']\n['A'] b"


def test_what_a_macs_disk_refuses_is_refused(mac):
    told = mac("""
import errno, os
for name in ("bad\\udcff", "/".join([os.getcwd()] + ["d" * 200] * 5)):
    try:
        os.mkdir(name)
    except OSError as error:
        print(errno.errorcode[error.errno])
""")
    assert told == "EILSEQ\nENAMETOOLONG"


def test_there_is_no_proc_and_dev_fd_is_a_folder(mac):
    told = mac("""
import os
print(os.path.exists("/proc/self"), os.path.exists("/sys"), os.path.islink("/dev/fd"), os.path.realpath("/dev/fd/0"))
""")
    assert told == "False False False /dev/fd/0"


def test_temporary_files_lie_behind_a_link_as_a_macs_do(mac):
    told = mac("import os, tempfile; print(os.path.realpath(tempfile.gettempdir()) == tempfile.gettempdir())")
    assert told == "False"


def test_what_is_kept_and_what_is_left_out_is_there():
    assert [name for name in FILES if not (ROOT / name).exists()] == []
    for name in LEFT_OUT:
        path, _, test = name.partition("::")
        assert f"def {test.split('[')[0]}(" in (ROOT / path).read_text(), name
        assert any(path == each or path.startswith(f"{each}/") for each in FILES), name


def test_options_alone_name_no_tests_so_those_that_are_kept_for_it_are_run():
    told = run(["--collect-only", "-q", "-k", "littered"], ["tests/test_strays.py"], stdout=subprocess.PIPE, text=True)
    assert {line.partition("::")[0] for line in told.stdout.splitlines() if "::" in line} == {"tests/test_strays.py"}


@pytest.mark.slow
def test_the_tests_that_are_kept_for_it_hold_with_only_what_macos_has(tmp_path):
    done = run(["-q", f"--junitxml={tmp_path / 'results.xml'}"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "results.xml").stat().st_size > os.cpu_count()
