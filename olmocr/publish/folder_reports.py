"""A converted folder -> what its reports say: what was converted, whether it reads, how far it is from its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from olmocr.conversion.macs import RunningMemory, running_memory
from olmocr.conversion.source.config import flat_config
from olmocr.errors import InputError
from olmocr.model_folder import read_json, refuse_links_out
from olmocr.reports.bench import BENCH_REPORT_FILE, BenchReport
from olmocr.reports.conversion import REPORT_FILE, ConversionReport
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE, FidelityReport
from olmocr.reports.smoke import SMOKE_REPORT_FILE, SmokeReport
from olmocr.reports.typed_json import WrongTypeError, parse_as

R = TypeVar("R", ConversionReport, SmokeReport, FidelityReport, BenchReport)


@dataclass(frozen=True)
class Reports:
    """All that is known of the model in *folder*; what was not measured is None. *memory* is computed."""

    folder: Path
    conversion: ConversionReport
    memory: RunningMemory
    smoke: SmokeReport | None
    fidelity: FidelityReport | None
    bench: BenchReport | None


def read_reports(folder: Path) -> Reports:
    """Read the reports beside a model's weights, and refuse one that was made of other weights.

    Raises:
        CheckpointError: the folder has no config.json that can be read, or a link out of it.
        InputError: it has no conversion report, or a report that is damaged, of another version or of other weights.
    """
    conversion = read_conversion_report(folder)
    smoke = _read(folder / SMOKE_REPORT_FILE, SmokeReport)
    fidelity = _read(folder / FIDELITY_REPORT_FILE, FidelityReport)
    bench = _read(folder / BENCH_REPORT_FILE, BenchReport)
    found = ((SMOKE_REPORT_FILE, smoke), (FIDELITY_REPORT_FILE, fidelity), (BENCH_REPORT_FILE, bench))
    weights = {file.name: file.sha256 for file in conversion.files}
    for name, report in found:
        if report is not None and dict(report.weights) != weights:
            raise InputError(f"{folder / name} was made of other weights than {REPORT_FILE} names; measure these again")
    memory = running_memory(flat_config(read_json(folder / "config.json")), conversion.weight_bytes)
    return Reports(folder, conversion, memory, smoke, fidelity, bench)


def read_conversion_report(folder: Path) -> ConversionReport:
    """Read what a conversion left beside the weights.

    Raises:
        CheckpointError: something in the folder is a link out of it.
        InputError: there is none, or it is damaged or of another version.
    """
    refuse_links_out(folder)
    conversion = _read(folder / REPORT_FILE, ConversionReport)
    if conversion is None:
        raise InputError(f"{folder} has no {REPORT_FILE}; give a folder that olmocr.convert_to_mlx made")
    return conversion


def parse_conversion_report(text: str) -> ConversionReport:
    """Return a conversion report that came from anywhere.

    Raises:
        WrongTypeError: it is none, or of another version.
    """
    return _parse(text, ConversionReport)


def _read(path: Path, kind: type[R]) -> R | None:
    try:
        return _parse(path.read_text(encoding="utf-8"), kind)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, WrongTypeError) as error:
        raise InputError(f"{path} cannot be used: {error}; make it again") from error


def _parse(text: str, kind: type[R]) -> R:
    report = parse_as(kind, text)
    if report.version != kind.version:
        raise WrongTypeError(f"it is of version {report.version}, and this olmocr knows {kind.version}")
    return report
