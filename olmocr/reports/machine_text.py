"""Machine reports for people: one as markdown, several as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from olmocr.reports.machine import MachineReport, MeasuredReading, Reader

CONTENTS = (
    "This report contains the chip, the memory, the system's version, how busy the machine was, the versions of this "
    "package and its libraries, the name of the model's folder and the hashes of its weights, and the measurements. It "
    "does not contain a person's name, this machine's name, an address, a path or the text of a page."
)
"""The contents of a report, for a person who is about to send it."""

MACHINES = (
    "| machine | device | demo pages read | mean CER | pages/min, 8 at once | one at a time | "
    "mlx_vlm.server | pass over 1 token, 8, 32 (ms) | wrong or failed | report |"
)


def machine_markdown(report: MachineReport) -> str:
    """Return *report* as markdown for a person to read and send."""
    return "\n".join(_lines(report)) + "\n"


def machine_table(reports: Iterable[tuple[str, MachineReport]]) -> str:
    """Return a table that compares machines: a row for each report, with a link to its address."""
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
    """Return a reader's measurement: the one with drafts, if there is one."""
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
    yield f"- GPU: {machine.gpu or 'none that MLX reports'}"
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
    quick = " This was a quick run: few pages, one round." if report.is_quick else " Times are medians over rounds."
    load = f"{report.machine.load:.1f} processes ran or waited for {report.machine.processors} processors"
    busy = f" **The machine was busy: {load} before the start, so times may be far too long.**"
    return quick + (busy if report.is_busy else f" The machine was idle: {load} before the start.")


def _parts(report: MachineReport) -> Iterator[str]:
    yield "\n| part | | seconds | |\n| --- | --- | ---: | --- |"
    for part in report.parts:
        state = part.state if part.state in ("measured", "unmeasured") else f"**{part.state}**"
        yield f"| {part.name} | {state} | {part.seconds:.0f} | {_cell('; '.join(part.why))} |"


def _conversions(report: MachineReport) -> Iterator[str]:
    if not report.conversions:
        return
    yield "## Conversions of the demo checkpoint\n"
    yield "| recipe | method | seconds | peak memory | quantized by | bytes | SHA-256 | known bytes |"
    yield "| --- | --- | ---: | ---: | --- | ---: | --- | --- |"
    for each in report.conversions:
        yield (
            f"| {each.recipe} | {each.method} | {each.seconds:.1f} | {_mib(each.peak_memory)} | {each.processor} | "
            f"{each.weight_bytes:,} | `{each.sha256[:16]}…` | {each.known} |"
        )
    yield "\nThe bytes of `calibrated` depend on the kind of machine, so *other* or *unknown* is not an error there."


def _answers(report: MachineReport) -> Iterator[str]:
    answers = report.answers
    if answers is None:
        return
    count = len(answers.pages)
    yield "## Answers\n"
    yield (
        f"{answers.valid_pages} of {count} pages were read in olmOCR's format at {answers.longest_side} px, in "
        f"{answers.seconds:.1f} s. On average, {answers.mean_character_error_rate:.2%} of a page's characters are "
        "wrong."
    )
    worst = sorted(answers.pages, key=lambda page: -page.character_error_rate)[:3]
    told = [f"{each.document}, page {each.page_number}: {each.character_error_rate:.1%}" for each in worst]
    yield f"The worst pages: {'; '.join(told)}."


def _readings(report: MachineReport) -> Iterator[str]:
    if report.readings:
        yield "## The same pages, several at once, with and without drafts, and with mlx-vlm\n"
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
    yield f"## Passes over the weights, after {report.passes.context} tokens; medians of {report.passes.rounds}\n"
    yield f"| tokens | {' | '.join(f'{each.tokens}' for each in report.passes.passes)} |"
    yield f"| --- |{' ---: |' * len(report.passes.passes)}"
    yield f"| ms | {' | '.join(f'{1000 * each.seconds:.1f}' for each in report.passes.passes)} |"
    told = [f"{each.tokens / each.seconds:,.0f} tokens/s after {each.behind}" for each in report.passes.prefills]
    yield f"\nA prompt, {report.passes.prefills[0].tokens} tokens a step: {', '.join(told)}."


def _vision(report: MachineReport) -> Iterator[str]:
    if (vision := report.vision) is not None:
        yield "## Vision tower\n"
        yield (
            f"A page of {vision.longest_side} px ({vision.patches:,} patches) takes {1000 * vision.seconds:,.0f} ms; "
            f"mlx-vlm's own tower takes {1000 * vision.stock_seconds:,.0f} ms. Features differ by at most "
            f"{vision.difference:.1e} of the largest."
        )


def _guidance(report: MachineReport) -> Iterator[str]:
    if (guidance := report.guidance) is not None:
        yield "## Guided answers\n"
        yield (
            f"{guidance.pages} pages take {statistics.median(guidance.seconds):.1f} s with a forced front matter and "
            f"{statistics.median(guidance.plain_seconds):.1f} s without. {guidance.valid} answers with it and "
            f"{guidance.plain_valid} without it follow the format; {guidance.same_texts} texts are the same."
        )


def _memory(report: MachineReport) -> Iterator[str]:
    if (memory := report.memory) is not None:
        yield "## Memory\n"
        yield (
            f"MLX's arrays took {_mib(memory.active)} when the model was loaded and up to {_mib(memory.peak)} while "
            f"pages were read; the process took up to {_mib(memory.process)}."
        )
        if memory.recommended is not None:
            yield f"The GPU's driver lets a process keep {_mib(memory.recommended)}."
        for limit in memory.limits:
            used = "not reported" if limit.held is None else _mib(limit.held)
            yield f"- {limit.name} limit: set to {_mib(limit.wanted)}, is {_mib(limit.in_force)}, most used: {used}"
        if not memory.limits:
            yield "The limits of wired and cached memory are unmeasured: they are set on Metal only."
    if (growth := report.growth) is not None:
        yield (
            f"\nOne engine read {growth.pages} pages in {growth.seconds:.0f} s. In the second quarter of the pages, "
            f"MLX's arrays took {_mib(growth.early_active)} and the process {_mib(growth.early_resident)}; "
            f"in the last, {_mib(growth.late_active)} and {_mib(growth.late_resident)}."
        )


def _driven(report: MachineReport) -> Iterator[str]:
    if (serving := report.serving) is not None:
        yield "## olmocr serve, and a run that was killed\n"
        right = "Both are right" if serving.page_right and serving.document_right else "At least one is **wrong**"
        yield (
            f"The server was ready {serving.start_seconds:.1f} s after its start. A page took "
            f"{serving.page_seconds:.1f} s, and a document of {serving.document_pages} pages "
            f"{serving.document_seconds:.1f} s. {right}. When it was stopped, the server ended with status "
            f"{serving.exit_code}."
        )
    if (resumption := report.resumption) is not None:
        yield (
            f"\nA run over {resumption.pages} pages was killed when {resumption.pages_before} had been saved. The next "
            f"run read {resumption.asked_again} of those again; {resumption.missing} pages are missing."
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
    """Return *text* in the form that a cell needs."""
    return " ".join(text.replace("|", "\\|").split())
