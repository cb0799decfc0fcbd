"""The cards in model_cards/ are what their command makes of the reports beside them, and these are of this code."""

import json
import sys

import pytest
from typer.testing import CliRunner

from olmocr.publish.__main__ import app
from tests.conftest import ROOT

CARDS = ROOT / "model_cards"
REPORTS = CARDS / "reports"
RECIPES = ("8bit", "mixed", "4bit")

# Of a conversion report: how it went on the machine where it was made.
OF_THE_RUN = {"processor", "threads", "resumed_shards", "seconds", "peak_memory", "versions"}


def name_of(recipe):
    return f"tiny-olmocr-{recipe}"


def without_rounding(report):
    """Return what of a report does not depend on which codes were chosen."""
    tensors = [{**each, "relative_error": None} for each in report["tensors"]]
    files = [{**each, "sha256": None} for each in report["files"]]
    return {**report, "tensors": tensors, "files": files, "method": None, "command": None, "calibration": None}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_card_is_what_the_command_makes_of_the_reports(recipe, tmp_path):
    args = ["card", str(REPORTS / name_of(recipe)), "--repo", f"small-ocr/{name_of(recipe)}", "--license", "apache-2.0"]
    for other in RECIPES:
        if other != recipe:
            args += ["--sibling", str(REPORTS / name_of(other))]
    done = CliRunner().invoke(app, [*args, "--output", str(tmp_path / "card.md")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "card.md").read_text() == (CARDS / f"{name_of(recipe)}.md").read_text()
    assert (tmp_path / "size-fidelity.svg").read_text() == (CARDS / "size-fidelity.svg").read_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_reports_are_of_what_the_demo_checkpoint_converts_to(recipe, converted):
    here = converted(recipe)
    there = REPORTS / name_of(recipe)
    reports = [json.loads((folder / "conversion_report.json").read_text()) for folder in (here, there)]
    reports[1].setdefault("calibration", None)  # which reports of earlier versions do not have
    if reports[1]["calibration"]:  # other bytes on another kind of machine, and the rest is the same
        losses = reports[1]["calibration"]["matrices"]
        assert sum(each["stored"] for each in losses) < 0.6 * sum(each["fit"] for each in losses)
        reports = [without_rounding(report) for report in reports]
    ours, theirs = ({key: value for key, value in report.items() if key not in OF_THE_RUN} for report in reports)
    assert ours == theirs
    assert (here / "config.json").read_text() == (there / "config.json").read_text()


def test_the_script_that_measures_anew_makes_the_same_cards_of_the_same_reports(tmp_path):
    sys.path.insert(0, str(ROOT / "demo"))
    try:
        import model_cards
    finally:
        sys.path.remove(str(ROOT / "demo"))
    model_cards.write_cards(REPORTS, tmp_path)
    assert len(list(tmp_path.iterdir())) == len(RECIPES) + 1
    for path in tmp_path.iterdir():
        assert path.read_text() == (CARDS / path.name).read_text(), path.name


def test_the_template_beside_the_cards_is_the_one_that_is_used():
    packaged = ROOT / "olmocr" / "publish" / "template.md.j2"
    assert (CARDS / "template.md.j2").resolve() == packaged.resolve()
