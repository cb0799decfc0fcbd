"""``python demo/model_cards.py``: make the demo checkpoint's cards again from scratch, in one go.

Each variant is converted, tested, compared with the checkpoint on the demo's pages, including the harder ones, and
checked against its limits. Then the reports in ``model_cards/reports`` and the cards beside them are replaced. Run it
on an idle machine, because the cards contain speeds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from olmocr.calibration.convert import convert
from olmocr.errors import ExitCode, OlmocrError
from olmocr.publish.card import Variant, make_card, make_chart
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.scan import CHART_FILE
from olmocr.reports.conversion import REPORT_FILE
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE, fidelity_verdict
from olmocr.reports.smoke import SMOKE_REPORT_FILE, smoke_verdict
from olmocr.runtime.device import start_mlx
from olmocr.terminal.command import progress_bar, start_logging
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.measure import FidelityTerms, measure_fidelity, write_fidelity_report
from olmocr.validate.smoke.run import smoke_test

DEMO = Path(__file__).parent
CHECKPOINT = DEMO / "checkpoint"
PAGES = (DEMO / "pages", DEMO / "hard")
CARDS = DEMO.parent / "model_cards"

NAME = "tiny-olmocr"
ORGANISATION = "small-ocr"
LICENSE = "apache-2.0"
RECIPES = ("8bit", "mixed", "4bit")

KEPT = ("config.json", REPORT_FILE, SMOKE_REPORT_FILE, FIDELITY_REPORT_FILE)
"""The files to keep of a converted folder: all that a card is made from."""


def measure(folder: Path, work: Path, console: Console) -> bool:
    """Leave both reports beside the weights in *folder*; return whether it reads and is within its limits."""
    smoke = smoke_test(folder)
    console.print(smoke_verdict(smoke), markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress_bar(console, *columns, quiet=False) as progress:
        task = progress.add_task("measuring", total=None)
        terms = FidelityTerms(PAGES, work=work)
        fidelity = measure_fidelity(
            folder, CHECKPOINT, terms, lambda name, total: progress.update(task, total=total, advance=1)
        )
    gate = check_gates(fidelity, read_gates())
    fidelity = replace(fidelity, gate=gate)
    write_fidelity_report(folder, fidelity)
    console.print(fidelity_verdict(fidelity), markup=False)
    return smoke.passed and gate.passed


def write_cards(reports: Path, cards: Path) -> None:
    """Write a card for each folder in *reports* into *cards*, and the picture that they share."""
    variants = [Variant(f"{ORGANISATION}/{NAME}-{each}", read_reports(reports / f"{NAME}-{each}")) for each in RECIPES]
    for recipe, variant in zip(RECIPES, variants, strict=True):
        siblings = [each.row for each in variants if each is not variant]
        facts = find_facts(variant.reports.conversion, license_id=LICENSE)
        (cards / f"{NAME}-{recipe}.md").write_text(make_card(variant, facts, siblings), encoding="utf-8")
    (cards / CHART_FILE).write_text(make_chart([each.row for each in variants]) or "", encoding="utf-8")


def make_all(cards: Path, console: Console) -> bool:
    """Make everything again, and replace the contents of *cards* at the end; return whether all variants passed."""
    start_mlx()
    with tempfile.TemporaryDirectory(prefix="olmocr-cards-") as name:
        made, passed = Path(name) / "models", True
        for recipe in RECIPES:
            folder = made / f"{NAME}-{recipe}"
            convert(CHECKPOINT, recipe, folder)
            passed = measure(folder, Path(name) / "work", console) and passed
        for folder in sorted(made.iterdir()):
            there = cards / "reports" / folder.name
            there.mkdir(parents=True, exist_ok=True)
            for kept in KEPT:
                shutil.copyfile(folder / kept, there / kept)
    write_cards(cards / "reports", cards)
    return passed


def main() -> int:
    """Make the cards; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CARDS, help="folder of the cards (default: model_cards)")
    out = parser.parse_args().out
    console = start_logging(quiet=False)
    try:
        passed = make_all(out, console)
    except OlmocrError as error:
        console.print(f"error: {error}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted: the cards are as they were")
        return ExitCode.INTERRUPTED
    console.print(f"{out}: {len(RECIPES)} cards")
    return 0 if passed else ExitCode.GATE_FAILED


if __name__ == "__main__":
    sys.exit(main())
