"""Plans and pages -> codes, scales and biases of every matrix that the plans calibrate, block by block.

One block of the source is in memory at a time. One walk over the pages serves all recipes of a command.
A complete block stays on disk, so that an interrupted calibration resumes after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from olmocr.conversion.calibrated.passes.gradients import (
    TokenGradients,
    find_token_gradients,
    read_token_gradients,
)
from olmocr.conversion.calibrated.passes.source_blocks import SourceMatrix
from olmocr.conversion.calibrated.passes.statistics import Hessian, InputStatistics
from olmocr.conversion.calibrated.passes.walk import (
    BlockStatistics,
    MatrixStatistics,
    TokenWeights,
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
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import number_of_blocks
from olmocr.errors import CheckpointError, PlanError
from olmocr.reports.conversion import CalibrationPageReport, CalibrationReport, MatrixLossReport, Processor
from olmocr.runtime.device import start_mlx
from olmocr.tensors.floats import Floats, narrowed

WEIGHTS_AT_ONCE = 1 << 25
"""Weights of a matrix rounded at once: 128 MB as float32."""


def calibrate(
    plans: Sequence[ConversionPlan],
    calibration: Calibration,
    folder: CalibrationFolder,
    processor: Processor,
    threads: int,
) -> CalibratedParts:
    """Calibrate for *plans*, all from one source, in *folder*, which has been resumed.

    Raises:
        CheckpointError: the source cannot be read, or has values that are not numbers.
        OutputError: *folder* cannot be written.
        PlanError: a value does not fit into the requested dtype, or the source's family is not supported.
    """
    source = plans[0].source
    rounding = _Rounding(wanted_matrices(plans), folder, processor, threads)
    pass_ = _Pass(source, calibration, folder, rounding)
    if calibration.by_gradients and pass_.needs_gradients():
        weigh = pass_.gradients().weights
        pass_.round(_Share(calibration.on_share, _BEFORE, 1), weigh)
    else:
        pass_.round(_Share(calibration.on_share))
    return folder.parts()


_BEFORE = 0.5
"""About what share of all work finding gradients is: it passes forward and back, where rounding passes once."""

_GRADIENTS_FILE = "gradients.npz"


class _Pass:
    """Passes pages through *source* as often as *calibration* needs, and rounds what is missing in *folder*."""

    def __init__(
        self, source: SourceCheckpoint, calibration: Calibration, folder: CalibrationFolder, rounding: _Rounding
    ) -> None:
        self._source, self._calibration, self._folder, self._rounding = source, calibration, folder, rounding
        self._names = block_names(source)
        self._first = number_of_blocks(source.config)["blocks"]

    def needs_gradients(self) -> bool:
        """Say whether a block of the language model is missing; a head's tokens all count the same."""
        return any(
            self._first <= number < len(self._names) - 1 for number in self._rounding.missing_blocks(self._names)
        )

    def gradients(self) -> TokenGradients:
        """Return the gradients at each token, from a forward and backward pass, or from an earlier run.

        The vision tower is rounded on the way forward, since it does not depend on the gradients.
        """
        path, image_token = self._folder.path / _GRADIENTS_FILE, self._source.config["image_token_id"]
        found = read_token_gradients(path, image_token)
        if found is None:
            there, back = (_Share(self._calibration.on_share, *ends) for ends in ((0, 0.2), (0.2, _BEFORE)))
            self._leave_states(there)
            blocks = len(self._names) - 1 - self._first
            found = find_token_gradients(
                self._source,
                self._calibration.pages,
                self._folder.states,
                on_block=lambda done: back.of(done / blocks),
            )
            found.write(path)
        return found

    def _leave_states(self, share: _Share) -> None:
        """Leave the states before each block of the language model on the disk, unless an interrupted run did."""
        kept = range(self._first, len(self._names))
        missing = self._rounding.missing_blocks(self._names)
        first = next((number for number in kept if not self._is_there(number)), None)
        if missing[0] < self._first or first == self._first:
            self._walk(self._resuming_at(min(missing[0], self._first)), share, keep_states_from=self._first)
        elif first is not None:
            self._walk(first - 1, share, keep_states_from=self._first)

    def round(self, share: _Share, weigh: TokenWeights | None = None) -> None:
        """Round what is missing."""
        missing = self._rounding.missing_blocks(self._names)
        if missing:
            self._walk(self._resuming_at(missing[0]), share, weigh=weigh)

    def _walk(
        self, first: int, share: _Share, *, weigh: TokenWeights | None = None, keep_states_from: int | None = None
    ) -> None:
        blocks, pages = len(self._names), len(self._calibration.pages)

        def on_block(block: BlockStatistics) -> None:
            self._rounding.round_block(block)
            share.of((block.number + 1) / blocks)

        # A block counts as half done once all pages went through it, and as done when its matrices are rounded.
        walk(
            self._source,
            self._calibration.pages,
            on_block,
            self._folder.states,
            first_block=first,
            options=WalkOptions(
                needed=self._rounding.missing(self._names[:keep_states_from]),
                down_slices=self._calibration.down_slices,
                held_out_seed=HELD_OUT_SEED,
                weigh=weigh,
                keep_states_from=keep_states_from,
            ),
            on_page=lambda number, count: share.of((number + 0.5 * count / pages) / blocks),
        )

    def _resuming_at(self, first_missing: int) -> int:
        """Return the last block up to *first_missing* whose states are on the disk; the first one needs none."""
        return next((number for number in range(first_missing, 0, -1) if self._is_there(number)), 0)

    def _is_there(self, number: int) -> bool:
        return can_resume(self._source, self._calibration.pages, self._folder.states, number)


class _Share:
    """Reports to *on_share* what part of all work is done, for a pass that goes from *begin* to *end*."""

    def __init__(self, on_share: OnShare, begin: float = 0, end: float = 1) -> None:
        self._on_share, self._begin, self._end = on_share, begin, end

    def of(self, share: float) -> None:
        """Report *share* of the pass as done."""
        self._on_share(self._begin + share * (self._end - self._begin))


class _Rounding:
    """Rounds the matrices of a block and puts them into the folder."""

    def __init__(
        self, wanted: Iterable[WantedMatrix], folder: CalibrationFolder, processor: Processor, threads: int
    ) -> None:
        self._wanted = {each.module: each for each in wanted}
        self._folder, self._processor, self._threads = folder, processor, threads

    def missing(self, blocks: Sequence[str]) -> frozenset[str]:
        """Return the modules in *blocks* for which something is missing in the folder."""
        return frozenset(
            each.module
            for each in self._wanted.values()
            if each.block in blocks and self._folder.missing(each.block, each.asked)
        )

    def missing_blocks(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of the blocks, in the order of *names*, that have one of these modules."""
        return [number for number, name in enumerate(names) if self.missing([name])]

    def round_block(self, block: BlockStatistics) -> None:
        parts: list[CalibratedPart] = []
        by_input: dict[int, list[MatrixStatistics]] = {}
        for statistics in block.matrices.values():
            by_input.setdefault(id(statistics.input), []).append(statistics)
        for sharing in by_input.values():  # one input at a time, so that only one factor is in memory
            parts += self._round_sharing(block.name, sharing)
        if parts:
            self._folder.add(block.name, parts)

    def _round_sharing(self, block: str, sharing: Sequence[MatrixStatistics]) -> list[CalibratedPart]:
        """Round matrices with one input, in all ways required."""
        asked = [
            (statistics.matrix, key, self._wanted[statistics.matrix.module].asked[key])
            for statistics in sharing
            for key in self._folder.missing(block, self._wanted[statistics.matrix.module].asked)
        ]
        parts = []
        # By the number of columns after padding: each has its own factor.
        for columns in sorted({tensor.shape[1] for _, _, tensor in asked}):
            alike = [each for each in asked if each[2].shape[1] == columns]
            slices: list[list[list[RoundedMatrix]]] = [[] for _ in alike]
            for own, factor, held_out in _factors(sharing[0].input, columns):
                for found, (matrix, key, tensor) in zip(slices, alike, strict=True):
                    found.append(self._round(matrix, tensor, key, own, factor, held_out))
                del factor, held_out  # only one is in memory at a time
            parts += [_part(key, found) for found, (_, key, _) in zip(slices, alike, strict=True)]
        return parts

    def _round(
        self,
        matrix: SourceMatrix,
        tensor: PlannedTensor,
        key: PartKey,
        columns: slice,
        factor: Factor,
        held_out: Sequence[Floats],
    ) -> list[RoundedMatrix]:
        """Round *columns* some rows at a time, so that a complete output head is never in memory."""
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
                        self._processor,
                        held_out=held_out,
                        threads=self._threads,
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


def calibration_report(
    plan: ConversionPlan, calibration: Calibration, parts: CalibratedParts, seconds: float
) -> CalibrationReport:
    """Return what *plan*'s conversion says about its calibration; *seconds* are those of this run."""
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
        counted_by="gradient" if calibration.by_gradients else "kind",
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
