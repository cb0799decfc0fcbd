"""Variants whose fidelity was measured -> a picture of size against fidelity, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 170, 20, 60

# Divergences of two computations of the same numbers are about this; less is not to be told from none.
_LEAST_KL = 1e-7

_STYLE = (
    "text{font:13px sans-serif;fill:#777}line{stroke:#999}.grid{stroke-opacity:.3}circle,.range{stroke:#27c;fill:#27c}"
)


@dataclass(frozen=True)
class Point:
    """A variant: bytes of its weights, its mean divergence in nats, and between what this lies."""

    label: str
    nbytes: int
    mean_kl: float
    low: float
    high: float


def size_against_fidelity(points: Sequence[Point]) -> str:
    """Return an SVG of *points*: size to the right, divergence from the source upwards, in powers of ten.

    It holds no script, no link and no font; labels are text and nothing else.
    """
    across, up = _Axis.linear(points), _Axis.decades(points)
    body = [*_decade_lines(up), *_size_marks(across)]
    for point in points:
        body += _drawn(point, across, up)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img"><title>Size against mean KL divergence from the source</title><style>{_STYLE}</style>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


@dataclass(frozen=True)
class _Axis:
    """Where a number lies: *first* at pixel *start*, *last* at pixel *end*."""

    first: float
    last: float
    start: float
    end: float

    @staticmethod
    def linear(points: Sequence[Point]) -> _Axis:
        return _Axis(0.0, max(point.nbytes for point in points) * 1.05, _LEFT, _WIDTH - _RIGHT)

    @staticmethod
    def decades(points: Sequence[Point]) -> _Axis:
        lowest = math.floor(min(_decade(point.low) for point in points))
        highest = math.ceil(max(_decade(point.high) for point in points))
        return _Axis(lowest, max(highest, lowest + 1), _HEIGHT - _BOTTOM, _TOP)

    def at(self, value: float) -> str:
        """Return the pixel, to a tenth."""
        return f"{self.start + (value - self.first) / (self.last - self.first) * (self.end - self.start):.1f}"


def _decade(kl: float) -> float:
    return math.log10(max(kl, _LEAST_KL))


def _decade_lines(up: _Axis) -> list[str]:
    lines = []
    for decade in range(int(up.first), int(up.last) + 1):
        y = up.at(decade)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">1e{decade}</text>')
    middle = (_HEIGHT - _BOTTOM + _TOP) // 2
    lines.append(
        f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">mean KL divergence, nats</text>'
    )
    return lines


def _size_marks(across: _Axis) -> list[str]:
    unit, name = (1e9, "GB") if across.last >= 1e9 else (1e6, "MB")
    step = 10 ** math.floor(math.log10(across.last / unit))
    bottom = _HEIGHT - _BOTTOM
    lines = [f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for number in range(int(across.last / unit / step) + 1):
        x = across.at(number * step * unit)
        lines.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{number * step:g}</text>')
    middle = (_WIDTH - _RIGHT + _LEFT) // 2
    return [*lines, f'<text x="{middle}" y="{bottom + 44}" text-anchor="middle">weights, {name}</text>']


def _drawn(point: Point, across: _Axis, up: _Axis) -> list[str]:
    x, y = across.at(point.nbytes), up.at(_decade(point.mean_kl))
    low, high = up.at(_decade(point.low)), up.at(_decade(point.high))
    label = escape("".join(each for each in point.label if each.isprintable())[:60])
    return [
        f'<line class="range" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>',
        f'<circle cx="{x}" cy="{y}" r="4"/>',
        f'<text x="{float(x) + 9:.1f}" y="{float(y) + 4:.1f}">{label}</text>',
    ]
