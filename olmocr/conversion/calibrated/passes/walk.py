"""A source and pages -> the inputs of each matrix on them, block by block, with one block of weights in memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.hidden_states import HiddenStates, any_are_there, fingerprint
from olmocr.conversion.calibrated.passes.kernels import fastest_kernels
from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    decoder_block,
    embedded,
    head_input,
    language_shape,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, computing_dtype
from olmocr.conversion.calibrated.passes.statistics import (
    InputStatistics,
    InputSum,
    held_out,
    predicts_answer,
    token_weights,
)
from olmocr.conversion.calibrated.passes.vision import VISION_INPUTS, merged, patches, vision_block, vision_shape
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE, PATCH_EMBED, VISION, head_tensor, number_of_blocks
from olmocr.errors import PlanError
from olmocr.inference.vision import Layout
from olmocr.tensors.floats import Floats

TokenWeights = Callable[[CalibrationPage, Sequence[str]], Floats]
"""A page and MLX's names of modules with one input -> the weight of each of its tokens, float32 (tokens,)."""


class ReadableMatrix(Protocol):
    """A matrix of *shape* (rows, columns) whose rows can be read in part; *module* is MLX's name."""

    @property
    def module(self) -> str:
        """MLX's name of its module."""

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows and columns."""

    def rows(self, first: int = 0, end: int | None = None) -> Floats:
        """Return rows *first* to *end*, float32 (rows, columns)."""


@dataclass(frozen=True, eq=False)
class MatrixStatistics:
    """A matrix of the source, and its input; matrices with one input share its statistics."""

    matrix: ReadableMatrix
    input: InputStatistics


@dataclass(frozen=True, eq=False)
class BlockStatistics:
    """What was collected for block *number*, called *name*: its *matrices* by MLX's module names."""

    number: int
    name: str
    matrices: Mapping[str, MatrixStatistics]


@dataclass(frozen=True)
class WalkOptions:
    """How H is summed.

    *needed* are the modules whose H is needed, by MLX's names; None means all. The H of a language block's
    ``down_proj`` is cut into *down_slices*: 2 or 4 take a half or a quarter of the memory. With *held_out_seed*, a
    quarter of the pages is summed separately. *weigh* replaces the plain weights of tokens in the language model's
    blocks. The states before block *keep_states_from* and later ones stay on the disk.
    """

    needed: Container[str] | None = None
    down_slices: int = 1
    held_out_seed: int | None = None
    weigh: TokenWeights | None = None
    keep_states_from: int | None = None


def block_names(source: SourceCheckpoint) -> tuple[str, ...]:
    """Return the blocks in walking order: the vision tower's, the language model's, the head."""
    count = number_of_blocks(source.config)
    return (
        *(f"{VISION}blocks.{number}" for number in range(count["blocks"])),
        *(f"{LANGUAGE}model.layers.{number}" for number in range(count["layers"])),
        head_tensor(source.config).removesuffix(".weight"),
    )


def in_order(pages: Sequence[CalibrationPage]) -> tuple[CalibrationPage, ...]:
    """Return *pages* in the order in which they are summed, whatever order they come in."""
    return tuple(sorted(pages, key=lambda page: (page.sha256, page.token_ids.tobytes())))


def can_resume(source: SourceCheckpoint, pages: Sequence[CalibrationPage], folder: Path, first_block: int) -> bool:
    """Say whether *folder* has the states before block *first_block* of exactly this walk."""
    if not any_are_there(folder, first_block):  # avoids hashing pages for nothing
        return False
    return states_of(source, in_order(pages), folder).is_there(first_block)


def walk(
    source: SourceCheckpoint,
    pages: Sequence[CalibrationPage],
    on_block: Callable[[BlockStatistics], None],
    folder: Path,
    *,
    first_block: int = 0,
    options: WalkOptions = WalkOptions(),
    on_page: Callable[[int, int], None] | None = None,
) -> None:
    """Walk *pages* through *source* from block *first_block* on; call *on_block* with the result of each block.

    Hidden states are in *folder*: when *on_block* is called for block n, it has those before n and n + 1, and keeps
    them until the call for n + 1. So a caller that records in *on_block* that n is done can resume with *first_block* n
    + 1. *on_page* is called with a block's number and how many pages went through it.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: *folder* cannot be written, or the states before *first_block* are missing.
        PlanError: models of this family are not supported.
    """
    if source.config["model_type"] != "qwen2_5_vl":
        raise PlanError(
            f"{source.folder.where} is of the family {source.config['model_type']}, and only qwen2_5_vl can be "
            "calibrated; convert it with `method='fit'`"
        )
    ordered = in_order(pages)
    states = states_of(source, ordered, folder)
    with closing(SourceBlocks(source, computing_dtype(source))) as blocks:
        way = _Walk(source, ordered, blocks, states, options)
        if first_block == 0:
            way.begin()
        for number in range(first_block, len(block_names(source))):
            on_block(way.block(number, on_page))
            way.forget_before(number)
            mx.clear_cache()


def states_bytes(
    source: SourceCheckpoint, pages: Sequence[CalibrationPage], *, way_back: bool = False, recipes: int = 0
) -> int:
    """Return the most bytes of disk that a walk takes: three files of states, of the larger of both models'.

    With a *way_back*, there is one before every block of the language model, and one more while it is written. Each of
    *recipes* whose errors are propagated has three files of the language model's own.
    """
    config = source.config
    seen = sum(len(page.pixel_values) for page in pages) * int(config["vision_config"]["hidden_size"])
    read = sum(len(page.token_ids) for page in pages) * int(config["hidden_size"])
    kept = number_of_blocks(config)["layers"] + 2 if way_back else 0
    return (max(3 * max(seen, read), kept * read) + 3 * recipes * read) * computing_dtype(source).size


def states_of(
    source: SourceCheckpoint, ordered: Sequence[CalibrationPage], folder: Path, rounded: str = ""
) -> HiddenStates:
    """Return where the states of a walk are stored, for pages in their order.

    *rounded* identifies how the blocks before were rounded; without it, the states are the source's own.
    """
    dtype = computing_dtype(source)
    terms = (dtype, sorted(source.tensors.items()), *([rounded] if rounded else ()))
    return HiddenStates(folder, fingerprint(ordered, *terms), dtype)


@dataclass(frozen=True)
class _Input:
    """The input at *place* among those that a block's function returns: it goes to *modules*, MLX's names."""

    place: int
    modules: Sequence[str]
    sum: InputSum


_Seen = Iterator[tuple[CalibrationPage, tuple[mx.array, ...]]]
"""Page after page, and the inputs of a block's matrices on it, (tokens, columns) each."""


class _Walk:
    """One walk: *pages* in their order, and the sources of weights and states."""

    def __init__(
        self,
        source: SourceCheckpoint,
        pages: Sequence[CalibrationPage],
        blocks: SourceBlocks,
        states: HiddenStates,
        options: WalkOptions,
    ) -> None:
        self._pages, self._blocks, self._states, self._options = pages, blocks, states, options
        self._kernels = fastest_kernels()
        self._names = block_names(source)
        self._vision_blocks = number_of_blocks(source.config)["blocks"]
        self._image_token = source.image_token
        self._vision_shape = vision_shape(source.config["vision_config"])
        self._shape = language_shape(source.config)
        self._apart = frozenset[str]()
        if options.held_out_seed is not None:
            self._apart = held_out(pages, options.held_out_seed)

    def begin(self) -> None:
        """Write the input of the vision tower's first block."""
        weight = self._blocks.weights(PATCH_EMBED.removesuffix(".weight"))["weight"]
        with self._states.writing(0) as write:
            for page in self._pages:
                write(patches(weight, mx.array(page.pixel_values), self._layout(page), self._vision_shape))

    def block(self, number: int, on_page: Callable[[int, int], None] | None) -> BlockStatistics:
        """Take all pages through block *number*."""
        if number < self._vision_blocks:
            names, seen = VISION_INPUTS, self._vision(number)
        elif number < len(self._names) - 1:
            names, seen = BLOCK_INPUTS, self._language(number)
        else:
            names, seen = (("",),), self._head(number)
        inputs = self._inputs(number, names)
        for count, (page, values) in enumerate(seen, start=1):
            for each in inputs:
                weights = self._weights(page, each.modules, number)
                each.sum.add(values[each.place], weights, is_held_out=page.sha256 in self._apart)
            # Pages differ in size, and MLX would keep the arrays of each size for the next page of that size.
            mx.clear_cache()
            if on_page:
                on_page(number, count)
        return BlockStatistics(number, self._names[number], self._matrices(inputs))

    def forget_before(self, number: int) -> None:
        """Remove the states that are useless once block *number* is done."""
        kept = self._options.keep_states_from
        if number and (kept is None or number <= kept):
            self._states.remove(number - 1)

    def _inputs(self, number: int, names: Sequence[Sequence[str]]) -> list[_Input]:
        options, found = self._options, []
        for place, own in enumerate(names):
            modules = [f"{self._names[number]}.{name}".removesuffix(".") for name in own]
            modules = [each for each in modules if options.needed is None or each in options.needed]
            slices = options.down_slices if own == BLOCK_INPUTS[-1] and number >= self._vision_blocks else 1
            if modules:
                found.append(_Input(place, modules, InputSum(slices, holds_out=bool(self._apart))))
        return found

    def _matrices(self, inputs: Sequence[_Input]) -> dict[str, MatrixStatistics]:
        finished = [(each.modules, each.sum.finish()) for each in inputs]
        return {
            module: MatrixStatistics(self._blocks.matrix(module), statistics)
            for modules, statistics in finished
            for module in modules
        }

    def _weights(self, page: CalibrationPage, modules: Sequence[str], number: int) -> Floats:
        if number < self._vision_blocks:
            return np.ones(len(page.pixel_values), np.float32)
        if number == len(self._names) - 1:
            return predicts_answer(page).astype(np.float32)
        weigh = self._options.weigh
        return weigh(page, modules) if weigh else token_weights(page, self._image_token)

    def _vision(self, number: int) -> _Seen:
        """Pass pages through a vision block; after the last one, write the language model's input."""
        weights = self._blocks.weights(self._names[number])
        is_last = number == self._vision_blocks - 1
        merger = self._blocks.weights(f"{VISION}merger") if is_last else {}
        rows = [len(page.pixel_values) for page in self._pages]
        is_full = number in self._vision_shape.full
        with self._states.writing(number + 1) as write:
            for place, page in enumerate(self._pages):
                layout = self._layout(page)
                hidden = self._states.read(number, rows, place)
                hidden, inputs = vision_block(
                    weights, hidden, layout, self._vision_shape, is_full=is_full, kernels=self._kernels
                )
                mx.eval(hidden, inputs)
                yield page, inputs
                if is_last:
                    hidden = self._embed(page, merged(merger, hidden, layout, self._vision_shape))
                write(hidden)

    def _embed(self, page: CalibrationPage, features: mx.array) -> mx.array:
        ids, places = np.unique(page.token_ids, return_inverse=True)
        rows = mx.array(self._blocks.chosen_rows(EMBEDDINGS, ids.tolist())).astype(features.dtype)
        return embedded(rows[mx.array(places)], page.token_ids == self._image_token, features)

    def _language(self, number: int) -> _Seen:
        weights = self._blocks.weights(self._names[number])
        with self._states.writing(number + 1) as write:
            for place, page in enumerate(self._pages):
                hidden = self._states.read(number, self._tokens(), place)
                angles = rotary_angles(page.position_ids, self._shape)
                hidden, inputs = decoder_block(weights, hidden, angles, self._shape, kernels=self._kernels)
                mx.eval(hidden, inputs)
                yield page, inputs
                write(hidden)

    def _head(self, number: int) -> _Seen:
        norm = self._blocks.weights(f"{LANGUAGE}model.norm")["weight"]
        for place, page in enumerate(self._pages):
            yield page, (head_input(norm, self._states.read(number, self._tokens(), place), self._shape),)

    def _tokens(self) -> list[int]:
        return [len(page.token_ids) for page in self._pages]

    def _layout(self, page: CalibrationPage) -> Layout:
        _, rows, columns = page.grid_thw[0].tolist()
        return self._vision_shape.layout(rows, columns)
