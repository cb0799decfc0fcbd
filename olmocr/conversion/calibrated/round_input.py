"""Matrices with one input, and what it was on pages -> the parts that are stored for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from olmocr.conversion.calibrated.passes.statistics import Hessian, InputStatistics
from olmocr.conversion.calibrated.passes.walk import ReadableMatrix
from olmocr.conversion.calibrated.rounding.factor import Factor, prepare
from olmocr.conversion.calibrated.rounding.matrix import RoundedMatrix, round_matrix
from olmocr.conversion.calibrated.rounding.packing import pack_codes
from olmocr.conversion.calibrated.store import Bytes, CalibratedPart, MatrixLoss, PartKey
from olmocr.conversion.plan import PlannedTensor
from olmocr.errors import CheckpointError, PlanError
from olmocr.reports.conversion import Processor
from olmocr.tensors.floats import Floats, narrowed

WEIGHTS_AT_ONCE = 1 << 25
"""Weights of a matrix rounded at once: 128 MB as float32."""

Asked = tuple[ReadableMatrix, PartKey, PlannedTensor]
"""A matrix, what it becomes, and its plan."""

RoundInput = Callable[[InputStatistics, Sequence[Asked]], list[CalibratedPart]]
"""Rounds matrices with one input; errors as of :func:`round_input`."""


def round_input(
    seen: InputStatistics, asked: Sequence[Asked], processor: Processor, threads: int
) -> list[CalibratedPart]:
    """Round matrices with one input, in all ways required.

    Raises:
        CheckpointError: a matrix or its input has values that are not numbers.
        PlanError: a value does not fit into the requested dtype.
    """
    parts = []
    # By the number of columns after padding: each has its own factor.
    for columns in sorted({tensor.shape[1] for _, _, tensor in asked}):
        alike = [each for each in asked if each[2].shape[1] == columns]
        slices: list[list[list[RoundedMatrix]]] = [[] for _ in alike]
        for own, factor, held_out in _factors(seen, columns):
            for found, each in zip(slices, alike, strict=True):
                found.append(_rounded(each, own, factor, held_out, processor, threads))
            del factor, held_out  # only one is in memory at a time
        parts += [_part(key, found) for found, (_, key, _) in zip(slices, alike, strict=True)]
    return parts


def _rounded(
    asked: Asked,
    columns: slice,
    factor: Factor,
    held_out: Sequence[Floats],
    processor: Processor,
    threads: int,
) -> list[RoundedMatrix]:
    """Round *columns* some rows at a time, so that a complete output head is never in memory."""
    matrix, key, tensor = asked
    rows = matrix.shape[0]
    step = max(1, WEIGHTS_AT_ONCE // matrix.shape[1])
    rounded = []
    for first in range(0, rows, step):
        end = min(first + step, rows)
        weight = _padded(matrix.rows(first, end), tensor, is_last=end == rows)
        try:
            rounded.append(
                round_matrix(
                    np.ascontiguousarray(weight[:, columns]),
                    [factor],
                    key.params,
                    key.dtype,
                    processor,
                    held_out=held_out,
                    threads=threads,
                )
            )
        except (CheckpointError, PlanError) as error:
            raise type(error)(f"{matrix.module}: {error}") from error
    return rounded


def _factors(seen: InputStatistics, columns: int) -> Iterator[tuple[slice, Factor, list[Floats]]]:
    """Yield, for each slice of *columns*: its range, the factor of its H, and the H of held-out pages."""
    held_out = _widened(seen.held_out or (), columns)
    start = 0
    for place, hessian in enumerate(_widened(seen.hessians, columns)):
        own = slice(start, start + len(hessian))
        start = own.stop
        yield own, prepare(hessian), [np.asarray(each, np.float32) for each in held_out[place : place + 1]]


def _widened(hessians: Sequence[Hessian], columns: int) -> list[Hessian]:
    """Return *hessians* extended to *columns*: the input of the zeros that widen the vision MLP is always 0."""
    extra = columns - sum(len(each) for each in hessians)
    if not hessians or not extra:
        return list(hessians)
    wider: Hessian = np.zeros((len(hessians[-1]) + extra,) * 2, hessians[-1].dtype)
    wider[:-extra, :-extra] = hessians[-1]
    return [*hessians[:-1], wider]


def _padded(weight: Floats, tensor: PlannedTensor, *, is_last: bool) -> Floats:
    """Append the zeros that widen the vision MLP: to every row, or as rows after the last one."""
    padding = tensor.padding
    if padding is None or (padding.axis == 0 and not is_last):
        return weight
    return np.pad(weight, [(0, padding.zeros if axis == padding.axis else 0) for axis in range(2)])


def _part(key: PartKey, slices: Sequence[Sequence[RoundedMatrix]]) -> CalibratedPart:
    """Return what is stored for a matrix whose *slices* of columns were rounded, each some rows at a time."""
    rounded = [each for rows in slices for each in rows]
    loss = MatrixLoss(
        sum(each.fit_loss for each in rounded),
        sum(each.loss for each in rounded),
        sum(each.rows_of_fit for each in rounded),
        sum(len(each.codes) for each in rounded),
    )
    stored = [[_stored(key, each) for each in rows] for rows in slices]
    packed, scales, biases = (
        np.concatenate([np.concatenate([each[place] for each in rows]) for rows in stored], axis=1)
        for place in range(3)
    )
    return CalibratedPart(key, (packed, scales, biases), loss)


def _stored(key: PartKey, rounded: RoundedMatrix) -> tuple[Bytes, Bytes, Bytes]:
    """Return packed codes, scales and biases as bytes."""
    scales, biases = (narrowed(each, key.dtype) for each in (rounded.scales, rounded.biases))
    return _as_bytes(pack_codes(rounded.codes, key.bits)), _as_bytes(scales), _as_bytes(biases)


def _as_bytes(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
