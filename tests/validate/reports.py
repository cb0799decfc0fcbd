"""Fidelity reports made on the spot, and which fields of a report a document explains."""

import dataclasses
import re

from olmocr.reports.fidelity import (
    Cost,
    Distribution,
    FidelityPage,
    FidelityReport,
    FreeRunning,
    Structure,
    TextErrors,
    Truncation,
)
from olmocr.reports.parts import Interval

_ERRORS = TextErrors(1, 0.0, 0.0, 0, 0, 0, 0, 0, 0)
_STRUCTURE = Structure(1, 1, 1, {"stop": 1}, 0, 1.0, {"1": 1})
_COST = Cost(1000, None, (), "float32", 0.1, 1000, 1.0, 1.0, 1.0)


def documented_fields(document):
    """Return the fields that a document's table of them has rows for."""
    (table,) = re.findall(r"^\| field \|.*\n\|[ |-]+\n((?:\|.*\n)+)", document, re.MULTILINE)
    return {name for row in table.splitlines() for name in re.findall("`(\\w+)`", row.split("|")[1])}


def page(**fields):
    """Return a page that both models read alike, except for *fields*."""
    same = FidelityPage("a.pdf", 1, 10, 0.0, 0, None, True, False, False, True, True, 1, (), 0.0, None)
    return dataclasses.replace(same, **fields)


def report(recipe="4bit", *, mean_kl=0.0, top1_agreement=1.0, error_rate=0.0, pages=None):
    """Return the report of a conversion that is as good as its source, except for what is given."""
    pages = pages or (page(),)
    errors = dataclasses.replace(_ERRORS, character_error_rate=error_rate)
    distribution = Distribution(
        10, mean_kl, Interval(0.0, 0.0, 0.95, 2000), 0.0, 0.0, top1_agreement, 1, None, (), (),
        Truncation(128, 0.0, 0.0, 8, 0.0, 0.0),
    )  # fmt: skip
    return FidelityReport(
        model="model", source="source", recipe=recipe, weights={}, source_weights={}, page_set="pages", page_hashes={},
        longest_side=644, max_tokens=4000, distribution=distribution,
        free_running=FreeRunning(len(pages), 1, 0, errors, None, None, None),
        structure=_STRUCTURE, source_structure=_STRUCTURE, cost=_COST, source_cost=_COST, parity=None, gate=None,
        pages=tuple(pages), device="MLX", machine="machine", versions={},
    )  # fmt: skip
