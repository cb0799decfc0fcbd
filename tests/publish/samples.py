"""Reports as the tools write them, for weights that a test has made: numbers that a test can find again in a card."""

import json
import shutil
from dataclasses import replace
from types import MappingProxyType

from olmocr.reports.fidelity import (
    BrokenLimit,
    Cost,
    Distribution,
    FidelityReport,
    FlipClass,
    FreeRunning,
    GateResult,
    Structure,
    TextErrors,
    Truncation,
)
from olmocr.reports.parts import Interval
from olmocr.reports.smoke import SmokePage, SmokeReport
from olmocr.reports.typed_json import report_json

HOSTILE = (
    "</svg><script>alert(1)</script> | [a](javascript:b) ![c](//d) `e` **f** <img src=x>\n\n# g\n---\nwww.h.org {{ i }}"
)


def weights_of(folder):
    """Return what reports name of the weights in *folder*: the SHA-256 of each file."""
    conversion = json.loads((folder / "conversion_report.json").read_text())
    return {file["name"]: file["sha256"] for file in conversion["files"]}


def smoke_report(weights, passed=True, kind="table"):
    page = SmokePage(
        document="table_15.pdf",
        page_number=1,
        kind=kind,
        passed=passed,
        problems=() if passed else ("it lacks a phrase",),
        status="valid",
        attempts=1,
        rejected=(),
        finish_reason="stop",
        rotation=0,
        input_tokens=1700,
        output_tokens=345,
        phrases=("Invoice",),
        missing_phrases=(),
        character_error_rate=0.0123,
        seconds=3.5,
    )
    return SmokeReport(
        model="demo",
        weights=weights,
        backend="in this process",
        page_set="demo pages",
        longest_side=644,
        passed=passed,
        problems=(),
        pages=(page, replace(page, kind="plain", character_error_rate=None)),
        known_faults=(),
        seconds=7.0,
        versions={"olmocr": "0.1.0"},
    )


def text_errors(rate):
    return TextErrors(
        pages=8,
        character_error_rate=rate,
        word_error_rate=2 * rate,
        numbers=40,
        exact_numbers=39,
        tables=2,
        exact_tables=1,
        cells=30,
        exact_cells=29,
    )


def fidelity_report(
    weights,
    mean_kl=0.0123,
    passed=True,
    weight_bytes=26_000_000,
    machine="a test's machine",
    source_weights=MappingProxyType({}),
):
    cost = Cost(weight_bytes, 9.5, (), "bfloat16", 1.5, 3_100_000_000, 812.5, 41.25, 3.75)
    structure = Structure(8, 8, 7, {"stop": 8}, 0, 1.125, {"1": 7, "2": 1})
    limits = () if passed else (BrokenLimit("mean_kl", 0.002, mean_kl),)
    return FidelityReport(
        model="demo",
        source="checkpoint",
        recipe="8bit",
        weights=weights,
        source_weights=dict(source_weights),
        page_set="demo pages",
        page_hashes={},
        longest_side=644,
        max_tokens=8000,
        distribution=Distribution(
            positions=2345,
            mean_kl=mean_kl,
            mean_kl_interval=Interval(mean_kl / 2, mean_kl * 2, 0.95, 1000),
            median_kl=0.00045,
            p99_kl=0.0987,
            top1_agreement=0.9912,
            pages_without_flip=5,
            median_first_divergence=17.0,
            flips=(FlipClass("digits", 200, 3), FlipClass("table tags", 0, 0)),
            by_position=(),
            truncation=Truncation(64, 0.0001, 0.001, 100, 0.01, 0.01),
        ),
        free_running=FreeRunning(
            8, 6, 0, text_errors(0.0222), text_errors(0.0333), text_errors(0.0111), text_errors(0.0222)
        ),
        structure=structure,
        source_structure=replace(structure, valid_first_answers=8),
        cost=cost,
        source_cost=replace(cost, weight_bytes=36_000_000),
        parity=None,
        gate=GateResult("gates/default.yaml", "8bit", passed, limits),
        pages=(),
        device="cpu",
        machine=machine,
        versions={"olmocr": "0.1.0"},
    )


def model_copy(folder, target, smoke=True, fidelity=True, **measured):
    """Copy a converted folder with reports beside it: True for good ones, False for bad ones, None for none."""
    shutil.copytree(folder, target)
    weights = weights_of(folder)
    if smoke is not None:
        (target / "smoke_report.json").write_text(report_json(smoke_report(weights, smoke)))
    if fidelity is not None:
        report = fidelity_report(weights, passed=fidelity, **measured)
        (target / "fidelity_report.json").write_text(report_json(report))
    return target


def change_report(folder, change):
    """Have *change* alter the conversion report of *folder*."""
    path = folder / "conversion_report.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))
