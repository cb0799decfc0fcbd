"""What docs/machines has is what machines wrote, and the README's table and the schema are made from it."""

import re
import subprocess
import sys

import pytest

from demo.machines import FIRST, LAST, read_machines, schema, with_table
from olmocr.reports.machine_text import machine_markdown
from tests.conftest import ROOT
from tests.reports.machines import FULL

MACHINES = ROOT / "docs/machines"
REPORTS = read_machines(MACHINES)
README = (ROOT / "README.md").read_text()


def test_there_are_machines():
    assert REPORTS
    assert {path.stem for path in MACHINES.glob("*.md")} == {name for name, _ in REPORTS}


@pytest.mark.parametrize(("name", "report"), REPORTS)
def test_what_a_person_reads_of_a_machine_is_what_its_report_says(name, report):
    assert (MACHINES / f"{name}.md").read_text() == machine_markdown(report)


def test_the_readmes_table_is_what_the_command_writes():
    assert with_table(README, REPORTS) == README


def test_the_schema_is_that_of_the_report():
    assert (ROOT / "docs/machine-report.schema.json").read_text() == schema()


def test_no_machine_is_called_a_mac_that_is_none():
    on_metal = [report for _, report in REPORTS if "metal" in (report.machine.device or "")]
    assert on_metal or "Nothing in this repository has been measured on a Mac yet" in README


def test_the_command_writes_all_of_it(tmp_path):
    (tmp_path / "docs/machines").mkdir(parents=True)
    (tmp_path / "docs/machines/m2.json").write_text((MACHINES / f"{REPORTS[0][0]}.json").read_text())
    (tmp_path / "README.md").write_text(f"before\n{FIRST}an old table\n{LAST}\nafter\n")
    done = subprocess.run(
        [sys.executable, ROOT / "demo/machines.py", "--root", tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 machines\n"
    readme = (tmp_path / "README.md").read_text()
    assert re.fullmatch(
        r"before\n<!--.*-->\n\n\| machine .*\n\| ---.*\n\| .*\(docs/machines/m2.md\) \|\n\n<!--.*-->\nafter\n", readme
    )
    assert (tmp_path / "docs/machines/m2.md").is_file()
    assert with_table(readme, [("x", FULL)]).count("\n| ") == 3
