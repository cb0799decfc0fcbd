"""docs/macos.md lists all that the package does on a Mac alone, with tests that are there."""

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/macos.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if re.match(r"\| `\w", line)
]
PATHS = re.compile(r"`((?:olmocr|deploy)/[\w/.]+)`")

# How a module asks which system, or which device, this is, or calls what only macOS has.
ASKS = re.compile(
    r"sys\.platform|platform\.system\(|\bDeviceType\b|\.kind [!=]= \"(?:metal|cpu)\"|set_wired_limit"
    r"|memory_limits\(|gpu_limit\(|F_FULLFSYNC|F_NOCACHE|vm_stat|sysctl|/bin/ps|RLIMIT_AS|sched_getaffinity"
    r"|posix_fadvise|O_DIRECT\b|/proc/"
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_place_is_there_with_the_names_that_are_told(row):
    paths = PATHS.findall(row[0])
    assert paths
    source = "".join((ROOT / path).read_text() for path in paths)
    for name in re.findall(r"`(\w+)`", row[0]):
        assert re.search(rf"^(?:async )?(?:def|class) {name}\b", source, re.MULTILINE), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_test_that_stands_in_is_there_or_why_there_is_none(row):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
    assert named or row[2].startswith("nothing: ")
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), test


def test_every_module_that_asks_for_the_system_or_the_device_is_listed():
    listed = {path for row in ROWS for path in PATHS.findall(row[0])}
    asking = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "olmocr").rglob("*.py") if ASKS.search(path.read_text())
    }
    assert len(asking) > 15
    assert asking - listed == set()


def test_what_the_page_says_of_python_without_linux_is_what_is_taken_away():
    from tests.as_on_macos.python import ABSENT

    (told,) = re.findall(r"What only Linux has is gone: (.*?) and what", PAGE, re.DOTALL)
    gone = {name.rstrip("*") for names in ABSENT.values() for name in names} | {"/proc", "/sys", "sched_getaffinity"}
    assert set(re.findall(r"`([^`]+)`", told)) - gone == set()
