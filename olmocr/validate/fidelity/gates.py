"""FidelityReport and limits by recipe -> GateResult: whether this conversion may be called good."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from olmocr.errors import UsageError, reason_of
from olmocr.reports.fidelity import BrokenLimit, FidelityReport, GateResult

PACKAGED_GATES = "gates.yaml"
_DEFAULT = "default"
_LONGEST_FILE = 100_000  # characters; YAML parses about 100,000 a second

LIMITS = ("most_mean_kl", "least_top1_agreement", "least_valid_share", "most_loop_share", "most_error_rate")
"""Each limit's name says on which side of it a measurement must be."""

Limits = Mapping[str, float]


def read_gates(path: Path | None = None) -> Mapping[str, Limits]:
    """Return limits by recipe from the YAML file at *path*, or the packaged ones; each includes those of ``default``.

    Raises:
        UsageError: it cannot be read, or is not a file of limits.
    """
    name = str(path) if path else PACKAGED_GATES
    try:
        text = path.read_text("utf-8") if path else (resources.files(__package__) / PACKAGED_GATES).read_text("utf-8")
        if len(text) > _LONGEST_FILE:
            raise UsageError(f"{name} has more than {_LONGEST_FILE:,} characters, too many for limits")
        value = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or a 31 February
        raise UsageError(f"the limits in {name} cannot be read: {reason_of(error)}") from error
    if not isinstance(value, dict) or not set(value) <= {_DEFAULT, "recipes"}:
        raise UsageError(f"{name} is not a file of limits: that has only default and recipes")
    default = _limits(value.get(_DEFAULT, {}), f"{name}: default")
    recipes = value.get("recipes") or {}
    if not isinstance(recipes, dict):
        raise UsageError(f"{name}: recipes is not a list of 'recipe: limits'")
    own = {str(recipe): _limits(limits, f"{name}: {recipe}") for recipe, limits in recipes.items()}
    return {_DEFAULT: default} | {recipe: {**default, **limits} for recipe, limits in own.items()}


def _limits(value: Any, where: str) -> Limits:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a list of 'limit: number'")
    for name, limit in value.items():
        if name not in LIMITS:
            raise UsageError(f"{where} has a limit {name!r}; use one of {', '.join(LIMITS)}")
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise UsageError(f"{where}: {name} is {limit!r}, not a number")
    return {name: float(limit) for name, limit in value.items()}


def check_gates(report: FidelityReport, gates: Mapping[str, Limits], file: Path | None = None) -> GateResult:
    """Return which limits of the report's recipe fail; those of ``default`` if it has none of its own."""
    recipe = report.recipe if report.recipe in gates else _DEFAULT
    measured = _measured(report)
    broken = tuple(
        BrokenLimit(name, limit, measured[name])
        for name, limit in gates[recipe or _DEFAULT].items()
        if not (measured[name] <= limit if name.startswith("most_") else measured[name] >= limit)
    )
    return GateResult(file.name if file else PACKAGED_GATES, recipe or _DEFAULT, not broken, broken)


def _measured(report: FidelityReport) -> dict[str, float]:
    pages = report.pages
    readable = [page for page in pages if page.source_valid]
    return {
        "most_mean_kl": report.distribution.mean_kl,
        "least_top1_agreement": report.distribution.top1_agreement,
        "least_valid_share": sum(page.valid for page in readable) / len(readable) if readable else 1.0,
        "most_loop_share": sum(page.looped and not page.source_looped for page in pages) / len(pages),
        "most_error_rate": report.free_running.against_source.character_error_rate,
    }
