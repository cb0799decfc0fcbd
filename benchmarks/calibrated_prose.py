"""A language model rounded for the inputs that its matrices get on prose: its own collector, no pages.

This loads a converted model, and replaces the matrices of its blocks, and the embeddings that are also its head. The
new ones are `round_matrix` of the source's matrices with the same bits, so the model keeps its size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from machine import peak_bytes

from olmocr.conversion.calibrated.passes.drift import ChangedInputs, Drift, InputDrift, OutputDrift
from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    Angles,
    LanguageShape,
    decoder_block,
    head_input,
    language_shape,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, Weights
from olmocr.conversion.calibrated.passes.statistics import InputSum
from olmocr.conversion.calibrated.rounding.factor import Factor, prepare
from olmocr.conversion.calibrated.rounding.matrix import round_matrix
from olmocr.conversion.plan import make_plan
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import QuantParams, find_recipe
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.model_folder import ModelFolder

EMBEDDINGS = "embed_tokens"
SHARED_INPUTS = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
PARTS = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Moments = dict[str, Floats]


class Recorder(nn.Module):
    """A linear layer that adds up the second moments of its inputs."""

    def __init__(self, inner: nn.Module, moments: dict[str, npt.NDArray[np.float64]], name: str):
        super().__init__()
        self.inner = inner
        self._found = (moments, name)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the layer's output for *x*."""
        moments, name = self._found
        rows = x.reshape(-1, x.shape[-1])
        moments[name] = moments.get(name, 0.0) + np.array(rows.T @ rows).astype(np.float64)
        out: mx.array = self.inner(x)
        return out


def second_moments(loaded: Any, windows: Ids) -> Moments:
    """Return the sum of x x^T over inputs x of each matrix of the blocks and of the head, which is the embeddings.

    Of matrices with one input it is there for the first.
    """
    moments: dict[str, npt.NDArray[np.float64]] = {}
    model = loaded.model.language_model.model
    places = [(place, name) for place, name in _modules(loaded) if name.rpartition(".")[2] not in SHARED_INPUTS]
    for (parent, attribute), name in places:
        setattr(parent, attribute, Recorder(getattr(parent, attribute), moments, name))
    for window in windows:
        positions = mx.broadcast_to(mx.arange(len(window))[None, None], (3, 1, len(window)))
        normed = model(mx.array(window[None]), position_ids=positions)[0]
        moments[EMBEDDINGS] = moments.get(EMBEDDINGS, 0.0) + np.array(normed.T @ normed).astype(np.float64)
    for (parent, attribute), _ in places:
        setattr(parent, attribute, getattr(parent, attribute).inner)
    return {name: sums.astype(np.float32) for name, sums in moments.items()}


def round_matrices(loaded: Any, source: Path, recipe: str, moments: Moments, *, diagonal: bool = False) -> str:
    """Replace the matrices in *loaded*; return seconds and the peak of memory as cells of a table.

    With *diagonal* only the size of each input counts, not how inputs go together: a weighted `fit`.
    """
    started = time.process_time()
    weights = mx.load(str(source / "model.safetensors"))
    plan = make_plan(read_checkpoint(ModelFolder(source)), find_recipe(recipe))
    params = {tensor.name.removesuffix(".weight"): tensor.params for tensor in plan.tensors}
    factors: dict[str, Factor] = {}
    for (parent, attribute), name in _with_head(loaded):
        module = f"language_model.model.{name}"
        chosen = params[module]
        if chosen is None:
            continue
        of = name.removesuffix(attribute) + SHARED_INPUTS.get(attribute, attribute)
        if of not in factors:
            factors = {of: prepare(np.diag(moments[of].diagonal()) if diagonal else moments[of])}
        weight = np.array(weights[f"model.{name}.weight"].astype(mx.float32))
        getattr(parent, attribute).weight = mx.array(rounded(weight, factors[of], chosen))
    return f"{time.process_time() - started:.0f} | {peak_bytes() / 2**20:,.0f}"


def propagate(loaded: Any, source: Path, recipe: str, windows: Ids) -> str:
    """Do as `round_matrices`, but round each matrix for the inputs that the rounded ones before it give.

    Each makes up for what was lost before it. Both models' states of all *windows* go from block to block.
    """
    started = time.process_time()
    checkpoint = read_checkpoint(ModelFolder(source))
    plan = make_plan(checkpoint, find_recipe(recipe))
    params = {tensor.name.removesuffix(".weight"): tensor.params for tensor in plan.tensors}
    shape, blocks = language_shape(checkpoint.config), SourceBlocks(checkpoint, mx.float32)
    angles = rotary_angles(np.tile(np.arange(windows.shape[1], dtype=np.int32), (3, 1)), shape)
    model = loaded.model.language_model.model
    theirs = [blocks.weights(f"language_model.model.{EMBEDDINGS}")["weight"][mx.array(ids)] for ids in windows]
    own = list(theirs)
    for number, layer in enumerate(model.layers):
        module = f"language_model.model.layers.{number}"
        weights = blocks.weights(module)
        changed = dict(weights)
        for place, names in enumerate(BLOCK_INPUTS):
            wanted = {name: chosen for name in names if (chosen := params[f"{module}.{name}"])}
            if not wanted:
                continue
            seen = _both(weights, changed, theirs, own, angles, shape, place)
            for name, values in _rounded_for(seen, weights, wanted, adds=place in (1, 3)).items():
                changed[f"{name}.weight"] = values
                part, attribute = name.split(".")
                getattr(getattr(layer, part), attribute).weight = values
        theirs = [decoder_block(weights, each, angles, shape)[0] for each in theirs]
        own = [decoder_block(changed, each, angles, shape)[0] for each in own]
        mx.eval(theirs, own)
    if chosen := params[f"language_model.model.{EMBEDDINGS}"]:
        norm, head = (blocks.weights(f"language_model.model.{name}")["weight"] for name in ("norm", EMBEDDINGS))
        ends = [[head_input(norm, each, shape) for each in states] for states in (theirs, own)]
        seen = [ChangedInputs(one, other, np.ones(len(one), np.float32)) for one, other in zip(*ends, strict=True)]
        (values,) = _rounded_for(seen, {"head.weight": head}, {"head": chosen}, adds=False).values()
        model.embed_tokens.weight = values
    return f"{time.process_time() - started:.0f} | {peak_bytes() / 2**20:,.0f}"


def _both(
    weights: Weights,
    changed: Weights,
    theirs: Sequence[mx.array],
    own: Sequence[mx.array],
    angles: Angles,
    shape: LanguageShape,
    place: int,
) -> list[ChangedInputs]:
    """Return for each window the inputs at *place* of a block in both models, and the difference of their sums."""
    found = []
    for one, other in zip(theirs, own, strict=True):
        inputs, own_inputs = (
            decoder_block(each, h, angles, shape)[1] for each, h in ((weights, one), (changed, other))
        )
        lost = one - other
        if place == len(BLOCK_INPUTS) - 1:
            name = "self_attn.o_proj.weight"
            lost = lost + inputs[1] @ weights[name].T - own_inputs[1] @ changed[name].T
        mx.eval(lost)
        found.append(ChangedInputs(inputs[place], own_inputs[place], np.ones(len(one), np.float32), lost))
    return found


def _rounded_for(
    seen: Sequence[ChangedInputs], weights: Weights, wanted: Mapping[str, QuantParams], *, adds: bool
) -> dict[str, mx.array]:
    """Return the rounded values of the *wanted* matrices, which have one input."""
    drift: Drift = OutputDrift(weights[f"{next(iter(wanted))}.weight"]) if adds else InputDrift()
    total = InputSum()
    for each in seen:
        total.add(each.own, each.weights, is_held_out=False)
        drift.add(each)
    hessians = total.finish().hessians
    move, factor = drift.moves(hessians), prepare(hessians[0])
    found = {}
    for name, params in wanted.items():
        weight = np.array(weights[f"{name}.weight"])
        found[name] = mx.array(rounded(weight + move(weight, 0), factor, params))
    return found


def rounded(weight: Floats, factor: Factor, params: QuantParams) -> Floats:
    """Return the rounded values of *weight*."""
    found = round_matrix(weight, [factor], params, "BF16", find_processor())
    groups = found.codes.reshape(len(weight), -1, params.group_size).astype(np.float32)
    return (groups * found.scales[:, :, None] + found.biases[:, :, None]).reshape(weight.shape)


def _modules(loaded: Any) -> Iterator[tuple[tuple[Any, str], str]]:
    """Yield each matrix of the blocks: the module that has it as an attribute, and the attribute's name."""
    for number, block in enumerate(loaded.model.language_model.model.layers):
        for part, names in PARTS.items():
            for name in names:
                yield (getattr(block, part), name), f"layers.{number}.{part}.{name}"


def _with_head(loaded: Any) -> Iterator[tuple[tuple[Any, str], str]]:
    yield from _modules(loaded)
    yield (loaded.model.language_model.model, EMBEDDINGS), EMBEDDINGS
