"""Demo pages and their true text -> a small benchmark in olmOCR-bench's layout.

Run it as ``python demo/make_bench.py FOLDER``.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from olmocr.validate.bench.tables import grids_in

PAGES = Path(__file__).parent / "pages"

Fields = dict[str, Any]

_CATEGORIES = {"table": "tables", "image-only": "scans", "rotated": "scans", "three pages": "reports"}


def make_bench(folder: Path, names: tuple[str, ...] = ()) -> None:
    """Write a benchmark of the demo pages, or of those of the PDFs that are named, into *folder*, which is new."""
    entries = json.loads((PAGES / "pages.json").read_text(encoding="utf-8"))
    checks: dict[str, list[Fields]] = {}
    for entry in entries:
        if not names or entry["pdf"] in names:
            category = _category(entry["kind"])
            target = folder / "pdfs" / category / entry["pdf"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PAGES / entry["pdf"], target)
            checks.setdefault(category, []).extend(_numbered(entry, category))
    for category, found in checks.items():
        lines = "".join(json.dumps(check, ensure_ascii=False) + "\n" for check in found)
        (folder / f"{category}.jsonl").write_text(lines, encoding="utf-8")


def _category(kind: str) -> str:
    return next((name for part, name in _CATEGORIES.items() if kind.startswith(part)), "text")


def _numbered(entry: Fields, category: str) -> Iterator[Fields]:
    for number, check in enumerate(_checks(entry["natural_text"] or "")):
        name = f"{Path(entry['pdf']).stem}_{entry['page']}_{check['type']}_{number}"
        yield {"pdf": f"{category}/{entry['pdf']}", "page": entry["page"], "id": name, **check}


def _checks(text: str) -> Iterator[Fields]:
    """Yield what is true of a page with this text."""
    if not text:
        yield {"type": "baseline", "max_length": 0}
        return
    paragraphs = [line for line in text.split("\n") if len(line) > 30 and not line.startswith(("#", "<", "|"))]
    for paragraph in paragraphs:
        yield {"type": "present", "text": paragraph[:80], "max_diffs": 2}
    for before, after in itertools.pairwise(paragraphs):
        yield {"type": "order", "before": before[:40], "after": after[:40], "max_diffs": 2}
    heading = re.match(r"# (.+)", text)
    if heading:
        yield {"type": "present", "text": heading[1], "first_n": len(heading[1]) + 10, "max_diffs": 1}
    yield {"type": "absent", "text": "printed in the United States of America", "case_sensitive": False}
    yield from _table_checks(text)


def _table_checks(text: str) -> Iterator[Fields]:
    for grid in grids_in(text):
        for place, cell in grid.cells.items():
            if cell.text and not cell.heading:
                (top,) = (grid.cells[each].text for each in grid.headings(place, "up"))
                left = [grid.cells[each].text for each in grid.beside(place, "left")]
                yield {"type": "table", "cell": cell.text, "top_heading": top, "left": left[0] if left else None}


if __name__ == "__main__":
    make_bench(Path(sys.argv[1]))
