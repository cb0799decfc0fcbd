"""A conversion report -> the same conversion again, and whether it gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from olmocr.calibration.convert import convert
from olmocr.conversion.recipe import Method, QuantRecipe, parse_recipe
from olmocr.errors import InputError, UsageError
from olmocr.files import temporary_folder
from olmocr.model_folder import HASHES_FILE
from olmocr.publish.folder_reports import read_conversion_report
from olmocr.publish.front_matter import REPO_ID
from olmocr.publish.scan import WEIGHTS, scan_folder
from olmocr.reports.conversion import REPORT_FILE, ConversionReport, RecipeReport, RuleReport

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Compared:
    """A file of the folder or of the new conversion: *same* if both have it, with the same SHA-256."""

    name: str
    same: bool
    detail: str


@dataclass(frozen=True)
class Reproduction:
    """The result. *source_is_same* compares hashes of shards; *versions* are packages that differ: then, now.

    *pages_are_same* says whether the calibration pages, if any, are those in the report, byte for byte.
    """

    source_is_same: bool
    files: tuple[Compared, ...]
    versions: dict[str, tuple[str, str]]
    pages_are_same: bool = True

    @property
    def holds(self) -> bool:
        """Whether the weights and all other converted files are the same."""
        return self.source_is_same and all(file.same for file in self.files)


def reproduce(
    folder: Path,
    source: str | None = None,
    progress: Progress = lambda nbytes: None,
    calibrate_on: Sequence[Path] = (),
) -> Reproduction:
    """Convert the source of *folder* again, as its report says, and compare every converted file.

    *source* is a folder or repository to use instead of the one that the report names, *calibrate_on* the pages used
    for calibration, unless they were drawn. The new folder is created beside *folder* and removed again. Calibrated
    models come out the same only on the same kind of machine: MLX's device and its libraries are in ``versions``.

    Raises:
        InputError: the folder lacks a conversion report, or the report has a recipe or method unknown to this version.
        UsageError: the report names a source that is not a repository, and none is given.
        OlmocrError: the source cannot be converted.
    """
    report = read_conversion_report(folder)
    if source is None and not REPO_ID.fullmatch(report.source.name):
        raise UsageError(f"{folder} was made from a folder called {report.source.name}; say where it is with --source")
    if report.calibration and not report.calibration.drawn and not calibrate_on:
        count = len(report.calibration.pages)
        raise UsageError(
            f"{folder} was calibrated on {count} pages that were not drawn here; give them with `calibrate_on`"
        )
    recipe = recipe_of(report.recipe)
    revision = report.source.revision if source is None else None
    with temporary_folder(folder.resolve().parent) as temporary:
        again = temporary / "model"
        (made,) = convert(
            source or report.source.name,
            recipe,
            again,
            method=_method(report),
            calibrate_on=calibrate_on,
            calibration_gradients=report.calibration is not None and report.calibration.counted_by == "gradient",
            calibration_propagation=report.calibration.propagated if report.calibration else None,
            revision=revision,
            leave_out=report.source.left_out,
            progress=progress,
        )
        files = _compare(folder, again)
    return Reproduction(
        made.source.files == report.source.files,
        files,
        _differing_versions(report, made),
        _page_hashes(report) == _page_hashes(made),
    )


def _page_hashes(report: ConversionReport) -> list[str]:
    return [page.sha256 for page in report.calibration.pages] if report.calibration else []


def recipe_of(report: RecipeReport) -> QuantRecipe:
    """Return the recipe in a report, as if it were read from its file.

    Raises:
        InputError: it does not describe one.
    """
    described: dict[str, Any] = {
        "name": report.name,
        "summary": report.summary,
        "dtype": report.dtype,
        "vision_mlp_multiple": report.vision_mlp_multiple,
        "rules": [_without_none(rule) for rule in report.rules],
    }
    text = json.dumps({key: value for key, value in described.items() if value is not None}, ensure_ascii=False)
    try:
        recipe = parse_recipe(text.encode(), f"the recipe in {REPORT_FILE}")
    except (UsageError, UnicodeEncodeError) as error:
        raise InputError(str(error)) from error
    return dataclasses.replace(recipe, changes=report.changes, file=report.file)


def _without_none(rule: RuleReport) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(rule).items() if value is not None}


def _method(report: ConversionReport) -> Method:
    for method in get_args(Method):
        if method == report.method:
            return method  # type: ignore[no-any-return]
    raise InputError(f"{REPORT_FILE} names the method {report.method!r}, which this version does not have")


def _compare(folder: Path, again: Path) -> tuple[Compared, ...]:
    """Compare the converted files, without the report (which contains times) and files added later."""
    there = {file.name: file.sha256 for file in scan_folder(folder).files}
    new = {file.name: file.sha256 for file in scan_folder(again).files if file.name != REPORT_FILE}
    names = sorted(new.keys() | {name for name in there if WEIGHTS.fullmatch(name) or name == HASHES_FILE})
    return tuple(Compared(name, there.get(name) == new.get(name), _detail(name, there, new)) for name in names)


def _detail(name: str, there: dict[str, str], new: dict[str, str]) -> str:
    if name not in there or name not in new:
        return "only in the new one" if name in new else "only in the folder"
    return there[name] if there[name] == new[name] else f"{there[name]} is {new[name]} in the new one"


def _differing_versions(then: ConversionReport, now: ConversionReport) -> dict[str, tuple[str, str]]:
    names = sorted({*then.versions, *now.versions})
    pairs = {name: (then.versions.get(name, "none"), now.versions.get(name, "none")) for name in names}
    if then.calibration and now.calibration:
        pairs["device"] = (then.calibration.device, now.calibration.device)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
