"""What machines measured of themselves, as a person reads it: one report in markdown, several in a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from olmocr.reports.machine import MachineReport, MeasuredReading, Reader

CONTENTS = (
    "What it holds: the chip, the memory, the system's version, how busy the machine was, versions of this package and "
    "of libraries, the model folder's own name and the hashes of its weights, and what was measured. It holds no name "
    "of a person or of this machine, no address, no path and no text of a page."
)
"""What a person is told before they send a report."""

MACHINES = (
    "| machine | device | demo pages that are read | mean CER | pages/min, 8 at once | one at a time | "
    "mlx_vlm.server | pass over 1 token, 8, 32 (ms) | wrong or failed | report |"
)


def machine_markdown(report: MachineReport) -> str:
    """Return *report* as a person reads and sends it."""
    return "\n".join(_lines(report)) + "\n"


def machine_table(reports: Iterable[tuple[str, MachineReport]]) -> str:
    """Return a table with a row for each report, which has an address: what is known of machines, side by side."""
    rows = [MACHINES, "|" + " --- |" * 2 + " ---: |" * 6 + " --- |" * 2]
    rows += [_row(address, report) for address, report in reports]
    return "\n".join(rows) + "\n"


def machine_name(report: MachineReport) -> str:
    """Return a machine in a few words: its GPU or chip, and its memory."""
    machine = report.machine
    cpu = f", {machine.processors} CPUs" if not machine.gpu else ""
    return f"{machine.gpu or machine.chip}{cpu}, {machine.memory / 2**30:.0f} GiB"


def _row(address: str, report: MachineReport) -> str:
    answers, passes = report.answers, report.passes
    costs = {each.tokens: f"{1000 * each.seconds:.1f}" for each in passes.passes} if passes else {}
    bad = [part.name for part in report.parts if part.state in ("wrong", "failed")]
    kind = ", ".join(["quick"] * report.is_quick + ["other programs ran"] * report.is_busy)
    cells = [
        f"{_cell(machine_name(report))}{f' ({kind})' if kind else ''}",
        _cell(report.machine.device or "none"),
        f"{answers.valid_pages} of {len(answers.pages)}" if answers else "unmeasured",
        f"{answers.mean_character_error_rate:.2%}" if answers else "unmeasured",
        _rate(_reading(report, "olmocr", 8)),
        _rate(_reading(report, "olmocr", 1)),
        _rate(_reading(report, "mlx_vlm.server", None)),
        ", ".join(costs.get(size, "?") for size in (1, 8, 32)) if costs else "unmeasured",
        ", ".join(bad) or "nothing",
        f"[{report.date}]({address})" if report.is_demo else f"[{_cell(report.model)}, {report.date}]({address})",
    ]
    return f"| {' | '.join(cells)} |"


def _reading(report: MachineReport, reader: Reader, at_once: int | None) -> MeasuredReading | None:
    """Return what a reader did, with drafts where it has them."""
    found = [each for each in report.readings if each.reader == reader and at_once in (None, each.at_once)]
    return max(found, key=lambda each: each.has_drafts, default=None)


def _rate(reading: MeasuredReading | None) -> str:
    return f"{reading.pages_a_minute:.1f}" if reading else "unmeasured"


def _lines(report: MachineReport) -> Iterator[str]:
    machine = report.machine
    yield f"# {machine_name(report)}: what olmocr {report.versions.get('olmocr', '')} measured here"
    yield f"\n{report.date}, in {report.seconds / 60:.1f} minutes, with the model {report.model}." + _remark(report)
    yield f"\n{CONTENTS}\n"
    yield f"- chip: {machine.chip} ({machine.architecture}), {machine.processors} processors"
    yield f"- GPU: {machine.gpu or 'none that MLX tells of'}"
    available = "" if machine.available_memory is None else f", {gib(machine.available_memory)} available before"
    yield f"- memory: {gib(machine.memory)}{available}"
    yield f"- system: {machine.system}; MLX: {machine.device or 'does not start'}"
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}"
    yield from _parts(report)
    for section in _SECTIONS:
        lines = list(section(report))
        if lines:
            yield ""
            yield from lines


def _remark(report: MachineReport) -> str:
    quick = " It was quick: few pages, one round." if report.is_quick else " Timings are medians of rounds in turn."
    load = f"{report.machine.load:.1f} processes ran or waited for {report.machine.processors} processors"
    busy = f" **The machine was busy: {load} before anything was begun; times may be far too long.**"
    return quick + (busy if report.is_busy else f" The machine was idle: {load} before anything was begun.")


def _parts(report: MachineReport) -> Iterator[str]:
    yield "\n| part | | seconds | |\n| --- | --- | ---: | --- |"
    for part in report.parts:
        state = part.state if part.state in ("measured", "unmeasured") else f"**{part.state}**"
        yield f"| {part.name} | {state} | {part.seconds:.0f} | {_cell('; '.join(part.why))} |"


def _conversions(report: MachineReport) -> Iterator[str]:
    if not report.conversions:
        return
    yield "## Conversions of the demo checkpoint\n"
    yield "| recipe | method | seconds | peak memory | quantized by | bytes | SHA-256 | as known |"
    yield "| --- | --- | ---: | ---: | --- | ---: | --- | --- |"
    for each in report.conversions:
        yield (
            f"| {each.recipe} | {each.method} | {each.seconds:.1f} | {_mib(each.peak_memory)} | {each.processor} | "
            f"{each.weight_bytes:,} | `{each.sha256[:16]}…` | {each.known} |"
        )
    yield "\nBytes of `calibrated` depend on the kind of machine: *other* or *unknown* is no fault there."


def _answers(report: MachineReport) -> Iterator[str]:
    answers = report.answers
    if answers is None:
        return
    count = len(answers.pages)
    yield "## Answers\n"
    yield (
        f"{answers.valid_pages} of {count} pages read in olmOCR's format at {answers.longest_side} px, in "
        f"{answers.seconds:.1f} s; {answers.mean_character_error_rate:.2%} of the characters wrong, mean over pages."
    )
    worst = sorted(answers.pages, key=lambda page: -page.character_error_rate)[:3]
    told = [f"{each.document}, page {each.page_number}: {each.character_error_rate:.1%}" for each in worst]
    yield f"The worst: {'; '.join(told)}."


def _readings(report: MachineReport) -> Iterator[str]:
    if report.readings:
        yield "## The same pages, by how many at once, with drafts and without, and by mlx-vlm\n"
        yield from reading_table(report.readings)


def reading_table(readings: Iterable[MeasuredReading]) -> Iterator[str]:
    """Yield the lines of a table in markdown, a row for each of *readings*."""
    heads = "pages | pages/min | rounds | tokens/s | passes/token | peak | same text |"
    yield f"| reader | weights | at once | drafts | {heads}"
    yield "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for each in readings:
        rates = [60 * each.pages / seconds for seconds in each.seconds]
        passes = "" if each.passes_a_token is None else f"{each.passes_a_token:.2f}"
        yield (
            f"| {each.reader} | {_cell(each.weights)} | {each.at_once} | {'yes' if each.has_drafts else 'no'} | "
            f"{each.pages} | {each.pages_a_minute:.1f} | {min(rates):.1f} to {max(rates):.1f} | "
            f"{each.tokens_a_second:.0f} | {passes} | {_mib(each.peak_memory)} | {each.same_texts} of {each.pages} |"
        )


def _passes(report: MachineReport) -> Iterator[str]:
    if report.passes is None:
        return
    yield f"## Passes over the weights, behind {report.passes.context} tokens; medians of {report.passes.rounds}\n"
    yield f"| tokens | {' | '.join(f'{each.tokens}' for each in report.passes.passes)} |"
    yield f"| --- |{' ---: |' * len(report.passes.passes)}"
    yield f"| ms | {' | '.join(f'{1000 * each.seconds:.1f}' for each in report.passes.passes)} |"
    told = [f"{each.tokens / each.seconds:,.0f} tokens/s behind {each.behind}" for each in report.passes.prefills]
    yield f"\nA prompt, {report.passes.prefills[0].tokens} tokens a step: {', '.join(told)}."


def _vision(report: MachineReport) -> Iterator[str]:
    if (vision := report.vision) is not None:
        yield "## Vision tower\n"
        yield (
            f"A page of {vision.longest_side} px, {vision.patches:,} patches: {1000 * vision.seconds:,.0f} ms, with "
            f"mlx-vlm's own tower {1000 * vision.stock_seconds:,.0f} ms; features differ by at most "
            f"{vision.difference:.1e} of the largest."
        )


def _guidance(report: MachineReport) -> Iterator[str]:
    if (guidance := report.guidance) is not None:
        yield "## Guided answers\n"
        yield (
            f"{guidance.pages} pages with the front matter's form forced: {statistics.median(guidance.seconds):.1f} s, "
            f"without {statistics.median(guidance.plain_seconds):.1f} s; {guidance.valid} and {guidance.plain_valid} "
            f"hold the format, {guidance.same_texts} texts are the same."
        )


def _memory(report: MachineReport) -> Iterator[str]:
    if (memory := report.memory) is not None:
        yield "## Memory\n"
        yield (
            f"MLX's arrays: {_mib(memory.active)} when the model was loaded, {_mib(memory.peak)} at most while pages "
            f"were read; the process {_mib(memory.process)} at most."
        )
        if memory.recommended is not None:
            yield f"The GPU's driver lets a process keep {_mib(memory.recommended)}."
        for limit in memory.limits:
            held = "not told" if limit.held is None else _mib(limit.held)
            yield f"- limit of {limit.name}: set to {_mib(limit.wanted)}, is {_mib(limit.in_force)}, most held: {held}"
        if not memory.limits:
            yield "Limits of wired and cached memory are unmeasured: they are set on Metal only."
    if (growth := report.growth) is not None:
        yield (
            f"\n{growth.pages} pages by one engine in {growth.seconds:.0f} s: MLX's arrays {_mib(growth.early_active)} "
            f"in the second quarter and {_mib(growth.late_active)} in the last, the process "
            f"{_mib(growth.early_resident)} and {_mib(growth.late_resident)}."
        )


def _driven(report: MachineReport) -> Iterator[str]:
    if (serving := report.serving) is not None:
        yield "## olmocr serve, and a run that was killed\n"
        right = "right" if serving.page_right and serving.document_right else "**wrong**"
        yield (
            f"The server answered {serving.start_seconds:.1f} s after it was started, a page took "
            f"{serving.page_seconds:.1f} s and a document of {serving.document_pages} pages "
            f"{serving.document_seconds:.1f} s; both are {right}; told to end, it ended with status "
            f"{serving.exit_code}."
        )
    if (resumption := report.resumption) is not None:
        yield (
            f"\nA run over {resumption.pages} pages was killed when {resumption.pages_before} were kept; run again, it "
            f"read {resumption.asked_again} of them again, and {resumption.missing} pages are missing."
        )


_SECTIONS: Sequence[Callable[[MachineReport], Iterator[str]]] = (
    _conversions,
    _answers,
    _readings,
    _passes,
    _vision,
    _guidance,
    _memory,
    _driven,
)


def gib(size: int) -> str:
    """Return *size*, in bytes, as GiB."""
    return f"{size / 2**30:.1f} GiB"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _cell(text: str) -> str:
    """Return *text* as it can stand in a cell."""
    return " ".join(text.replace("|", "\\|").split())
