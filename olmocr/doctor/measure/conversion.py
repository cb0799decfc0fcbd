"""The demo checkpoint -> a converted folder, and whether it has the known bytes."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

from olmocr.calibration.convert import convert
from olmocr.conversion.recipe import Method
from olmocr.doctor.measure.terms import Demo
from olmocr.reports.conversion import ConversionReport
from olmocr.reports.machine import KnownBytes, MeasuredConversion
from olmocr.runtime.device import start_mlx

ANY = "any"
"""The kind of machine for bytes that are the same on all machines: those of ``stock`` and ``fit``."""


def convert_demo(demo: Demo, recipe: str, method: Method, output: Path) -> MeasuredConversion:
    """Convert the demo checkpoint into *output*, and compare the result with the known bytes."""
    (report,) = convert(demo.checkpoint, recipe, output, method=method)
    digest = digest_of(report)
    return MeasuredConversion(
        recipe=recipe,
        method=report.method,
        seconds=report.seconds,
        peak_memory=report.peak_memory,
        processor=report.processor,
        weight_bytes=report.weight_bytes,
        sha256=digest,
        known=compare(demo.known_conversions, f"{recipe} {method}", digest, kind_of_machine()),
    )


def digest_of(report: ConversionReport) -> str:
    """Return one SHA-256 for all weight files: that of the lines, hash and name, that ``sha256sum`` would print."""
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in report.files)
    return hashlib.sha256(lines.encode()).hexdigest()


def compare(known: Path, conversion: str, digest: str, kind: str) -> KnownBytes:
    """Return whether the file *known* has *digest* for this *conversion* on this *kind* of machine."""
    of_it: dict[str, list[str]] = json.loads(known.read_text(encoding="utf-8")).get(conversion, {})
    digests = [*of_it.get(ANY, []), *of_it.get(kind, [])]
    if digest in digests:
        return "same"
    return "other" if digests else "unknown"


def kind_of_machine() -> str:
    """Return what the bytes of ``calibrated`` depend on, besides the processor's own instructions."""
    return f"{platform.machine()} {platform.system()}, {start_mlx().kind}"
