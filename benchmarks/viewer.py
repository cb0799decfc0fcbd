"""The viewer at the size of an archive: seconds, memory and files for a workspace made on the spot.

    python benchmarks/viewer.py --documents 50000 [--package FOLDER_OF_ANOTHER_VERSION]

Each record has three pages of text and no source, so no pictures are drawn: this measures everything else that the
viewer does for a document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MEASURE = """
import os, resource, runpy, sys
sys.argv = ["viewer", *sys.argv[1:]]
try:
    runpy.run_module("olmocr.viewer", run_name="__main__")
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(f"peak {peak:.0f}", file=sys.stderr)
"""


def make_workspace(folder: Path, documents: int) -> None:
    """Write results of that many documents; one in a hundred has a page with low coverage, one in 200 failed."""
    draw = random.Random(1)
    words = [f"w{number:04}" for number in range(5000)]
    for name in ("results", "failed"):
        (folder / name).mkdir(parents=True)
    for number in range(documents):
        source = f"archive/{number // 1000:03}/document-{number:06}.pdf"
        if number % 200 == 7:
            failed = {"Source-File": source, "error": "it is encrypted"}
            (folder / "failed" / f"{number:06}.json").write_text(json.dumps(failed))
            continue
        texts = [" ".join(draw.choices(words, k=300)) + "\n" for _ in range(3)]
        ends = [sum(map(len, texts[: page + 1])) for page in range(3)]
        spans = [[end - len(text), end, page] for page, (end, text) in enumerate(zip(ends, texts, strict=True), 1)]
        attributes = {"pdf_page_numbers": spans, "low_coverage": [number % 100 == 3, False, False]}
        record = {"text": "".join(texts), "metadata": {"Source-File": source}, "attributes": attributes}
        (folder / "results" / f"output_{number:06}.jsonl").write_text(json.dumps(record) + "\n")


def measured(workspace: Path, package: Path, options: list[str]) -> str:
    """Run the viewer, and return its cost: seconds, peak memory in MB, and files that were written."""
    begun_at, begun = time.time_ns(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(workspace), *options],
        cwd=package,  # which is where Python looks first
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    if done.returncode:
        sys.exit(done.stderr)
    files = [path for path in (workspace / "viewer").rglob("*.html") if path.stat().st_mtime_ns >= begun_at]
    index = (workspace / "viewer/index.html").stat().st_size / 1e6
    peak = done.stderr.split("peak ")[-1].strip()
    return f"{seconds:8.1f} s {peak:>6} MB {len(files):>7} files written, index.html {index:6.2f} MB"


def main() -> None:
    """Make a workspace, and run the viewer twice, then after adding a document, then with a filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--choices", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="viewer-") as name:
        workspace = Path(name) / "ws"
        make_workspace(workspace, given.documents)
        if given.choices:
            for options in (["--failed"], ["--poor", "--sample", "20"], ["--document", "document-000042.pdf"]):
                print(f"{' '.join(options):34}", measured(workspace, given.package, options), flush=True)
        print(f"{'all, the first time':34}", measured(workspace, given.package, []), flush=True)
        print(f"{'all, again':34}", measured(workspace, given.package, []), flush=True)
        (workspace / "results/output_000000.jsonl").unlink()
        print(f"{'all, after one document went':34}", measured(workspace, given.package, []), flush=True)


if __name__ == "__main__":
    main()
