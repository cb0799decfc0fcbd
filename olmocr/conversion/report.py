"""What a conversion did, as data: conversion_report.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

REPORT_FILE = "conversion_report.json"
REPORT_VERSION = 1


@dataclass(frozen=True)
class ConversionReport:
    """Counted from the plan that was carried out. *kept* maps each reason to the number of tensors kept for it."""

    source: str
    revision: str | None
    recipe: str
    tensors: int
    parameters: int
    weight_bytes: int
    bits_per_weight: float
    kept: dict[str, int]
    olmocr_version: str
    mlx_version: str
    seconds: float
    version: int = REPORT_VERSION


def write_report(report: ConversionReport, folder: Path) -> None:
    """Write *report* into *folder*."""
    text = json.dumps(dataclasses.asdict(report), indent=2)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
