"""A folder to be published -> which steps were taken already, according to its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.report import recipe_report
from olmocr.conversion.write import Target
from olmocr.errors import InputError
from olmocr.files import sha256_of
from olmocr.model_folder import shard_sha256
from olmocr.publish.folder_reports import Reports, read_conversion_report, read_reports
from olmocr.reports.conversion import REPORT_FILE, ConversionReport, SourceFile
from olmocr.validate.known_pages.page_set import page_hashes, read_page_set
from olmocr.version import __version__


def made_before(target: Target) -> ConversionReport | None:
    """Return the report beside *target*'s output if it is the same conversion: source, recipe, method and version."""
    if not (target.output / REPORT_FILE).is_file():
        return None
    try:
        report = read_conversion_report(target.output)
    except InputError:
        return None
    plan = target.plan
    asked = (recipe_report(plan.recipe), plan.method, __version__)
    if (report.recipe, report.method, report.versions.get("olmocr")) != asked:
        return None
    return report if report.source.files == _source_files(plan) else None


def has_passed_smoke(folder: Path) -> bool:
    """Return whether these weights have passed a smoke test, by the report beside them."""
    reports = _reports(folder)
    return reports is not None and reports.smoke is not None and reports.smoke.passed


def has_passed_fidelity(folder: Path, source_weights: Mapping[str, str], pages: Sequence[Path]) -> bool:
    """Return whether these weights were measured against those of the source, and are within the limits.

    Without *pages*, any pages it was measured on will do.

    Raises:
        InputError: *pages* cannot be read.
    """
    reports = _reports(folder)
    found = reports.fidelity if reports else None
    if found is None or found.gate is None or not found.gate.passed or found.source_weights != source_weights:
        return False
    return not pages or found.page_hashes == page_hashes(read_page_set(pages))


def _reports(folder: Path) -> Reports | None:
    try:
        return read_reports(folder)
    except InputError:  # a report that is damaged, or about other weights, is made again
        return None


def _source_files(plan: ConversionPlan) -> tuple[SourceFile, ...] | None:
    """Return the source's shards with their hashes; None if one is not here and the Hub does not list its hash."""
    found = []
    for name in sorted({tensor.source.shard for tensor in plan.tensors}):
        sha256 = shard_sha256(plan.source.folder, name) or _sha256(plan.source.folder.path / name)
        if sha256 is None:
            return None
        found.append(SourceFile(name, sha256))
    return tuple(found)


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
