"""The ladder of docs/quantization.md: the demo checkpoint by every recipe and by one with too few bits, on its pages.

Converts into build/ladder, measures each page set, prints a table of each, and leaves a page to look at. With --write
tables and plots are put into docs/. What was measured before is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from machine import describe_machine

from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe, read_recipe
from olmocr.conversion.write import write_models
from olmocr.files import write_whole
from olmocr.hub.find import find_settings
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.html import write_fidelity_html
from olmocr.validate.fidelity.ladder import by_size, ladder_markdown, size_plot
from olmocr.validate.fidelity.measure import Comparison, FidelityTerms, compare, write_fidelity_report
from olmocr.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "demo/checkpoint"
PAGE_SETS = (ROOT / "demo/pages", ROOT / "demo/hard")
RECIPES = ("none", "8bit", "6bit", "mixed-large", "5bit", "mixed", "4bit", "mixed-small", "3bit")
DOCUMENT = ROOT / "docs/quantization.md"
BEGIN, END = "<!-- made by benchmarks/ladder.py -->\n", "<!-- until here -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="+", help="folders of pages (default: those of the demo)")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="which of the package (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build/ladder", help="where models and pages to look at go"
    )
    parser.add_argument("--work", type=Path, help="where measurements are kept (default: the user's cache)")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/")
    args = parser.parse_args()
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


def convert_missing(names: Sequence[str], output: Path) -> list[Path]:
    """Return a folder for each recipe, converted unless it is there."""
    recipes = [*map(find_recipe, names), read_recipe(ROOT / "benchmarks/recipes/too-few.yaml")]
    targets = plan_targets(find_settings(str(CHECKPOINT), None), recipes, "fit", output)
    missing = [target for target in targets if not target.output.exists()]
    if missing:
        write_models(missing)
    return [target.output for target in targets]


def with_gates(measured: Comparison) -> Comparison:
    gates = read_gates()
    reports = tuple(dataclasses.replace(report, gate=check_gates(report, gates)) for report in measured.reports)
    return dataclasses.replace(measured, reports=reports)


def said(name: str, total: int) -> None:
    print(".", end="", flush=True)


def part(name: str, measured: Comparison) -> str:
    """Return what the document says of one page set."""
    first = measured.reports[0]
    truth = first.free_running.source_against_truth
    source = "" if truth is None else f"; of its own answers {truth.character_error_rate:.2%} are wrong by the truth"
    return (
        f"`demo/{name}`: {len(first.pages)} pages at {first.longest_side} pixels, {first.distribution.positions:,} "
        f"tokens of the source's{source}.\n\n{ladder_markdown(measured.reports)}\n"
        f"![Size against divergence from the source, on {name}](ladder-{name}.svg)\n"
    )


def put(text: str) -> None:
    """Put *text* into the document where the last one stands."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_whole(DOCUMENT, f"{before}{BEGIN}{text}{END}{after}")


if __name__ == "__main__":
    main()
