"""Plans and pages -> codes, scales and biases of every matrix that the plans calibrate, block by block.

One block of the source is in memory at a time. One walk over the pages serves all recipes of a command.
A complete block stays on disk, so that an interrupted calibration resumes after it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence

from olmocr.conversion.calibrated.passes.gradients import (
    TokenGradients,
    find_token_gradients,
    read_token_gradients,
)
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
from olmocr.conversion.calibrated.propagate import Propagation
from olmocr.conversion.calibrated.round_input import RoundInput, round_input
from olmocr.conversion.calibrated.store import CalibratedPart, CalibratedParts, CalibrationFolder, PartKey
from olmocr.conversion.calibrated.terms import HELD_OUT_SEED, Calibration, OnShare
from olmocr.conversion.calibrated.wanted import WantedMatrix, rounding_before, wanted_matrices
from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import number_of_blocks
from olmocr.reports.conversion import CalibrationPageReport, CalibrationReport, MatrixLossReport, Processor
from olmocr.runtime.device import start_mlx


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
    round_here = functools.partial(round_input, processor=processor, threads=threads)
    rounding = _Rounding(wanted_matrices(plans, calibration.propagated_bits), folder, round_here)
    with contextlib.ExitStack() as stack:
        propagations = []
        for plan in _propagated(plans, calibration.propagated_bits):
            each = Propagation(plan, in_order(calibration.pages), calibration, folder, round_here, processor)
            stack.callback(each.close)
            propagations.append(each)
        _calibrate(_Pass(source, calibration, folder, rounding, propagations), calibration)
    return folder.parts()


def _propagated(plans: Iterable[ConversionPlan], bits: int) -> list[ConversionPlan]:
    """Return the plans whose blocks make up for the rounding before them, one of those that round alike."""
    calibrated = [plan for plan in plans if plan.method == "calibrated"]
    return list({before: plan for plan in calibrated if (before := rounding_before(plan, bits))}.values())


def _calibrate(pass_: _Pass, calibration: Calibration) -> None:
    if calibration.by_gradients and pass_.needs_gradients():
        weigh = pass_.gradients().weights
        pass_.round(_Share(calibration.on_share, _BEFORE, 1), weigh)
    else:
        pass_.round(_Share(calibration.on_share))


_BEFORE = 0.5
"""About what share of all work finding gradients is: it passes forward and back, where rounding passes once."""

_GRADIENTS_FILE = "gradients.npz"


class _Pass:
    """Passes pages through *source* as often as *calibration* needs, and rounds what is missing in *folder*."""

    def __init__(
        self,
        source: SourceCheckpoint,
        calibration: Calibration,
        folder: CalibrationFolder,
        rounding: _Rounding,
        propagations: Sequence[Propagation],
    ) -> None:
        self._source, self._calibration, self._folder, self._rounding = source, calibration, folder, rounding
        self._propagations = propagations
        self._names = block_names(source)
        self._first = number_of_blocks(source.config)["blocks"]

    def needs_gradients(self) -> bool:
        """Say whether a block of the language model is missing; a head's tokens all count the same."""
        return any(self._first <= number < len(self._names) - 1 for number in self._missing())

    def gradients(self) -> TokenGradients:
        """Return the gradients at each token, from a forward and backward pass, or from an earlier run.

        The vision tower is rounded on the way forward, since it does not depend on the gradients.
        """
        path, image_token = self._folder.path / _GRADIENTS_FILE, self._source.image_token
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
        missing = self._missing()
        first = next((number for number in kept if not self._has_states(number)), None)
        if missing[0] < self._first or first == self._first:
            self._walk(self._resuming_at(min(missing[0], self._first)), share, keep_states_from=self._first)
        elif first is not None:
            self._walk(first - 1, share, keep_states_from=self._first)

    def round(self, share: _Share, weigh: TokenWeights | None = None) -> None:
        """Round what is missing."""
        missing = self._missing()
        if missing:
            self._walk(self._resuming_at(missing[0]), share, weigh=weigh)

    def _missing(self) -> list[int]:
        """Return the numbers of the blocks that lack something, in walking order."""
        return [
            number
            for number, name in enumerate(self._names)
            if self._rounding.missing([name]) or any(each.missing(name) for each in self._propagations)
        ]

    def _walk(
        self, first: int, share: _Share, *, weigh: TokenWeights | None = None, keep_states_from: int | None = None
    ) -> None:
        blocks, pages = len(self._names), len(self._calibration.pages)

        def on_block(block: BlockStatistics) -> None:
            self._rounding.round_block(block)
            if keep_states_from is None:  # else this walk only leaves states for a later one
                for each in self._propagations:
                    each.block(block.number, weigh)
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
        for number in range(first_missing, 0, -1):
            if self._has_states(number) and all(each.can_begin_at(number) for each in self._propagations):
                return number
        return 0

    def _has_states(self, number: int) -> bool:
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

    def __init__(self, wanted: Iterable[WantedMatrix], folder: CalibrationFolder, round_here: RoundInput) -> None:
        self._wanted = {each.module: each for each in wanted}
        self._folder, self._round = folder, round_here

    def missing(self, blocks: Sequence[str]) -> frozenset[str]:
        """Return the modules in *blocks* for which something is missing in the folder."""
        return frozenset(each.module for each in self._wanted.values() if each.block in blocks and self._keys(each))

    def round_block(self, block: BlockStatistics) -> None:
        parts: list[CalibratedPart] = []
        by_input: dict[int, list[MatrixStatistics]] = {}
        for statistics in block.matrices.values():
            by_input.setdefault(id(statistics.input), []).append(statistics)
        for sharing in by_input.values():  # one input at a time, so that only one factor is in memory
            asked = [
                (statistics.matrix, key, wanted.asked[key])
                for statistics in sharing
                for wanted in (self._wanted[statistics.matrix.module],)
                for key in self._keys(wanted)
            ]
            parts += self._round(sharing[0].input, asked)
        if parts:
            self._folder.add(block.name, parts)

    def _keys(self, wanted: WantedMatrix) -> list[PartKey]:
        """Return what the folder lacks of a matrix, apart from what depends on the rounding before it."""
        return self._folder.missing(wanted.block, [key for key in wanted.asked if not key.before])


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
    propagated = any(part.key.before for part in found)
    return CalibrationReport(
        drawn=calibration.are_drawn,
        pages=pages,
        tokens=sum(page.tokens for page in pages),
        answer_tokens=sum(page.answer_tokens for page in pages),
        device=str(start_mlx()),
        predicted_nats=plan.predicted_nats,
        counted_by="gradient" if calibration.by_gradients else "kind",
        propagated=propagated,
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
