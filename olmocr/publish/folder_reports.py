"""A converted folder -> its reports: what was converted, whether it reads, how far it is from its source."""

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
    """All that is known about the model in *folder*; None for what was not measured. *memory* is computed."""

    folder: Path
    conversion: ConversionReport
    memory: RunningMemory
    smoke: SmokeReport | None
    fidelity: FidelityReport | None
    bench: BenchReport | None


def read_reports(folder: Path) -> Reports:
    """Read the reports beside a model's weights; refuse one about other weights.

    Raises:
        CheckpointError: the folder lacks a readable config.json, or has a link out of it.
        InputError: it has no conversion report, or one that is damaged, of another version or about other weights.
    """
    conversion = read_conversion_report(folder)
    smoke = _read(folder / SMOKE_REPORT_FILE, SmokeReport)
    fidelity = _read(folder / FIDELITY_REPORT_FILE, FidelityReport)
    bench = _read(folder / BENCH_REPORT_FILE, BenchReport)
    found = ((SMOKE_REPORT_FILE, smoke), (FIDELITY_REPORT_FILE, fidelity), (BENCH_REPORT_FILE, bench))
    weights = {file.name: file.sha256 for file in conversion.files}
    for name, report in found:
        if report is not None and dict(report.weights) != weights:
            raise InputError(f"{folder / name} is about other weights than {REPORT_FILE} lists; measure these again")
    memory = running_memory(flat_config(read_json(folder / "config.json")), conversion.weight_bytes)
    return Reports(folder, conversion, memory, smoke, fidelity, bench)


def read_conversion_report(folder: Path) -> ConversionReport:
    """Read what a conversion left beside the weights.

    Raises:
        CheckpointError: something in the folder is a link out of it.
        InputError: it is missing, damaged, or of another version.
    """
    refuse_links_out(folder)
    conversion = _read(folder / REPORT_FILE, ConversionReport)
    if conversion is None:
        raise InputError(f"{folder} has no {REPORT_FILE}; give a folder that olmocr.convert_to_mlx made")
    return conversion


def parse_conversion_report(text: str) -> ConversionReport:
    """Return a conversion report from an untrusted source.

    Raises:
        WrongTypeError: it is not one, or of another version.
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
        raise WrongTypeError(f"it has version {report.version}, but this olmocr reads {kind.version}")
    return report
