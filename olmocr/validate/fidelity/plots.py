"""Variants with measured fidelity -> pictures of it, as SVG without scripts, links or fonts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from olmocr.text import one_line

_WIDTH, _WIDE, _HEIGHT = 720, 1480, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 128, 18, 56
_LINE = 15  # between two labels, at least
_LETTER = 7.2  # the width of one, at most

# Two computations of the same numbers diverge by about this much; less means none.
_LEAST_KL = 1e-7

_COLOURS = ("#2a6db0", "#b3541e", "#2f7d4f", "#8a4fa3", "#94700a", "#0f7f8c", "#b0355a", "#5f6b7a")

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#777}.axis{stroke:#999}.grid{stroke:#999;stroke-opacity:.28}"
    ".series{stroke-width:1.8;fill:none}.hollow{stroke-width:1.5;fill:none}"
    + "".join(
        f".s{number}{{stroke:{colour};fill:{colour}}}.series.s{number},.hollow.s{number}{{fill:none}}"
        for number, colour in enumerate(_COLOURS)
    )
)
"""The style of a standalone picture, on light and on dark paper."""

COLOURS = len(_COLOURS)
"""How many series have their own colour; each also has a shape or a label."""


@dataclass(frozen=True)
class Point:
    """A variant: bytes of its weights, its mean divergence in nats, and the limits of its interval."""

    label: str
    nbytes: int
    mean_kl: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A variant's divergences in nats, one for each place on the picture's axis; None where it has none.

    *hollow* are the places drawn as hollow marks.
    """

    label: str
    divergences: tuple[float | None, ...]
    hollow: frozenset[int] = frozenset()


def size_against_fidelity(points: Sequence[Point], style: str = STYLE) -> str:
    """Return an SVG of *points*: size to the right, divergence from the source upwards, in powers of ten."""
    across = _Axis.around([point.nbytes for point in points])
    up = _Axis.decades([each for point in points for each in (point.low, point.mean_kl, point.high)], _LEAST_KL)
    places = [(across.at(point.nbytes), up.at(_decade(point.mean_kl, _LEAST_KL))) for point in points]
    body = [*_decade_lines(up), *_size_marks(across)]
    for number, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
        low, high = (up.at(_decade(end, _LEAST_KL)) for end in (point.low, point.high))
        body += [
            f'<path class="series s{number % COLOURS}" d="M{x:.1f} {low:.1f}V{high:.1f}'
            f'M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"/>',
            f'<circle class="s{number % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{_label(point.label)}: {point.mean_kl:.3g} nats</title></circle>",
        ]
    body += _labels_beside([(point.label, x, y) for point, (x, y) in zip(points, places, strict=True)])
    return _svg("Size against mean KL divergence from the source", body, style)


def size_by_method(methods: Mapping[str, Sequence[Point]], style: str = STYLE) -> str:
    """Return an SVG with a line through the points of each of *methods*: size to the right, divergence upwards."""
    everywhere = [point for points in methods.values() for point in points]
    across = _Axis.around([point.nbytes for point in everywhere])
    up = _Axis.decades([point.mean_kl for point in everywhere], _LEAST_KL)
    body, ends = [*_decade_lines(up), *_size_marks(across)], []
    for number, (method, points) in enumerate(methods.items()):
        ordered = sorted(points, key=lambda point: point.nbytes)
        places = [(across.at(point.nbytes), up.at(_decade(point.mean_kl, _LEAST_KL))) for point in ordered]
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        body.append(f'<path class="series s{number % COLOURS}" d="{line}"/>')
        body += [
            _mark(number, x, y, f"{point.label}, {method}: {point.mean_kl:.3g} nats")
            for point, (x, y) in zip(ordered, places, strict=True)
        ]
        ends.append((method, places[-1][1]))
    return _svg("Size against mean KL divergence, by method", [*body, *_labels_at_ends(ends, _WIDTH)], style)


def divergence_by_position(places: Sequence[str], series: Sequence[Series], style: str = STYLE) -> str:
    """Return an SVG with a line for each of *series*: position in the answer to the right, divergence upwards."""
    across = _Axis(-0.4, max(len(places) - 0.6, 0.6), _LEFT, _WIDTH - _RIGHT)
    marks = [(across.at(number), place) for number, place in enumerate(places)]
    up, body = _frame(series, marks, "position in the answer, tokens")
    ends = []
    for number, each in enumerate(series):
        known = _known(each, across, up)
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for _, x, y in known)
        body.append(f'<path class="series s{number % COLOURS}" d="{line}"/>')
        body += [_mark(number, x, y, f"{each.label}, {places[at]}: {_nats(each, at)}") for at, x, y in known]
        ends.append((each.label, known[-1][2]))
    return _svg("Mean KL divergence by position in the answer", [*body, *_labels_at_ends(ends, _WIDTH)], style)


def divergence_by_page(pages: Sequence[str], series: Sequence[Series], style: str = STYLE) -> str:
    """Return an SVG with a mark for each page and each of *series*, in the order of *pages*; a wide one for many."""
    width = min(_WIDE, max(_WIDTH, 40 * len(pages))) if len(series) > 1 else _WIDTH
    across = _Axis(0.0, len(pages) + 1.0, _LEFT, width - _RIGHT)
    step = max(1, math.ceil(len(pages) * 40 / width))
    marks = [(across.at(number + 1), str(number + 1)) for number in range(0, len(pages), step)]
    up, body = _frame(series, marks, "page, in the order below", width)
    ends = []
    for number, each in enumerate(series):
        known = _known(each, across, up, 1)
        body += [
            _mark(number, x, y, f"{each.label}, {pages[at]}: {_nats(each, at)}", at in each.hollow)
            for at, x, y in known
        ]
        ends.append((each.label, known[-1][2]))
    return _svg("Mean KL divergence by page", [*body, *_labels_at_ends(ends, width)], style, width)


@dataclass(frozen=True)
class _Axis:
    """Where a number is: *first* at pixel *start*, *last* at pixel *end*."""

    first: float
    last: float
    start: float
    end: float

    @staticmethod
    def around(values: Sequence[float]) -> _Axis:
        """Return an axis that extends slightly beyond *values*, and does not start at zero."""
        low, high = min(values), max(values)
        room = (high - low) * 0.08 or high * 0.1
        return _Axis(low - room, high + room, _LEFT, _WIDTH - _RIGHT)

    @staticmethod
    def decades(values: Iterable[float], least: float) -> _Axis:
        exponents = [_decade(value, least) for value in values]
        lowest, highest = math.floor(min(exponents)), math.ceil(max(exponents))
        return _Axis(lowest, max(highest, lowest + 1), _HEIGHT - _BOTTOM, _TOP)

    def at(self, value: float) -> float:
        """Return the pixel."""
        return self.start + (value - self.first) / (self.last - self.first) * (self.end - self.start)


def _decade(kl: float, least: float) -> float:
    return math.log10(max(kl, least))


_LEAST_PLOTTED = 1e-10  # of single pages and positions, whose means may be far below the overall mean


def _frame(
    series: Sequence[Series], marks: Sequence[tuple[float, str]], name: str, width: int = _WIDTH
) -> tuple[_Axis, list[str]]:
    values = [value for each in series for value in each.divergences if value is not None]
    up = _Axis.decades(values, _LEAST_PLOTTED)
    return up, [*_decade_lines(up, width), *_bottom_marks(marks, name, width)]


def _known(series: Series, across: _Axis, up: _Axis, first: int = 0) -> list[tuple[int, float, float]]:
    return [
        (at, across.at(at + first), up.at(_decade(value, _LEAST_PLOTTED)))
        for at, value in enumerate(series.divergences)
        if value is not None
    ]


def _nats(series: Series, at: int) -> str:
    return f"{series.divergences[at]:.2e} nats"


def _decade_lines(up: _Axis, width: int = _WIDTH) -> list[str]:
    lines = []
    step = max(1, round((up.last - up.first) / 8))
    for decade in range(int(up.first), int(up.last) + 1, step):
        y = up.at(decade)
        lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{width - _RIGHT}"/>')
        lines.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>')
    middle = (_HEIGHT - _BOTTOM + _TOP) // 2
    return [
        *lines,
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">mean KL divergence, nats</text>',
    ]


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _size_marks(across: _Axis) -> list[str]:
    unit, name = (1e9, "GB") if across.last >= 1e9 else (1e6, "MB")
    span = (across.last - across.first) / unit
    step = next(each for each in _steps(span) if span / each <= 8)
    numbers = range(math.ceil(across.first / unit / step), math.floor(across.last / unit / step) + 1)
    return _bottom_marks(
        [(across.at(number * step * unit), f"{number * step:g}") for number in numbers], f"weights, {name}"
    )


def _steps(span: float) -> Iterable[float]:
    """Yield 1, 2 and 5 times powers of ten, from below *span* / 8 on."""
    power = 10.0 ** math.floor(math.log10(span / 8))
    return (factor * power for factor in (1, 2, 5, 10, 20))


def _bottom_marks(marks: Sequence[tuple[float, str]], name: str, width: int = _WIDTH) -> list[str]:
    bottom, middle = _HEIGHT - _BOTTOM, (width - _RIGHT + _LEFT) // 2
    return [
        f'<path class="axis" d="M{_LEFT} {bottom}H{width - _RIGHT}"/>',
        *(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{_label(label)}</text>' for x, label in marks),
        f'<text x="{middle}" y="{bottom + 44}" text-anchor="middle">{name}</text>',
    ]


_SHAPES: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    lambda x, y: f"M{x - 3.2:.1f} {y - 3.2:.1f}h6.4v6.4h-6.4z",
    lambda x, y: f"M{x:.1f} {y - 4.2:.1f}l4.2 7.4h-8.4z",
    lambda x, y: f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
    lambda x, y: f"M{x:.1f} {y + 4.2:.1f}l4.2 -7.4h-8.4z",
)


def _mark(number: int, x: float, y: float, title: str, is_hollow: bool = False) -> str:
    hollow = "hollow " if is_hollow else ""
    shape = _SHAPES[number % len(_SHAPES)](x, y)
    return f'<path class="{hollow}s{number % COLOURS}" d="{shape}"><title>{_label(title)}</title></path>'


def _labels_at_ends(ends: Sequence[tuple[str, float]], width: int) -> list[str]:
    """Return labels to the right of the ends of lines, without overlaps, each with its line's mark."""
    right, lines, lowest = width - _RIGHT + 12, [], float(_TOP)
    highest = [_HEIGHT - _BOTTOM - _LINE * after for after in range(len(ends))][::-1]
    order = sorted(range(len(ends)), key=lambda number: ends[number][1])
    for number, most in zip(order, highest, strict=True):
        label, y = ends[number]
        place = max(lowest, min(y, most))
        lowest = place + _LINE
        lines.append(_mark(number, right, place, label))
        lines.append(f'<text x="{right + 10}" y="{place + 4:.1f}">{_label(label, 16)}</text>')
    return lines


def _labels_beside(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Return a label beside each point: to its right, or where it does not cover another label or point."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for _, x, y in points]
    lines = []
    for label, x, y in points:
        shown = _label(label, 24)
        length = _LETTER * min(len(label), 24)
        places = [
            (x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x + 9, y - 10, "start"), (x + 9, y + 18, "start"),
            (x - 9, y - 10, "end"), (x - 9, y + 18, "end"),
        ]  # fmt: skip
        boxes = [(left - length * (anchor == "end"), top) for left, top, anchor in places]
        spans = [(left, top - 11, left + length, top + 3) for left, top in boxes]
        free = (number for number, span in enumerate(spans) if not any(_overlap(span, other) for other in taken))
        best = next(free, 0)
        taken.append(spans[best])
        left, top, anchor = places[best]
        lines.append(f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{shown}</text>')
    return lines


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _label(text: str, most: int = 80) -> str:
    return escape(one_line(text, most))


def _svg(title: str, body: Iterable[str], style: str, width: int = _WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        f'role="img"><title>{title}</title>{f"<style>{style}</style>" if style else ""}\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )
