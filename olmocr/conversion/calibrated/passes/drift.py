"""A matrix's inputs in the source, and after what is rounded before it -> the change that makes up for the difference.

x is a token's input in the source, x' its input after the rounded matrices before, w its weight, and R what the sum
that all blocks add to has lost by then. What is rounded is not W but

    W* = W + a C (H' + d I)^-1,    H' = sum of w x' x'^T,    C = sum of w (W (x - x') + R) x'^T

With a = 1 and d = 0, W* x' is as near to W x + R as it can be: the normal equations of least squares. R counts for the
matrices that add to that sum, ``o_proj`` and ``down_proj``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.statistics import Hessian, column_slices
from olmocr.conversion.calibrated.rounding.factor import prepare
from olmocr.tensors.floats import Floats

STRENGTH = 0.5
"""a: the share of the least squares answer that is taken. All of it follows the calibration pages too closely."""

DAMPING = 0.1
"""d, as a share of the mean of H's diagonal: ten times that of rounding, since C is known less well than H."""

Move = Callable[[Floats, int], Floats]
"""Rows of W and the number of the first -> W* - W of these rows."""


@dataclass(frozen=True, eq=False)
class ChangedInputs:
    """A page's inputs of a matrix, (tokens, columns): in the source and after what is rounded.

    *weights* are the tokens', float32 (tokens,); *lost* is R, (tokens, rows), where the matrix adds to the sum.
    """

    theirs: mx.array
    own: mx.array
    weights: Floats
    lost: mx.array | None = None

    @property
    def weighted(self) -> mx.array:
        """The inputs after what is rounded, each times its weight, float32."""
        return self.own.astype(mx.float32) * mx.array(self.weights)[:, None]


class Drift(Protocol):
    """Adds up C, page by page."""

    def add(self, seen: ChangedInputs) -> None:
        """Add a page."""

    def moves(self, hessians: Sequence[Hessian]) -> Move:
        """Return what is added to rows of a matrix: a C (H' + d I)^-1, for H' in slices of the columns."""


class InputDrift:
    """C = W D, with D = sum of w (x - x') x'^T, (columns, columns), shared by all matrices of an input."""

    def __init__(self) -> None:
        self._total: mx.array | None = None

    def add(self, seen: ChangedInputs) -> None:
        """See `Drift`."""
        away = seen.theirs.astype(mx.float32) - seen.own.astype(mx.float32)
        self._total = _added(self._total, away.T @ seen.weighted)

    def moves(self, hessians: Sequence[Hessian]) -> Move:
        """See `Drift`."""
        if self._total is None:
            return _nothing
        (hessian,) = hessians  # only the widest input is sliced, and its matrix adds to the sum
        change = STRENGTH * prepare(hessian, DAMPING).solved(np.array(self._total))
        return lambda weight, first: weight @ change


class OutputDrift:
    """C itself, (rows, columns), of the one matrix that adds to the sum; *weight* is its W."""

    def __init__(self, weight: mx.array) -> None:
        self._weight = weight
        self._total: mx.array | None = None

    def add(self, seen: ChangedInputs) -> None:
        """See `Drift`."""
        away = (seen.theirs - seen.own) @ self._weight.T
        if seen.lost is not None:
            away = away + seen.lost
        self._total = _added(self._total, away.astype(mx.float32).T @ seen.weighted)

    def moves(self, hessians: Sequence[Hessian]) -> Move:
        """See `Drift`."""
        if self._total is None:
            return _nothing
        total = np.array(self._total)
        for own, hessian in zip(column_slices(total.shape[1], len(hessians)), hessians, strict=True):
            total[:, own] = STRENGTH * prepare(hessian, DAMPING).solved(total[:, own])
        return lambda weight, first: total[first : first + len(weight)]


def _nothing(weight: Floats, first: int) -> Floats:
    """Return no change: every page is held out, so there is nothing to learn from."""
    return np.zeros_like(weight)


def _added(total: mx.array | None, more: mx.array) -> mx.array:
    found = more if total is None else total + more
    mx.eval(found)
    return found
