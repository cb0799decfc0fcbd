"""A recipe and pages -> its language model, block after block, each rounded to make up for those before it.

Plain calibration rounds every matrix for the inputs that the source gives it. After some rounded blocks it gets others.
Here each matrix is rounded for the inputs that it gets, after a change that makes up for what was lost (`drift`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.drift import ChangedInputs, Drift, InputDrift, Move, OutputDrift
from olmocr.conversion.calibrated.passes.hidden_states import HiddenStates
from olmocr.conversion.calibrated.passes.kernels import fastest_kernels
from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    decoder_steps,
    head_input,
    language_shape,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, SourceMatrix, Weights, computing_dtype
from olmocr.conversion.calibrated.passes.statistics import (
    InputStatistics,
    InputSum,
    held_out,
    predicts_answer,
    propagated_weights,
)
from olmocr.conversion.calibrated.passes.walk import TokenWeights, block_names, states_of
from olmocr.conversion.calibrated.round_input import RoundInput
from olmocr.conversion.calibrated.rounding.read_back import roundings, stored_values
from olmocr.conversion.calibrated.store import CalibratedPart, CalibrationFolder, PartKey, key_of
from olmocr.conversion.calibrated.terms import HELD_OUT_SEED, Calibration
from olmocr.conversion.calibrated.wanted import rounding_before, wanted_matrices
from olmocr.conversion.plan import ConversionPlan, PlannedTensor
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE, head_tensor, number_of_blocks
from olmocr.reports.conversion import Processor
from olmocr.tensors.floats import Floats

_Wanted = tuple[PartKey, PlannedTensor]

_ADDS_TO_THE_SUM = (1, 3)
"""The places in `BLOCK_INPUTS` of matrices whose output is added to the sum of all blocks."""


class Propagation:
    """Rounds the language model of *plan* in *folder*, whose walk leaves the source's states there.

    Call `block` for each block in walking order, while its states of the source are there.
    """

    def __init__(
        self,
        plan: ConversionPlan,
        ordered: Sequence[CalibrationPage],
        calibration: Calibration,
        folder: CalibrationFolder,
        round_input: RoundInput,
        processor: Processor,
    ) -> None:
        source = plan.source
        self._plan, self._pages, self._folder = plan, ordered, folder
        self._round_input, self._processor = round_input, processor
        self._down_slices = calibration.down_slices
        self._names = block_names(source)
        self._first = number_of_blocks(source.config)["blocks"]
        self._shape, self._kernels = language_shape(source.config), fastest_kernels()
        self._image_token = source.image_token
        self._blocks = SourceBlocks(source, computing_dtype(source))
        self._theirs = states_of(source, ordered, folder.states)
        self._own = states_of(source, ordered, folder.states, rounding_before(plan, calibration.propagated_bits))
        self._apart = held_out(ordered, HELD_OUT_SEED)
        self._asked: dict[str, list[_Wanted]] = {}
        for each in wanted_matrices([plan], calibration.propagated_bits):
            for key, tensor in each.asked.items():
                if key.before:
                    self._asked.setdefault(each.block, []).append((key, tensor))

    def close(self) -> None:
        """Close the files of the source."""
        self._blocks.close()

    def missing(self, block: str) -> bool:
        """Say whether something of *block* is missing in the folder."""
        return bool(self._folder.missing(block, [key for key, _ in self._asked.get(block, ())]))

    def can_begin_at(self, number: int) -> bool:
        """Say whether block *number* can come next: the states before it are on the disk, or made from the source's."""
        return number <= self._first or self._own.is_there(number)

    def block(self, number: int, weigh: TokenWeights | None = None) -> None:
        """Round block *number* unless that is done, and leave the states after it; *weigh* is as in `WalkOptions`."""
        if number < self._first:
            return
        if number == self._first:
            self._begin()
        if number == len(self._names) - 1:
            self._head(number)
        else:
            self._language(number, weigh)
        if number > self._first:
            self._own.remove(number - 1)

    def _begin(self) -> None:
        """Write the input of the language model's first block: the source's, except for rounded embeddings.

        Embeddings that are also the head are rounded last, so their errors are not known yet.
        """
        planned = next(each for each in self._plan.tensors if each.name == EMBEDDINGS)
        key = None if head_tensor(self._plan.source.config) == EMBEDDINGS else key_of(planned)
        with self._own.writing(self._first) as write:
            for place, page in enumerate(self._pages):
                hidden = self._theirs.read(self._first, self._rows(), place)
                if key:
                    text = np.flatnonzero(page.token_ids != self._image_token)
                    hidden[mx.array(text)] = self._embedded(page.token_ids[text], key).astype(hidden.dtype)
                write(hidden)

    def _embedded(self, token_ids: np.ndarray[tuple[int], np.dtype[np.int32]], key: PartKey) -> mx.array:
        ids, places = np.unique(token_ids, return_inverse=True)
        round_rows = roundings(["fit"], key.dtype, self._processor, key.group_size)["fit"](None)
        return mx.array(round_rows(self._blocks.chosen_rows(EMBEDDINGS, ids.tolist()), key.bits)[places])

    def _head(self, number: int) -> None:
        name = self._names[number]
        asked = self._asked.get(name)
        if not asked or not self.missing(name):
            return
        norm = self._blocks.weights(f"{LANGUAGE}model.norm")["weight"]
        total, drift = InputSum(holds_out=True), InputDrift()
        for place, page in enumerate(self._pages):
            theirs, own = (
                head_input(norm, states.read(number, self._rows(), place), self._shape)
                for states in (self._theirs, self._own)
            )
            self._add(page, ChangedInputs(theirs, own, predicts_answer(page).astype(np.float32)), total, drift)
        self._folder.add(name, self._rounded(asked, total.finish(), drift))

    def _language(self, number: int, weigh: TokenWeights | None) -> None:
        block = _RoundedBlock(number, self._names[number], self._blocks.weights(self._names[number]))
        parts: list[CalibratedPart] = []
        is_missing = self.missing(block.name)
        for place, modules in enumerate(BLOCK_INPUTS):
            asked = [each for each in self._asked.get(block.name, ()) if block.within(each[0]) in modules]
            if is_missing and asked:
                found = self._stage(block, place, asked, weigh)
                parts += found
            else:
                found = [part for key, _ in asked if (part := self._folder.part(key)) is not None]
            block.replace(found)
        with self._own.writing(number + 1) as write:
            for place in range(len(self._pages)):
                write(self._through(self._own, block.rounded, number, place, len(BLOCK_INPUTS))[1][-1])
        if parts:
            self._folder.add(block.name, parts)

    def _stage(
        self, block: _RoundedBlock, place: int, asked: Sequence[_Wanted], weigh: TokenWeights | None
    ) -> list[CalibratedPart]:
        """Round the matrices of one input of a block, after those of the inputs before."""
        modules = [key.tensor.removesuffix(".weight") for key, _ in asked]
        slices = self._down_slices if place == len(BLOCK_INPUTS) - 1 else 1
        total = InputSum(slices, holds_out=True)
        drift: Drift = InputDrift()
        if place in _ADDS_TO_THE_SUM:
            drift = OutputDrift(block.weights[f"{block.within(asked[0][0])}.weight"])
        for number, page in enumerate(self._pages):
            before, inputs = self._through(self._theirs, block.weights, block.number, number, place)
            own_before, own_inputs = self._through(self._own, block.rounded, block.number, number, place)
            lost = None
            if place in _ADDS_TO_THE_SUM:
                lost = _sum_before(block.weights, before, inputs) - _sum_before(block.rounded, own_before, own_inputs)
            weights = propagated_weights(page, self._image_token, None if weigh is None else weigh(page, modules))
            self._add(page, ChangedInputs(inputs[-1], own_inputs[-1], weights, lost), total, drift)
        return self._rounded(asked, total.finish(), drift)

    def _add(self, page: CalibrationPage, seen: ChangedInputs, total: InputSum, drift: Drift) -> None:
        """Add a page's tokens; what they make up for is not learnt from the pages that judge it."""
        is_held_out = page.sha256 in self._apart
        total.add(seen.own, seen.weights, is_held_out=is_held_out)
        if not is_held_out:
            drift.add(seen)
        mx.clear_cache()

    def _through(
        self, states: HiddenStates, weights: Weights, number: int, page: int, last: int
    ) -> tuple[mx.array, list[mx.array]]:
        """Return a page's states before block *number*, and what the block computes of them up to its *last* step."""
        before = states.read(number, self._rows(), page)
        angles = rotary_angles(self._pages[page].position_ids, self._shape)
        steps = decoder_steps(weights, before, angles, self._shape, kernels=self._kernels)
        return before, list(islice(steps, last + 1))

    def _rounded(self, asked: Sequence[_Wanted], seen: InputStatistics, drift: Drift) -> list[CalibratedPart]:
        matrices = [self._blocks.matrix(key.tensor.removesuffix(".weight")) for key, _ in asked]
        moves = drift.moves(seen.hessians)
        shifted = [ShiftedMatrix(matrix, moves) for matrix in matrices]
        return self._round_input(
            seen, [(matrix, key, tensor) for matrix, (key, tensor) in zip(shifted, asked, strict=True)]
        )

    def _rows(self) -> list[int]:
        return [len(page.token_ids) for page in self._pages]


@dataclass(frozen=True)
class _RoundedBlock:
    """A block of the language model: its *weights* in the source, and *rounded*, as far as that has come."""

    number: int
    name: str
    weights: Weights
    rounded: Weights = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounded", dict(self.weights))

    def within(self, key: PartKey) -> str:
        """Return the name of a part's module within the block."""
        return key.tensor.removeprefix(f"{self.name}.").removesuffix(".weight")

    def replace(self, parts: Iterable[CalibratedPart]) -> None:
        """Compute with *parts* from now on."""
        for part in parts:
            name = f"{self.within(part.key)}.weight"
            values = stored_values(part.arrays, len(part.arrays[0]), part.key.bits, part.key.dtype)
            self.rounded[name] = mx.array(values).astype(self.weights[name].dtype)


def _sum_before(weights: Weights, hidden: mx.array, inputs: Sequence[mx.array]) -> mx.array:
    """Return the sum of all blocks, (tokens, width), that the matrix of the last of *inputs* adds to."""
    if len(inputs) - 1 == _ADDS_TO_THE_SUM[0]:
        return hidden
    return hidden + inputs[_ADDS_TO_THE_SUM[0]] @ weights["self_attn.o_proj.weight"].T


@dataclass(frozen=True, eq=False)
class ShiftedMatrix:
    """A matrix of the source that makes up for what was rounded before it."""

    source: SourceMatrix
    move: Move

    @property
    def module(self) -> str:
        """MLX's name of its module."""
        return self.source.module

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows and columns."""
        return self.source.shape

    def rows(self, first: int = 0, end: int | None = None) -> Floats:
        """Return rows *first* to *end* of W*, float32 (rows, columns)."""
        weight = self.source.rows(first, end)
        return weight + self.move(weight, first)
