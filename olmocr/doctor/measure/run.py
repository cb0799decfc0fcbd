"""MeasureTerms -> MachineReport, part by part; a part that fails does not end the others."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmocr.doctor.measure.apart import Apart
from olmocr.doctor.measure.parts import PARTS, READ_WITH, Found, Part, Workshop
from olmocr.doctor.measure.private import person_and_machine, private_names, without_names
from olmocr.doctor.measure.terms import MeasureTerms
from olmocr.errors import MissingDependencyError, OlmocrError, UsageError, output_error, reason_of
from olmocr.files import temporary_folder, write_whole
from olmocr.reports.machine import (
    INTERRUPTED,
    MACHINE_MARKDOWN_FILE,
    MACHINE_REPORT_FILE,
    DescribedMachine,
    MachineReport,
    MeasuredPart,
    PartState,
)
from olmocr.reports.machine_text import machine_markdown
from olmocr.reports.typed_json import report_json
from olmocr.runtime.device import Device, start_mlx
from olmocr.runtime.facts import versions, weight_hashes
from olmocr.runtime.machine import available_memory, chip, total_memory

OnProgress = Callable[[str, str, float, float], None]
"""Called with a part's name, its next step, the finished share of all parts, and about how many seconds are left."""

_START = 20.0  # seconds of weight for the first estimates, so that they do not jump
_PACKAGES = (
    "mlx",
    "mlx-cpu",
    "mlx-cuda-12",
    "mlx-cuda-13",
    "mlx-vlm",
    "transformers",
    "numpy",
    "pypdfium2",
    "numba",
    "mkl",
)


def measure_machine(
    terms: MeasureTerms, on_progress: OnProgress = lambda *progress: None, parts: Sequence[Part] = PARTS
) -> MachineReport:
    """Measure as *terms* say; the report explains why a part did not finish. Nothing is left on the disk.

    Ctrl-C ends the current part; the report then says that this part and the later ones were interrupted.

    Raises:
        CheckpointError: the folder that the terms name does not contain a model.
        UsageError: the terms name an unknown part.
    """
    chosen = chosen_parts(terms.parts, parts)
    terms.longest_side  # noqa: B018 - raises if there is no model
    weights = weight_hashes(terms.model) if terms.model else {}
    started, load = time.monotonic(), os.getloadavg()[0]
    with temporary_folder() as scratch:
        measuring = _Measuring(terms, Apart(scratch, terms.limit), chosen, on_progress)
        machine = replace(measuring.describe(), load=round(load, 2))
        measuring.measure_all()
        demo_weights = measuring.weights() if terms.model is None else weights
    left_out = [
        MeasuredPart(part.name, "unmeasured", ("it was not requested",), 0.0) for part in parts if part not in chosen
    ]
    empty: dict[str, Any] = dict.fromkeys(
        ("answers", "passes", "vision", "guidance", "memory", "growth", "serving", "resumption")
    )
    return MachineReport(
        machine=machine,
        model=terms.model.resolve().name if terms.model else f"demo, {READ_WITH}",
        weights=demo_weights,
        is_demo=terms.model is None,
        is_quick=terms.is_quick,
        parts=(*measuring.done, *left_out),
        date=datetime.date.today().isoformat(),
        seconds=round(time.monotonic() - started, 1),
        versions=versions(_PACKAGES),
        **({"conversions": (), "readings": ()} | empty | measuring.fields),
    )


def chosen_parts(names: Sequence[str], parts: Sequence[Part] = PARTS) -> list[Part]:
    """Return the named parts in the order of *parts*, or all of them if *names* is empty.

    Raises:
        UsageError: a name is not that of a part.
    """
    known = {part.name: part for part in parts}
    for name in names:
        if name not in known:
            raise UsageError(f"`parts` {name} is not a part; the parts are {', '.join(known)}")
    return [part for part in parts if not names or part.name in names]


class _Measuring:
    """Measures parts one after the other; *done* has the outcome of those that have ended."""

    def __init__(self, terms: MeasureTerms, apart: Apart, parts: Sequence[Part], on_progress: OnProgress) -> None:
        self._work = Workshop(terms, apart, is_gpu=False)
        self._parts = parts
        self._on_progress = on_progress
        self._clock = Clock([part.seconds[terms.is_quick] for part in parts])
        self._why_none: str | None = None
        folders = {"TEMPORARY": apart.scratch, "demo": terms.demo.folder}
        self._told = private_names(folders | ({terms.model.name: terms.model} if terms.model else {}))
        self._names = person_and_machine()
        self.done: list[MeasuredPart] = []
        self.fields: dict[str, Any] = {}

    def describe(self) -> DescribedMachine:
        """Return a description of this machine; if MLX does not start, nothing can be measured."""
        device = gpu = None
        try:
            device, kind, gpu = self._work.apart.call(describe_device)
            self._work.is_gpu = kind != "cpu"
        except OlmocrError as error:
            self._why_none = self._without_names(str(error))
        return DescribedMachine(
            chip=chip(),
            architecture=platform.machine(),
            system=described_system(),
            processors=os.cpu_count() or 1,
            memory=total_memory(),
            available_memory=available_memory(),
            device=device,
            gpu=gpu,
            load=0.0,
        )

    def measure_all(self) -> None:
        """Measure all parts, even if one fails."""
        for number, part in enumerate(self._parts):
            try:
                self._measure(part, number)
            except KeyboardInterrupt:
                rest = self._parts[number:]
                self.done += [MeasuredPart(each.name, "unmeasured", (INTERRUPTED,), 0.0) for each in rest]
                return

    def _measure(self, part: Part, number: int) -> None:
        if self._why_none:
            self.done.append(MeasuredPart(part.name, "unmeasured", (self._why_none,), 0.0))
            return
        started = time.monotonic()

        def on_step(share: float, what: str) -> None:
            self._on_progress(part.name, what, *self._clock.at(number, share))

        found = Found({})
        state: PartState
        why: tuple[str, ...]
        try:
            found = part.measure(self._work, on_step)
            state, why = ("wrong", tuple(found.wrong)) if found.wrong else ("measured", ())
        except MissingDependencyError as error:
            state, why = "unmeasured", (str(error),)
        except Exception as error:  # whatever the error, the other parts are still worth measuring
            state, why = "failed", (str(error) if isinstance(error, OlmocrError) else reason_of(error),)
        self.fields |= found.fields
        seconds = round(time.monotonic() - started, 1)
        found_part = MeasuredPart(part.name, state, why, seconds)
        self.done += [self._told_of(each) for each in (found_part, *found.other)]

    def weights(self) -> Mapping[str, str]:
        """Return the hashes of the conversion that read the pages, if it was made."""
        folder = self._work.folder_of(READ_WITH, "fit")
        return weight_hashes(folder) if (READ_WITH, "fit") in self._work.converted else {}

    def _told_of(self, part: MeasuredPart) -> MeasuredPart:
        return replace(part, why=tuple(map(self._without_names, part.why)))

    def _without_names(self, text: str) -> str:
        return without_names(text, self._told, self._names)


class Clock:
    """Estimates the finished share and the time left, from about how many *seconds* each part takes."""

    def __init__(self, seconds: Iterable[float], clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._seconds = list(seconds)
        self._clock = clock
        self._started = clock()

    def at(self, number: int, share: float) -> tuple[float, float]:
        """Return the finished share of all parts and the seconds left, when *share* of part *number* is finished."""
        total = sum(self._seconds)
        done = sum(self._seconds[:number]) + share * self._seconds[number]
        pace = (self._clock() - self._started + _START) / (done + _START)
        return done / total, (total - done) * pace


def described_system() -> str:
    """Return the operating system and its version; on macOS, not the kernel's version but its own."""
    return f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"{platform.system()} {platform.release()}"


def describe_device() -> tuple[str, str, str | None]:
    """Return the device on which MLX computes, as text for a person, its kind, and the name of a GPU."""
    device = start_mlx()
    import mlx.core as mx

    return str(device), device.kind, gpu_name(device, mx.device_info())


def gpu_name(device: Device, info: Mapping[str, Any]) -> str | None:
    """Return the name of the GPU whose ``mx.device_info()`` is *info*; None on a CPU, or if *info* has no name."""
    name = info.get("device_name") if device.kind != "cpu" else None
    return name if isinstance(name, str) else None


def write_machine_report(folder: Path, report: MachineReport) -> tuple[Path, Path]:
    """Write *report* into *folder* as JSON and as markdown; return both files.

    Raises:
        OutputError: they cannot be written.
    """
    files = folder / MACHINE_REPORT_FILE, folder / MACHINE_MARKDOWN_FILE
    make_folder(folder)
    write_whole(files[0], report_json(report))
    write_whole(files[1], machine_markdown(report))
    return files


def make_folder(folder: Path) -> None:
    """Make *folder* if it does not exist. This comes first, so that hours of measuring cannot end with this error.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, str(folder)) from error
