"""How far a converted model is from its source, as data: fidelity_report.json (docs/fidelity.md)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from olmocr.reports.parts import ComponentBits, Interval

FIDELITY_REPORT_FILE = "fidelity_report.json"
FIDELITY_REPORT_VERSION = 1


@dataclass(frozen=True)
class FlipClass:
    """At *positions* the source wrote a token of this class; at how many the other model prefers another."""

    token_class: str
    positions: int
    flips: int


@dataclass(frozen=True)
class PositionBin:
    """Positions *first* to *last* of the answers, counted from 0, and their mean divergence in nats."""

    first: int
    last: int
    positions: int
    mean_kl: float


@dataclass(frozen=True)
class Truncation:
    """The cost of storing only the *top_k* likeliest tokens of the source's distributions, and the rest as a sum.

    Over the *positions* stored completely: the mean divergence of complete distributions, and of the same ones cut.
    *mean_tail* and *max_tail* are the probability of what is not stored, over all positions.
    """

    top_k: int
    mean_tail: float
    max_tail: float
    positions: int
    whole_mean_kl: float
    cut_mean_kl: float


@dataclass(frozen=True)
class Distribution:
    """Teacher-forced on the source's own answers; output tokens only, including the end of the answer.

    Divergences are Kullback-Leibler's of the model from the source, in nats. *median_first_divergence* is the position,
    from 0, of the first flip, over pages that have one; None if none has.
    """

    positions: int
    mean_kl: float
    mean_kl_interval: Interval
    median_kl: float
    p99_kl: float
    top1_agreement: float
    pages_without_flip: int
    median_first_divergence: float | None
    flips: tuple[FlipClass, ...]
    by_position: tuple[PositionBin, ...]
    truncation: Truncation


@dataclass(frozen=True)
class TextErrors:
    """How far texts are from others: distances over lengths, and how many of *numbers* and *cells* are *exact*."""

    pages: int
    character_error_rate: float
    word_error_rate: float
    numbers: int
    exact_numbers: int
    tables: int
    exact_tables: int
    cells: int
    exact_cells: int


@dataclass(frozen=True)
class FreeRunning:
    """Greedy answers. *identical_pages* match byte for byte; the last three are over pages where both did not loop.

    *against_source* compares with the source's text. With the truth, if known, the model's text is compared and also
    the source's, to show what was wrong before.
    """

    pages: int
    identical_pages: int
    looping_pages: int
    against_source: TextErrors
    against_truth: TextErrors | None
    source_against_truth: TextErrors | None
    without_loops: TextErrors | None


@dataclass(frozen=True)
class Structure:
    """The results of the pipeline's retries on the pages.

    *stop_reasons* counts the first answers'; *loops* are pages with an answer that repeated itself; *attempts* counts
    pages by the number of attempts.
    """

    pages: int
    valid_pages: int
    valid_first_answers: int
    stop_reasons: Mapping[str, int]
    loops: int
    mean_attempts: float
    attempts: Mapping[str, int]


@dataclass(frozen=True)
class Cost:
    """The resources of a model. *peak_memory* is the most that MLX allocated, in bytes; rates are tokens a second.

    *bits_per_weight* and *components* come from the conversion report; None and empty without one.
    """

    weight_bytes: int
    bits_per_weight: float | None
    components: tuple[ComponentBits, ...]
    computed_in: str
    load_seconds: float
    peak_memory: int
    prefill_rate: float
    decode_rate: float
    pages_per_minute: float


@dataclass(frozen=True)
class Parity:
    """How far the unquantized model in MLX is from the same checkpoint in *reference*, on the same answers.

    The rest is the port's own error, and that of computing in another order. The largest difference of logarithms is
    over the probabilities of MLX's likeliest tokens.
    """

    reference: str
    pages: int
    positions: int
    mean_kl: float
    max_kl: float
    max_log_probability_difference: float
    top1_agreement: float
    identical_pages: int


@dataclass(frozen=True)
class BrokenLimit:
    """A broken limit: *measured* is not within *limit*."""

    name: str
    limit: float
    measured: float


@dataclass(frozen=True)
class GateResult:
    """The verdict of the limits in *file* for *recipe*."""

    file: str
    recipe: str
    passed: bool
    broken: tuple[BrokenLimit, ...]


@dataclass(frozen=True)
class FidelityPage:
    """One page; *mean_kl* is over its positions, *flips* counts those where the model prefers another token.

    Contains no text: the report is beside weights that get published, and pages may be private.
    """

    document: str
    page_number: int
    positions: int
    mean_kl: float
    flips: int
    first_divergence: int | None
    identical: bool
    looped: bool
    source_looped: bool
    valid: bool
    source_valid: bool
    attempts: int
    rejected: tuple[str, ...]
    character_error_rate: float
    truth_character_error_rate: float | None


@dataclass(frozen=True)
class FidelityReport:
    """A converted model compared with its source. *model* and *source* are the folders' own names.

    *weights* and *source_weights* are the SHA-256 of each file of weights, so that a report can be matched to them;
    *recipe* is that of the conversion report, None without one. *page_set* is the name of the pages' folder,
    *page_hashes* the SHA-256 of each document; *longest_side* is in pixels.
    """

    model: str
    source: str
    recipe: str | None
    weights: Mapping[str, str]
    source_weights: Mapping[str, str]
    page_set: str
    page_hashes: Mapping[str, str]
    longest_side: int
    max_tokens: int
    distribution: Distribution
    free_running: FreeRunning
    structure: Structure
    source_structure: Structure
    cost: Cost
    source_cost: Cost
    parity: Parity | None
    gate: GateResult | None
    pages: tuple[FidelityPage, ...]
    device: str
    machine: str
    versions: Mapping[str, str]
    version: int = FIDELITY_REPORT_VERSION


WIDTH = 80
"""All lines of text fit into this many terminal columns."""

_INDENT = 14


def wrapped(line: str, indent: int = 2) -> list[str]:
    """Return *line* as lines of at most :data:`WIDTH` columns; all except the first are indented by *indent*.

    A longer name stays in one piece, so that it can be copied.
    """
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def fidelity_lines(report: FidelityReport) -> list[str]:
    """Return *report* as text for a terminal of :data:`WIDTH` columns."""
    return [part for line in _lines(report) for part in wrapped(line, _INDENT)]


def _lines(report: FidelityReport) -> list[str]:
    found, free, cut = report.distribution, report.free_running, report.distribution.truncation
    low, high = found.mean_kl_interval.low, found.mean_kl_interval.high
    first = found.median_first_divergence
    return [
        f"{report.model} against {report.source}: {free.pages} pages ({report.page_set}, {report.longest_side} px)",
        f"divergence    mean {found.mean_kl:.2e} nats ({low:.2e} to {high:.2e}), median {found.median_kl:.2e}, "
        f"99th percentile {found.p99_kl:.2e}, over {found.positions} positions",
        f"{'':<14}cut to {cut.top_k} tokens it is {cut.cut_mean_kl:.3e}, uncut {cut.whole_mean_kl:.3e} "
        f"({cut.positions} positions)",
        f"same token    {found.top1_agreement:.3%}; {found.pages_without_flip} of {free.pages} pages without a flip"
        + ("" if first is None else f", elsewhere the first is at position {first:g}"),
        "flips         " + ", ".join(f"{each.flips} of {each.positions} {each.token_class}" for each in found.flips),
        f"identical     {free.identical_pages} of {free.pages} pages, {free.looping_pages} in a loop",
        f"from source   {_errors(free.against_source)}",
        *([] if free.against_truth is None else [f"from truth    {_errors(free.against_truth)}"]),
        *([] if free.source_against_truth is None else [f"   source's   {_errors(free.source_against_truth)}"]),
        f"valid         {_structure(report.structure)}",
        f"   source's   {_structure(report.source_structure)}",
        f"cost          {_cost(report.cost)}",
        f"   source's   {_cost(report.source_cost)}",
        *([] if report.parity is None else [_parity(report.parity)]),
        *([] if report.gate is None else _gate_lines(report.gate)),
    ]


def fidelity_verdict(report: FidelityReport) -> str:
    """Return in one sentence how far the model is from its source, and whether its limits are met."""
    found = report.distribution
    verdict = "" if report.gate is None else f"; its limits are {'met' if report.gate.passed else 'NOT met'}"
    return (
        f"{report.model} against {report.source}: mean divergence {found.mean_kl:.2e} nats, the same token at "
        f"{found.top1_agreement:.3%} of {found.positions} positions{verdict}"
    )


def _errors(errors: TextErrors) -> str:
    return (
        f"{errors.character_error_rate:.2%} of characters, {errors.word_error_rate:.2%} of words wrong; correct: "
        f"{errors.exact_numbers} of {errors.numbers} numbers, {errors.exact_tables} of {errors.tables} tables, "
        f"{errors.exact_cells} of {errors.cells} cells"
    )


def _structure(structure: Structure) -> str:
    return (
        f"{structure.valid_pages} of {structure.pages} pages, {structure.valid_first_answers} at the first answer; "
        f"{structure.mean_attempts:.2f} attempts a page, {structure.loops} pages with a loop"
    )


def _cost(cost: Cost) -> str:
    bits = "" if cost.bits_per_weight is None else f", {cost.bits_per_weight:.2f} bits per weight"
    return (
        f"{cost.weight_bytes / 1e9:.3f} GB{bits}, loaded in {cost.load_seconds:.1f} s, "
        f"at most {cost.peak_memory / 1e9:.2f} GB; {cost.prefill_rate:.0f} tokens/s read, "
        f"{cost.decode_rate:.0f} written, {cost.pages_per_minute:.1f} pages/min"
    )


def _parity(parity: Parity) -> str:
    return (
        f"parity        with {parity.reference}: mean {parity.mean_kl:.2e} nats, at most {parity.max_kl:.2e}, "
        f"logarithms up to {parity.max_log_probability_difference:.2e} apart, same token {parity.top1_agreement:.3%}, "
        f"{parity.identical_pages} of {parity.pages} texts identical"
    )


def _gate_lines(gate: GateResult) -> list[str]:
    verdict = "passed" if gate.passed else f"{len(gate.broken)} limits broken"
    limits = [f"{'':<14}{each.name} is {each.limit:g}, measured {each.measured:.4g}" for each in gate.broken]
    return [f"gate          {verdict} ({gate.file}, {gate.recipe})", *limits]
