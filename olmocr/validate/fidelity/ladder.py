"""Reports on models made from one source -> a table of them, the largest first, and whether it is a ladder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from olmocr.reports.fidelity import WIDTH, FidelityReport, TextErrors, wrapped
from olmocr.text import printable
from olmocr.validate.fidelity.plots import Point, Series, divergence_by_position, size_against_fidelity

COLUMNS = (
    "model",
    "size",
    "bits/weight",
    "mean divergence, nats",
    "95% interval",
    "same token",
    "identical",
    "wrong, by source",
    "wrong, by truth",
    "numbers right",
    "valid",
    "tokens/s",
    "gate",
)


def by_size(reports: Sequence[FidelityReport]) -> list[FidelityReport]:
    """Return *reports*, the largest model's first."""
    return sorted(reports, key=lambda report: (-report.cost.weight_bytes, report.model))


def model_labels(reports: Sequence[FidelityReport]) -> list[str]:
    """Return a distinguishing label for each model: its recipe, or the folder's name if that is not enough."""
    recipes = Counter(report.recipe for report in reports)
    return [
        report.recipe if report.recipe and recipes[report.recipe] == 1 else printable(report.model)
        for report in reports
    ]


def ladder_rows(reports: Sequence[FidelityReport]) -> list[tuple[str, ...]]:
    """Return the cells of a table of *reports*, as text: those of *COLUMNS*, in the order given."""
    return [_row(label, report) for label, report in zip(model_labels(reports), reports, strict=True)]


def _row(label: str, report: FidelityReport) -> tuple[str, ...]:
    found, free, cost = report.distribution, report.free_running, report.cost
    interval = found.mean_kl_interval
    return (
        label,
        size(cost.weight_bytes),
        "" if cost.bits_per_weight is None else f"{cost.bits_per_weight:.2f}",
        f"{found.mean_kl:.2e}",
        f"{interval.low:.2e} to {interval.high:.2e}",
        f"{found.top1_agreement:.3%}",
        f"{free.identical_pages} of {free.pages}",
        f"{free.against_source.character_error_rate:.2%}",
        _rate(free.against_truth),
        _numbers(free.against_truth),
        f"{report.structure.valid_pages} of {report.structure.pages}",
        f"{cost.decode_rate:.0f}",
        verdict(report),
    )


def size(nbytes: int) -> str:
    """Return *nbytes* in readable form."""
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _rate(errors: TextErrors | None) -> str:
    return "" if errors is None else f"{errors.character_error_rate:.2%}"


def _numbers(errors: TextErrors | None) -> str:
    return "" if errors is None else f"{errors.exact_numbers} of {errors.numbers}"


def verdict(report: FidelityReport) -> str:
    """Return the limits' verdict on a model, in a word or two; "" without limits."""
    if report.gate is None:
        return ""
    count = len(report.gate.broken)
    return "passed" if report.gate.passed else f"broke {count} limit{'s' * (count > 1)}"


def ladder_lines(reports: Sequence[FidelityReport]) -> list[str]:
    """Return *reports* as a table for a terminal of 80 columns, one model in each column, and conclusions below."""
    ordered = by_size(reports)
    first = ordered[0]
    title = (
        f"{len(ordered)} models compared with {first.source}: {len(first.pages)} pages ({first.page_set}, "
        f"{first.longest_side} px)"
    )
    table = [line for part in _beside_each_other(ladder_rows(ordered)) for line in part]
    below = [*steps(ordered), *broken_limits(ordered)]
    return [*wrapped(title), *table, *(part for line in below for part in wrapped(line))]


def _beside_each_other(models: Sequence[tuple[str, ...]]) -> Iterator[list[str]]:
    """Yield tables of *models*, as many in each as fit, with an empty line between them."""
    names = max(map(len, COLUMNS))
    taken: list[tuple[str, ...]] = []
    room = WIDTH - names
    for model in models:
        width = 2 + max(map(len, model))
        if taken and width > room:
            yield [*_columns(taken, names), ""]
            taken, room = [], WIDTH - names
        taken.append(model)
        room -= width
    yield _columns(taken, names)


def _columns(models: Sequence[tuple[str, ...]], names: int) -> list[str]:
    widths = [max(map(len, model)) for model in models]
    return [
        "  ".join(
            [f"{name:<{names}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]
        ).rstrip()
        for name, *cells in zip(COLUMNS, *models, strict=True)
    ]


def ladder_markdown(reports: Sequence[FidelityReport]) -> str:
    """Return *reports* as a table in markdown, with conclusions below."""
    ordered = by_size(reports)
    rows = [COLUMNS, ("---", *("---:" for _ in COLUMNS[1:])), *ladder_rows(ordered)]
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in (*steps(ordered), *broken_limits(ordered)))]) + "\n"


def steps(reports: Sequence[FidelityReport]) -> list[str]:
    """Return in words where a model is nearer to the source than the next larger one; *reports* start with the largest.

    It is certainly nearer if its interval is entirely below the other's.
    """
    labels = model_labels(reports)
    back = [
        (labels[number], labels[number + 1], larger, smaller)
        for number, (larger, smaller) in enumerate(pairwise(reports))
        if smaller.distribution.mean_kl < larger.distribution.mean_kl
    ]
    if len(reports) < 2:
        return []
    if not back:
        return ["With every step down in size the mean divergence grows."]
    return [
        f"{small} is smaller than {large} and nearer to the source"
        + ("." if _is_apart(smaller, larger) else ", though their intervals overlap.")
        for large, small, larger, smaller in back
    ]


def _is_apart(nearer: FidelityReport, farther: FidelityReport) -> bool:
    return nearer.distribution.mean_kl_interval.high < farther.distribution.mean_kl_interval.low


def broken_limits(reports: Sequence[FidelityReport]) -> list[str]:
    """Return each broken limit, and the model that broke it."""
    return [
        f"{label} broke {each.name} of {report.gate.recipe} ({report.gate.file}): it is {each.limit:g}, "
        f"measured was {each.measured:.4g}"
        for label, report in zip(model_labels(reports), reports, strict=True)
        if report.gate
        for each in report.gate.broken
    ]


def size_plot(reports: Sequence[FidelityReport], **style: str) -> str:
    """Return size against fidelity as SVG."""
    points = [
        Point(
            label,
            report.cost.weight_bytes,
            report.distribution.mean_kl,
            report.distribution.mean_kl_interval.low,
            report.distribution.mean_kl_interval.high,
        )
        for label, report in zip(model_labels(reports), reports, strict=True)
    ]
    return size_against_fidelity(points, **style)


def position_plot(reports: Sequence[FidelityReport], **style: str) -> str:
    """Return divergence by position as SVG. All reports have the same positions: those of the source's answers."""
    places = [f"{each.first}\u2013{each.last}" for each in reports[0].distribution.by_position]
    series = [
        Series(label, tuple(each.mean_kl for each in report.distribution.by_position))
        for label, report in zip(model_labels(reports), reports, strict=True)
    ]
    return divergence_by_position(places, series, **style)
