"""Second moments of a matrix's inputs -> the factor by which its columns compensate for each other's errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from olmocr.errors import CheckpointError
from olmocr.tensors.floats import Floats

Doubles = npt.NDArray[np.float64]

DAMPING = 0.01
"""The addition to H's diagonal, as a share of its mean; less might leave a float32 sum not positive definite."""

_MORE_DAMPING = 10.0
_MOST_DAMPING = 1e4

_BLOCK = 256


@dataclass(frozen=True)
class Factor:
    """What rounding needs about the inputs of some columns; matrices with these inputs share it, as do recipes.

    *hessian*, float32 (columns, columns), is H without damping; *added* is what damping adds to its diagonal, and
    *damping* the same as a share of the diagonal's mean. It is more than requested if H needed more to be positive
    definite. H + added I = (A + I) D (A + I)^T: *feedback*, float32 (columns, columns), is A, strictly upper
    triangular, and *pivots*, float32 (columns,), the diagonal of D.
    """

    hessian: Floats
    feedback: Floats
    pivots: Floats
    added: float
    damping: float

    def damped(self, columns: slice) -> Floats:
        """Return the damped Hessian of *columns* among themselves."""
        block = self.hessian[columns, columns].copy()
        block[np.diag_indices(len(block))] += np.float32(self.added)
        return block

    def conditional(self, columns: slice) -> tuple[Floats, Floats, Floats]:
        """Return A and D's diagonal of *columns*, and (A + I) D (A + I)^T.

        This is the weight of errors in *columns* when later columns compensate for what they can. D is scaled so that
        its largest number is 1.
        """
        feedback = np.ascontiguousarray(self.feedback[columns, columns])
        pivots = self.pivots[columns] / self.pivots[columns].max()
        upper = feedback.astype(np.float64)
        np.fill_diagonal(upper, 1)
        return feedback, pivots, ((upper * pivots) @ upper.T).astype(np.float32)

    def solved(self, right: Floats) -> Floats:
        """Return X, float32 (rows, columns), of X (H + added I) = *right*, by substitution from both ends."""
        found, blocks = right.astype(np.float64), list(_blocks(len(self.pivots)))
        for here in reversed(blocks):  # X (A + I) D, from X (A + I) D (A + I)^T
            after = slice(here.stop, None)
            found[:, here] -= found[:, after] @ self.feedback[here, after].T
            found[:, here] = np.linalg.solve(self._unit(here), found[:, here].T).T
        found /= self.pivots
        for here in blocks:  # X, from X (A + I)
            before = slice(0, here.start)
            found[:, here] -= found[:, before] @ self.feedback[before, here]
            found[:, here] = np.linalg.solve(self._unit(here).T, found[:, here].T).T
        return found.astype(np.float32)

    def _unit(self, columns: slice) -> Doubles:
        """Return A + I of *columns* among themselves."""
        return self.feedback[columns, columns] + np.eye(columns.stop - columns.start)


def _blocks(columns: int) -> Iterator[slice]:
    for start in range(0, columns, _BLOCK):
        yield slice(start, min(start + _BLOCK, columns))


def prepare(hessian: npt.NDArray[np.float32] | Doubles, damping: float = DAMPING) -> Factor:
    """Factorise *hessian*, the weighted sum of x x^T over inputs x, float32 or float64 (columns, columns), symmetric.

    Computes in float64, in one array of that size besides the results, by LAPACK and BLAS. Columns whose inputs are
    always 0, padding among them, are harmless: they get a weight only from damping.

    Raises:
        CheckpointError: *hessian* is not finite, because weights or inputs are not.
    """
    mean = float(np.diagonal(hessian).mean(dtype=np.float64))
    if not np.isfinite(mean) or not np.isfinite(hessian).all():
        raise CheckpointError("the inputs of a matrix are infinite or NaN, so they cannot be used for calibration")
    while True:
        added = damping * mean if mean > 0 else 1.0
        try:
            feedback, pivots = _factorised(hessian, added)
        except np.linalg.LinAlgError:
            if damping > _MOST_DAMPING:
                raise
            damping = max(damping, DAMPING / 100) * _MORE_DAMPING
        else:
            return Factor(np.ascontiguousarray(hessian, np.float32), feedback, pivots, added, damping)


def _factorised(hessian: npt.NDArray[np.float32] | Doubles, added: float) -> tuple[Floats, Floats]:
    """Return A and D's diagonal of hessian + added I = (A + I) D (A + I)^T: a Cholesky decomposition from the end.

    Raises:
        numpy.linalg.LinAlgError: the sum is not positive definite.
    """
    rest = hessian.astype(np.float64)
    rest[np.diag_indices(len(rest))] += added
    feedback = np.zeros(rest.shape, np.float32)
    pivots = np.empty(len(rest), np.float32)
    for stop in range(len(rest), 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        here = slice(start, stop)
        # Rotated by 180 degrees, LAPACK's lower triangle becomes an upper one.
        triangle = np.linalg.cholesky(rest[here, here][::-1, ::-1])[::-1, ::-1]
        diagonal = triangle.diagonal()
        above = np.linalg.solve(triangle, rest[:start, here].T).T
        pivots[here] = diagonal**2
        feedback[here, here] = triangle / diagonal
        feedback[:start, here] = above / diagonal
        for panel in range(0, start, _BLOCK):
            to = min(panel + _BLOCK, start)
            rest[:to, panel:to] -= above[:to] @ above[panel:to].T
    np.fill_diagonal(feedback, 0)
    return feedback, pivots
