"""A source, a model made from it, and pages -> how far apart their next tokens are, with one block in memory.

Only the language models are compared: both get the output of the source's vision tower, as the prices of matrices
assume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.language import (
    POSITIONS_AT_ONCE,
    decoder_block,
    embedded,
    head_input,
    language_shape,
    logits,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, Weights, arrays_in
from olmocr.conversion.calibrated.passes.statistics import predicts_answer
from olmocr.conversion.calibrated.passes.walk import (
    BlockStatistics,
    WalkOptions,
    block_names,
    in_order,
    states_of,
    walk,
)
from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE, number_of_blocks

OnBlock = Callable[[int, int], None]
"""Called with how many blocks of both models are done, and how many there are."""


def measured_divergence(
    plan: ConversionPlan,
    folder: Path,
    pages: Sequence[CalibrationPage],
    scratch: Path,
    on_block: OnBlock = lambda done, total: None,
) -> float:
    """Return the mean KL divergence of *plan*'s language model, whose shards are in *folder*, from its source.

    It is in nats a token of the answers of *pages*. The source's states on them go into *scratch*.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: *scratch* cannot be written.
        PlanError: models of this family are not supported.
    """
    source, ordered = plan.source, in_order(pages)
    names = block_names(source)
    first = number_of_blocks(source.config)["blocks"]
    total = len(names) + len(names) - first
    states = states_of(source, ordered, scratch)
    rows = [len(page.token_ids) for page in ordered]
    shape, made = language_shape(source.config), _Made(plan, folder)
    ours: list[mx.array] = []

    def walked(block: BlockStatistics) -> None:
        if block.number == first:  # these states are gone later
            ours.extend(states.read(first, rows, place).astype(mx.float32) for place in range(len(ordered)))
        on_block(block.number + 1, total)

    walk(source, ordered, walked, scratch, options=WalkOptions(needed=()))
    _embed(ours, ordered, made, source.image_token)
    for number in range(first, len(names) - 1):
        weights = made.weights(names[number])
        for place, page in enumerate(ordered):
            ours[place], _ = decoder_block(weights, ours[place], rotary_angles(page.position_ids, shape), shape)
            mx.eval(ours[place])
        del weights
        mx.clear_cache()
        on_block(len(names) + number + 1 - first, total)
    with closing(SourceBlocks(source, mx.float32)) as blocks:
        norm, head = blocks.weights(f"{LANGUAGE}model.norm")["weight"], blocks.weights(names[-1])["weight"]
    made_norm, made_head = made.weights(f"{LANGUAGE}model.norm")["weight"], made.weights(names[-1])["weight"]
    nats = tokens = 0.0
    for place, page in enumerate(ordered):
        answers = np.flatnonzero(predicts_answer(page))
        theirs = states.read(len(names) - 1, rows, place).astype(mx.float32)
        for start in range(0, len(answers), POSITIONS_AT_ONCE):
            chosen = mx.array(answers[start : start + POSITIONS_AT_ONCE])
            truth = _log_probabilities(head, head_input(norm, theirs[chosen], shape))
            found = _log_probabilities(made_head, head_input(made_norm, ours[place][chosen], shape))
            nats += float((mx.exp(truth) * (truth - found)).sum())
        tokens += len(answers)
    on_block(total, total)
    return nats / tokens


def _log_probabilities(head: mx.array, normed: mx.array) -> mx.array:
    values = logits(head, normed)
    return values - mx.logsumexp(values, axis=-1, keepdims=True)


def _embed(hidden: list[mx.array], pages: Sequence[CalibrationPage], made: _Made, image_token: int) -> None:
    """Replace the source's embeddings of text by the converted model's."""
    for place, page in enumerate(pages):
        is_image = page.token_ids == image_token
        ids, places = np.unique(page.token_ids, return_inverse=True)
        rows = made.rows(EMBEDDINGS.removesuffix(".weight"), mx.array(ids))
        hidden[place] = embedded(rows[mx.array(places)], is_image, hidden[place][mx.array(np.flatnonzero(is_image))])
        mx.eval(hidden[place])


class _Made:
    """Reads tensors of a converted model's shards by MLX's names, as float32; keeps nothing in memory."""

    def __init__(self, plan: ConversionPlan, folder: Path) -> None:
        self._params = {tensor.name.removesuffix(".weight"): tensor.params for tensor in plan.tensors}
        self._shards = [folder / shard.file_name for shard in plan.shards]

    def weights(self, module: str) -> Weights:
        """Return all tensors below *module* by their name in it, quantized ones read back."""
        below = f"{module}."
        arrays = self._below(module)
        found = {
            name: self._read_back(name.removesuffix(".weight"), arrays) if name.endswith(".weight") else array
            for name, array in arrays.items()
            if not name.endswith((".scales", ".biases"))
        }
        weights = {name.removeprefix(below): array.astype(mx.float32) for name, array in found.items()}
        mx.eval(weights)
        return weights

    def rows(self, module: str, chosen: mx.array) -> mx.array:
        """Return the *chosen* rows of *module*'s matrix."""
        return self._read_back(module, {name: array[chosen] for name, array in self._below(module).items()})

    def _below(self, module: str) -> dict[str, mx.array]:
        """Return the stored tensors below *module*; each is read when it is used."""
        return {
            name: array
            for path in self._shards
            for name, array in arrays_in(path).items()
            if name.startswith(f"{module}.")
        }

    def _read_back(self, module: str, arrays: Mapping[str, mx.array]) -> mx.array:
        params, stored = self._params[module], arrays[f"{module}.weight"]
        if params is None:
            return stored
        scales, biases = arrays[f"{module}.scales"], arrays.get(f"{module}.biases")
        return mx.dequantize(
            stored, scales, biases, group_size=params.group_size, bits=params.bits, mode=params.mode, dtype=mx.float32
        )
