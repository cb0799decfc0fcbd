"""Plans and pages -> codes, scales and biases of every matrix that the plans calibrate, block by block.

One block of the source is in memory at a time. What all recipes of a command ask of a matrix is made from one walk
over the pages. A block that is complete stays on disk, so that an interrupted calibration resumes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from olmocr.conversion.calibrated.passes.source_blocks import SourceMatrix
from olmocr.conversion.calibrated.passes.statistics import Hessian
from olmocr.conversion.calibrated.passes.walk import (
    BlockStatistics,
    MatrixStatistics,
    WalkOptions,
    block_names,
    can_resume,
    in_order,
    walk,
)
from olmocr.conversion.calibrated.rounding.factor import Factor, prepare
from olmocr.conversion.calibrated.rounding.matrix import RoundedMatrix, round_matrix
from olmocr.conversion.calibrated.rounding.packing import pack_codes
from olmocr.conversion.calibrated.store import (
    Bytes,
    CalibratedPart,
    CalibratedParts,
    CalibrationFolder,
    MatrixLoss,
    PartKey,
)
from olmocr.conversion.calibrated.terms import HELD_OUT_SEED, Calibration, OnShare
from olmocr.conversion.calibrated.wanted import WantedMatrix, wanted_matrices
from olmocr.conversion.plan import ConversionPlan, PlannedTensor
from olmocr.errors import CheckpointError, PlanError
from olmocr.reports.conversion import CalibrationPageReport, CalibrationReport, MatrixLossReport, Processor
from olmocr.runtime.device import start_mlx
from olmocr.tensors.floats import Floats, narrowed

_WEIGHTS_AT_ONCE = 1 << 26
"""Weights of a matrix that are rounded at once: 256 MB as float32."""


def calibrate(
    plans: Sequence[ConversionPlan],
    calibration: Calibration,
    folder: CalibrationFolder,
    processor: Processor,
    threads: int,
) -> CalibratedParts:
    """Make what *plans*, all of one source, ask for, in *folder*, which has been resumed.

    Raises:
        CheckpointError: the source cannot be read, or has values that are no numbers.
        OutputError: *folder* cannot be written.
        PlanError: a value does not fit into the dtype asked for, or the source is of a family that is not walked.
    """
    source = plans[0].source
    wanted = wanted_matrices(plans)
    names = block_names(source)
    missing = {each.module for each in wanted if folder.missing(each.block, each.asked)}
    blocks = [
        number for number, name in enumerate(names) if any(w.block == name and w.module in missing for w in wanted)
    ]
    if blocks:
        first = _resuming_at(blocks[0], lambda n: can_resume(source, calibration.pages, folder.states, n))
        rounding = _Rounding(wanted, folder, processor, threads)
        share = _Share(calibration.on_share, len(names), len(calibration.pages))

        def on_block(block: BlockStatistics) -> None:
            rounding.round_block(block)
            share.rounded(block.number)

        walk(
            source,
            calibration.pages,
            on_block,
            folder.states,
            first_block=first,
            options=WalkOptions(
                needed=frozenset(missing), down_slices=calibration.down_slices, held_out_seed=HELD_OUT_SEED
            ),
            on_page=share.page,
        )
    return folder.parts()


def _resuming_at(first_missing: int, is_there: Callable[[int], bool]) -> int:
    """Return the last block at or before *first_missing* whose hidden states are there; the first one needs none."""
    return next((number for number in range(first_missing, 0, -1) if is_there(number)), 0)


class _Share:
    """Counts a block as half done when all pages went through it, and as done when its matrices are rounded."""

    def __init__(self, on_share: OnShare, blocks: int, pages: int) -> None:
        self._on_share, self._blocks, self._pages = on_share, blocks, pages

    def page(self, number: int, count: int) -> None:
        self._on_share((number + 0.5 * count / self._pages) / self._blocks)

    def rounded(self, number: int) -> None:
        self._on_share((number + 1) / self._blocks)


class _Rounding:
    """Rounds the matrices of a block and puts them into the folder."""

    def __init__(
        self, wanted: Iterable[WantedMatrix], folder: CalibrationFolder, processor: Processor, threads: int
    ) -> None:
        self._wanted = {each.module: each for each in wanted}
        self._folder, self._processor, self._threads = folder, processor, threads

    def round_block(self, block: BlockStatistics) -> None:
        parts: list[CalibratedPart] = []
        by_input: dict[int, list[MatrixStatistics]] = {}
        for statistics in block.matrices.values():
            by_input.setdefault(id(statistics.input), []).append(statistics)
        for sharing in by_input.values():  # one input after the other, so that one factor is in memory
            parts += self._round_sharing(block.name, sharing)
        if parts:
            self._folder.add(block.name, parts)

    def _round_sharing(self, block: str, sharing: Sequence[MatrixStatistics]) -> list[CalibratedPart]:
        """Round matrices with one input, and all that is asked of them."""
        seen = sharing[0].input
        known: dict[int, tuple[list[Factor], list[Floats]]] = {}  # by the columns that padding makes
        parts = []
        for statistics in sharing:
            wanted = self._wanted[statistics.matrix.module]
            for key in self._folder.missing(block, wanted.asked):
                tensor = wanted.asked[key]
                columns = tensor.shape[1]
                if columns not in known:
                    held_out = [np.asarray(each, np.float32) for each in _widened(seen.held_out or (), columns)]
                    known[columns] = [prepare(each) for each in _widened(seen.hessians, columns)], held_out
                parts.append(self._round(statistics.matrix, tensor, key, *known[columns]))
        return parts

    def _round(
        self,
        matrix: SourceMatrix,
        tensor: PlannedTensor,
        key: PartKey,
        factors: Sequence[Factor],
        held_out: Sequence[Floats],
    ) -> CalibratedPart:
        """Round some rows after the other, so that an output head is never in memory as a whole."""
        rows, columns = matrix.shape
        step = max(1, _WEIGHTS_AT_ONCE // columns)
        rounded = []
        for first in range(0, rows, step):
            end = min(first + step, rows)
            weight = _padded(matrix.rows(first, end), tensor, is_last=end == rows)
            try:
                rounded.append(
                    round_matrix(
                        weight,
                        factors,
                        key.params,
                        key.dtype,
                        self._processor,
                        held_out=held_out,
                        threads=self._threads,
                    )
                )
            except (CheckpointError, PlanError) as error:
                raise type(error)(f"{matrix.module}: {error}") from error
        return _part(key, rounded)


def _widened(hessians: Sequence[Hessian], columns: int) -> list[Hessian]:
    """Return *hessians* for *columns* in all: the zeros that widen the vision MLP are never given anything but 0."""
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


def _part(key: PartKey, rounded: Sequence[RoundedMatrix]) -> CalibratedPart:
    loss = MatrixLoss(
        sum(each.fit_loss for each in rounded),
        sum(each.loss for each in rounded),
        sum(each.rows_of_fit for each in rounded),
        sum(len(each.codes) for each in rounded),
    )
    packed = np.concatenate([_as_bytes(pack_codes(each.codes, key.bits)) for each in rounded])
    scales, biases = (
        np.concatenate([_as_bytes(narrowed(values, key.dtype)) for values in several])
        for several in ([each.scales for each in rounded], [each.biases for each in rounded])
    )
    return CalibratedPart(key, (packed, scales, biases), loss)


def _as_bytes(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)


def calibration_report(
    plan: ConversionPlan, calibration: Calibration, parts: CalibratedParts, seconds: float
) -> CalibrationReport:
    """Return what *plan*'s conversion tells of its calibration; *seconds* are those of this run."""
    pages = tuple(
        CalibrationPageReport(
            page.name,
            page.sha256,
            page.kind,
            page.whose_text,
            len(page.token_ids),
            len(page.token_ids) - page.answer_start,
        )
        for page in in_order(calibration.pages)
    )
    found = [part for tensor in plan.tensors if (part := parts.find(tensor)) is not None]
    return CalibrationReport(
        drawn=calibration.are_drawn,
        pages=pages,
        tokens=sum(page.tokens for page in pages),
        answer_tokens=sum(page.answer_tokens for page in pages),
        device=str(start_mlx()),
        predicted_nats=plan.predicted_nats,
        matrices=tuple(
            MatrixLossReport(
                part.key.tensor,
                _rounded(part.loss.fit),
                _rounded(part.loss.stored),
                part.loss.rows_of_fit,
                part.loss.rows,
            )
            for part in found
        ),
        seconds=round(seconds, 3),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
