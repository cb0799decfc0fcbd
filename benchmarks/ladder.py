"""The ladders of docs/quantization.md: the demo checkpoint by every recipe, and by one with too few bits, on its pages.

This converts into build/ladder, each recipe by its own method, measures each page set, prints a table for each, and
writes an HTML page. With --methods, the table has a column for each method, on demo/hard. With --write, tables and
plots go into docs/. Earlier measurements are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from machine import describe_machine

from olmocr.calibration.choice import Wish, settle
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import Method, find_recipe, read_recipe
from olmocr.conversion.write import write_models
from olmocr.files import write_whole
from olmocr.hub.find import find_settings
from olmocr.reports.fidelity import FidelityReport
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.html import write_fidelity_html
from olmocr.validate.fidelity.ladder import by_size, ladder_markdown, size, size_plot
from olmocr.validate.fidelity.measure import FidelityTerms, MeasuredModels, compare, write_fidelity_report
from olmocr.validate.fidelity.plots import Point, size_by_method
from olmocr.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "demo/checkpoint"
PAGE_SETS = (ROOT / "demo/pages", ROOT / "demo/hard")
RECIPES = ("none", "8bit", "6bit", "mixed-large", "5bit", "mixed", "4bit", "mixed-small", "3bit", "mixed-tiny")
METHODS: tuple[Method, ...] = ("stock", "fit", "calibrated")
DOCUMENT = ROOT / "docs/quantization.md"
BEGIN, END = "<!-- made by benchmarks/ladder.py -->\n", "<!-- until here -->\n"
BEGIN_METHODS, END_METHODS = "<!-- made by benchmarks/ladder.py --methods -->\n", "<!-- methods until here -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="+", help="folders of pages (default: those of the demo)")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="which of the package (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/ladder", help="where models and pages to look at go"
    )
    parser.add_argument("--work", type=Path, help="where measurements are kept (default: the user's cache)")
    parser.add_argument("--methods", action="store_true", help="compare methods, on the last of the pages")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/")
    args = parser.parse_args()
    if args.methods:
        compare_methods(args)
        return
    folders = convert_missing(args.recipes, args.output / "models")
    parts = []
    for pages in args.pages or [each for each in PAGE_SETS if each.is_dir()]:
        with compare(folders, CHECKPOINT, FidelityTerms((pages,), work=args.work), said) as measured:
            measured = with_gates(measured)
            for folder, report in zip(folders, measured.reports, strict=True):
                write_fidelity_report(folder, report)
            write_fidelity_html(args.output / f"{pages.name}.html", measured)
        if args.write:
            write_whole(ROOT / f"docs/ladder-{pages.name}.svg", size_plot(by_size(measured.reports)))
        parts.append(part(pages.name, measured))
    text = f"{describe_machine()}; olmocr {__version__}, {measured.reports[0].device}.\n\n" + "\n".join(parts)
    print(text)
    if args.write:
        put(text)


def compare_methods(args: argparse.Namespace) -> None:
    """Print a table of each recipe by each method; on request, write it and a plot into docs/."""
    names = [name for name in args.recipes if name != "none"]
    folders = {method: convert_missing(names, args.output / method, method) for method in METHODS}
    pages = (args.pages or PAGE_SETS)[-1]
    every = [folder for method in METHODS for folder in folders[method]]
    with compare(every, CHECKPOINT, FidelityTerms((pages,), work=args.work), said) as measured:
        reports = dict(zip(every, measured.reports, strict=True))
    rows = [[reports[folder] for folder in of] for of in zip(*(folders[method] for method in METHODS), strict=True)]
    text = f"{describe_machine()}; olmocr {__version__}, {rows[0][0].device}.\n\n{methods_table(pages.name, rows)}"
    print(text)
    if args.write:
        points = {method: [point_of(row[number]) for row in rows] for number, method in enumerate(METHODS)}
        write_whole(ROOT / "docs/ladder-methods.svg", size_by_method(points))
        put(text, BEGIN_METHODS, END_METHODS)


def methods_table(name: str, rows: Sequence[Sequence[FidelityReport]]) -> str:
    """Return a table: for each recipe mean KL, its 99th percentile and how often the token is the same, by method."""
    lines = [
        f"`demo/{name}`, mean divergence in nats (its 99th percentile; same token):\n",
        f"| recipe | size | {' | '.join(METHODS)} | calibrated / stock |",
        "| --- | ---: |" + " ---: |" * (len(METHODS) + 1),
    ]
    for row in sorted(rows, key=lambda row: -row[0].cost.weight_bytes):
        found = [report.distribution for report in row]
        cells = [f"{each.mean_kl:.2e} ({each.p99_kl:.1e}; {each.top1_agreement:.2%})" for each in found]
        ratio = f"{found[-1].mean_kl / found[0].mean_kl:.2f}"
        lines.append(f"| {row[0].recipe} | {size(row[0].cost.weight_bytes)} | {' | '.join(cells)} | {ratio} |")
    return "\n".join([*lines, "", "![Size against divergence by method](ladder-methods.svg)", ""])


def point_of(report: FidelityReport) -> Point:
    found = report.distribution
    interval = found.mean_kl_interval
    return Point(report.recipe or report.model, report.cost.weight_bytes, found.mean_kl, interval.low, interval.high)


def convert_missing(names: Sequence[str], output: Path, method: Method | None = None) -> list[Path]:
    """Return a folder for each recipe; convert those that are missing, by their own method or by *method*."""
    too_few = [] if method else [read_recipe(ROOT / "benchmarks/recipes/too-few.yaml")]
    recipes = [*map(find_recipe, names), *too_few]
    targets = plan_targets(find_settings(str(CHECKPOINT), None), recipes, method, output)
    missing = [target for target in targets if not target.output.exists()]
    if missing:
        missing, calibration = settle(missing, Wish(method or "calibrated"))
        write_models(missing, calibration=calibration)
    return [target.output for target in targets]


def with_gates(measured: MeasuredModels) -> MeasuredModels:
    gates = read_gates()
    reports = tuple(dataclasses.replace(report, gate=check_gates(report, gates)) for report in measured.reports)
    return dataclasses.replace(measured, reports=reports)


def said(name: str, total: int) -> None:
    print(".", end="", flush=True)


def part(name: str, measured: MeasuredModels) -> str:
    """Return the document's section about one page set."""
    first = measured.reports[0]
    truth = first.free_running.source_against_truth
    source = "" if truth is None else f"; of its own answers {truth.character_error_rate:.2%} are wrong by the truth"
    return (
        f"`demo/{name}`: {len(first.pages)} pages at {first.longest_side} pixels, {first.distribution.positions:,} "
        f"tokens of the source's{source}.\n\n{ladder_markdown(measured.reports)}\n"
        f"![Size against divergence from the source, on {name}](ladder-{name}.svg)\n"
    )


def put(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace the previous text in the document by *text*."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    write_whole(DOCUMENT, f"{before}{begin}{text}{end}{after}")


if __name__ == "__main__":
    main()
