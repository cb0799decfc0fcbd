"""``make demo``: convert the demo checkpoint, read every demo page with each variant, compare with the truth."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from olmocr import PipelineConfig, run_pipeline
from olmocr.conversion.convert import convert
from olmocr.errors import ExitCode, OlmocrError
from olmocr.pipeline.summary import RunSummary
from olmocr.reports.conversion import ConversionReport
from olmocr.terminal.command import progress_bar, start_logging
from olmocr.validate.score import character_error_rate

DEMO = Path(__file__).parent
CHECKPOINT = DEMO / "checkpoint"
PAGES = DEMO / "pages"

LONGEST_SIDE = 644
"""Pixels: what the demo checkpoint was trained on. olmOCR itself is asked at 1288, the default."""


@dataclass(frozen=True)
class Row:
    """One variant, measured in this run. *error_rates* has one entry a page."""

    report: ConversionReport
    summary: RunSummary
    error_rates: list[float]


def measure(recipe: str, pdfs: list[Path], out: Path, console: Console) -> Row:
    """Convert to *recipe*, read *pdfs* with it, and compare the text with the truth."""
    model, workspace = out / f"model-{recipe}", out / f"workspace-{recipe}"
    for earlier in (model, workspace):
        shutil.rmtree(earlier, ignore_errors=True)
    (report,) = convert(CHECKPOINT, recipe, model)
    config = PipelineConfig(
        workspace=workspace,
        pdfs=tuple(map(str, pdfs)),
        model=str(model),
        markdown=True,
        target_longest_image_dim=LONGEST_SIDE,
    )
    with progress_bar(console, quiet=False) as progress:
        task = progress.add_task(f"{recipe}: reading pages", total=len(pages_of(pdfs)))
        summary = asyncio.run(run_pipeline(config, on_page=lambda *page: progress.advance(task)))
    return Row(report, summary, error_rates(workspace, pdfs))


def truth() -> dict[tuple[str, int], str]:
    """Return the true text of each page by (PDF's name, page number)."""
    entries = json.loads((PAGES / "pages.json").read_text(encoding="utf-8"))
    return {(entry["pdf"], entry["page"]): entry["natural_text"] or "" for entry in entries}


def pages_of(pdfs: list[Path]) -> dict[tuple[str, int], str]:
    """Return the pages of *pdfs* alone."""
    names = {pdf.name for pdf in pdfs}
    return {page: true for page, true in truth().items() if page[0] in names}


def error_rates(workspace: Path, pdfs: list[Path]) -> list[float]:
    """Return each page's character error rate; a page that was not read counts as empty."""
    texts = {}
    for path in (workspace / "results").glob("*.jsonl"):
        record = json.loads(path.read_text(encoding="utf-8"))
        for start, end, number in record["attributes"]["pdf_page_numbers"]:
            texts[Path(record["metadata"]["Source-File"]).name, number] = record["text"][start:end].rstrip("\n")
    return [character_error_rate(texts.get(page, ""), true) for page, true in pages_of(pdfs).items()]


def table(rows: list[Row]) -> Table:
    """Return the rows as a table, in markdown."""
    view = Table("variant", "bytes", "bits/weight", "pages", "valid answers", "mean CER", "s/page", box=box.MARKDOWN)
    for column in view.columns[1:]:
        column.justify = "right"
    for row in rows:
        pages = row.summary.pages
        view.add_row(
            row.report.recipe.name,
            f"{row.report.weight_bytes:,}",
            f"{row.report.bits_per_weight:.2f}",
            str(pages),
            f"{pages - row.summary.fallback_pages} of {pages}",
            f"{sum(row.error_rates) / len(row.error_rates):.2%}",
            f"{row.summary.seconds / pages:.2f}" if pages else "-",
        )
    return view


def main() -> int:
    """Run the demo; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="where everything goes (default: build/demo)"
    )
    parser.add_argument("--variants", nargs="+", default=["8bit", "4bit"], help="recipes (default: 8bit 4bit)")
    parser.add_argument("--pdfs", nargs="+", type=Path, default=sorted(PAGES.glob("*.pdf")), help="some demo PDFs only")
    options = parser.parse_args()
    if unknown := {pdf.name for pdf in options.pdfs} - {name for name, _ in truth()}:
        parser.error(f"the true text of {', '.join(sorted(unknown))} is not known; give PDFs of {PAGES}")
    console = start_logging(quiet=False)
    try:
        rows = [measure(recipe, options.pdfs, options.out, console) for recipe in options.variants]
    except OlmocrError as error:
        console.print(f"error: {error}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted")
        return ExitCode.INTERRUPTED
    Console(width=100).print(table(rows))
    for recipe in options.variants:
        workspace = options.out / f"workspace-{recipe}"
        print(f"{recipe}: markdown in {workspace / 'markdown'}, JSONL in {workspace / 'results'}")
    return max(row.summary.exit_code for row in rows)


if __name__ == "__main__":
    sys.exit(main())
