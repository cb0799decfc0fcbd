"""``python demo/machines.py``: turn ``docs/machines/*.json`` into markdown and into the README's table.

Put the report of a machine (``olmocr doctor --measure``) there as NAME.json. This script then writes NAME.md beside it,
the README's table between its marks, and the JSON Schema of these reports.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import msgspec

from olmocr.reports.machine import MACHINE_REPORT_VERSION, MachineReport
from olmocr.reports.machine_text import machine_markdown, machine_table
from olmocr.reports.typed_json import parse_as

ROOT = Path(__file__).parent.parent
FIRST, LAST = "<!-- machines: make machines writes this table -->\n", "<!-- end of machines -->"


def read_machines(folder: Path) -> list[tuple[str, MachineReport]]:
    """Return the reports in *folder* with their names without suffix, sorted by name."""
    return [
        (path.stem, parse_as(MachineReport, path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
    ]


def with_table(readme: str, reports: list[tuple[str, MachineReport]]) -> str:
    """Return *readme* with the table of *reports* between its marks."""
    table = machine_table((f"docs/machines/{name}.md", report) for name, report in reports)
    return re.sub(rf"(?<={re.escape(FIRST)}).*(?={re.escape(LAST)})", lambda _: f"\n{table}\n", readme, flags=re.DOTALL)


def schema() -> str:
    """Return the JSON Schema of a report."""
    made = msgspec.json.schema(MachineReport)
    for kind in made["$defs"].values():
        kind["description"] = " ".join(kind["description"].split())
    whole = made["$defs"]["MachineReport"]
    whole["properties"]["version"] = {"const": MACHINE_REPORT_VERSION}
    whole["required"].append("version")
    heads = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"machine_report.json, version {MACHINE_REPORT_VERSION}",
    }
    return json.dumps(heads | made, indent=1) + "\n"


def main() -> int:
    """Write all of it; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the clone (default: this one)")
    root = parser.parse_args().root
    reports = read_machines(root / "docs/machines")
    for name, report in reports:
        (root / f"docs/machines/{name}.md").write_text(machine_markdown(report), encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), reports), encoding="utf-8")
    (root / "docs/machine-report.schema.json").write_text(schema(), encoding="utf-8")
    print(f"{len(reports)} machines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
