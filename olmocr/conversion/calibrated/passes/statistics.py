"""Inputs of matrices, token by token -> H, the sums of their products, which show the cost of an error in a weight.

H = sum over tokens t of weight_t x_t x_t^T, (columns, columns): the squared error of a row's output is dw H dw^T.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.tensors.floats import Floats

Hessian = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""(columns, columns), symmetric."""

WIDEST_IN_FLOAT64 = 8192
"""The most columns of an input whose sums are float64 (512 MB). Wider ones take half of that, in float32.

Over 48 pages, float32 is off by 3e-7 of sqrt(H_ii H_jj) at most, and float64 by 9e-8, which is what the products have;
the damping that rounding adds is 1e-2 of H's mean diagonal.
"""

PANEL = 1024
"""Columns of H computed at once: only those on or left of the diagonal; the rest is mirrored."""

IMAGE_WEIGHT = 0.1
"""Weight of an image token, against 1 for one that predicts the answer: they are many, and no output is read there."""


def token_weights(page: CalibrationPage, image_token: int) -> Floats:
    """Return the weight of each token of *page*, float32 (tokens,).

    1 where a token of the answer or its end is predicted, 0.1 for the image, 0 for the prompt and for the last token,
    which predicts nothing.
    """
    weights = np.where(page.token_ids == image_token, np.float32(IMAGE_WEIGHT), np.float32(0))
    return np.where(predicts_answer(page), np.float32(1), weights)


def propagated_weights(page: CalibrationPage, image_token: int, by_gradients: Floats | None = None) -> Floats:
    """Return the weight of each token, float32 (tokens,), where errors of earlier blocks are made up for.

    These errors come through attention from all tokens before, so the image counts as much as the answer, and the
    prompt a little. Weights *by_gradients* count for 0.6 of it.
    """
    weights = np.full(len(page.token_ids), 0.1, np.float32)
    weights[(page.token_ids == image_token) | predicts_answer(page)] = 1
    weights[-1] = 0
    if by_gradients is not None:
        weights = np.float32(0.6) * by_gradients + np.float32(0.4) * weights
    return weights


def predicts_answer(page: CalibrationPage) -> npt.NDArray[np.bool_]:
    """Return which tokens (tokens,) of *page* predict a token of the answer or its end."""
    places = np.arange(len(page.token_ids))
    found: npt.NDArray[np.bool_] = (places >= page.answer_start - 1) & (places < len(places) - 1)
    return found


def held_out(pages: Sequence[CalibrationPage], seed: int) -> frozenset[str]:
    """Return the hashes of a quarter of *pages*, at least one, drawn by *seed*: the same ones in any order."""
    drawn = sorted({page.sha256 for page in pages}, key=lambda each: hashlib.sha256(f"{seed} {each}".encode()).digest())
    return frozenset(drawn[: max(1, len(drawn) // 4)])


def column_slices(columns: int, count: int) -> list[slice]:
    """Return *count* slices of *columns*, as equal as multiples of 128 (the widest group) allow."""
    unit = 128 if columns >= 128 * count else 1
    ends = [round(columns * number / count / unit) * unit for number in range(count)] + [columns]
    return [slice(first, end) for first, end in pairwise(ends)]


class HessianSum:
    """Adds up H of one input: products are float32, sums float64 unless the input is wide."""

    def __init__(
        self, columns: int, slices: int = 1, *, panel: int = PANEL, widest_in_float64: int = WIDEST_IN_FLOAT64
    ) -> None:
        """Begin with zeros; with several *slices* of the columns, only the H of each slice is summed.

        Slices save memory: those of a wide input are in float32, however narrow they are.
        """
        self._slices, self._panel = column_slices(columns, slices), panel
        is_wide = columns > widest_in_float64
        self._totals: list[Hessian] = [_zeros(each.stop - each.start, is_wide=is_wide) for each in self._slices]

    def add(self, values: mx.array, weights: Floats) -> None:
        """Add tokens with inputs *values* (tokens, columns), each counted *weights* (tokens,) times."""
        chosen = np.flatnonzero(weights)
        if not len(chosen):
            return
        rows = values if len(chosen) == len(weights) else values[mx.array(chosen)]
        scaled = rows.astype(mx.float32) * mx.array(np.sqrt(weights[chosen]))[:, None]
        for own, total in zip(self._slices, self._totals, strict=True):
            part = mx.contiguous(scaled[:, own])
            for first, end in self._panels(total):
                total[first:end, :end] += np.asarray(part[:, first:end].T @ part[:, :end])

    def finish(self) -> tuple[Hessian, ...]:
        """Return H of each slice of columns, symmetric; do not add anything afterwards."""
        for total in self._totals:
            for first, end in self._panels(total):
                total[first:end, end:] = total[end:, first:end].T
                own = total[first:end, first:end]
                own[:] = np.tril(own) + np.tril(own, -1).T  # a product with itself differs in last digits on some CPUs
        return tuple(self._totals)

    def _panels(self, total: Hessian) -> list[tuple[int, int]]:
        return [(first, min(first + self._panel, len(total))) for first in range(0, len(total), self._panel)]


def _zeros(columns: int, *, is_wide: bool) -> Hessian:
    if is_wide:
        return np.zeros((columns, columns), np.float32)
    return np.zeros((columns, columns), np.float64)


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What is known about the input of one or several matrices.

    *hessians* are float32 or float64: one (columns, columns), or one for each of several consecutive slices of the
    columns. *held_out* is the same for the held-out pages, or None without any. *tokens* counts those with a weight, in
    both.
    """

    hessians: tuple[Hessian, ...]
    held_out: tuple[Hessian, ...] | None
    tokens: int


class InputSum:
    """Adds up H of one input, page by page, with the held-out pages apart; the first page shows its width."""

    def __init__(self, slices: int = 1, *, holds_out: bool = False) -> None:
        self._slices, self._holds_out = slices, holds_out
        self._sums: list[HessianSum] = []
        self._tokens = 0

    def add(self, values: mx.array, weights: Floats, *, is_held_out: bool) -> None:
        """Add a page's inputs (tokens, columns), each with its weight (tokens,)."""
        if not self._sums:
            self._sums = [HessianSum(values.shape[1], self._slices)]
            if self._holds_out:  # it serves to compare two roundings, for which float32 has enough digits
                self._sums.append(HessianSum(values.shape[1], self._slices, widest_in_float64=0))
        self._sums[is_held_out].add(values, weights)
        self._tokens += int(np.count_nonzero(weights))

    def finish(self) -> InputStatistics:
        """Return the sums."""
        hessians, *apart = (each.finish() for each in self._sums)
        return InputStatistics(hessians, apart[0] if apart else None, self._tokens)
