"""A language model rounded for what the inputs of its matrices are like on prose: its own collector, no pages.

A model that was converted is loaded, and the matrices of its blocks, and the embeddings that are its head, are replaced
by what `round_matrix` makes of the source's, at the same bits: so the bytes are those of the conversion.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from machine import peak_bytes

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
    """A linear layer that adds up the second moments of what it is given."""

    def __init__(self, inner: nn.Module, moments: dict[str, npt.NDArray[np.float64]], name: str):
        super().__init__()
        self.inner = inner
        self._found = (moments, name)

    def __call__(self, x: mx.array) -> mx.array:
        """Return what the layer makes of *x*."""
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


def rounded(weight: Floats, factor: Factor, params: QuantParams) -> Floats:
    """Return what is read back of *weight*."""
    found = round_matrix(weight, [factor], params, "BF16", find_processor())
    groups = found.codes.reshape(len(weight), -1, params.group_size).astype(np.float32)
    return (groups * found.scales[:, :, None] + found.biases[:, :, None]).reshape(weight.shape)


def _modules(loaded: Any) -> Iterator[tuple[tuple[Any, str], str]]:
    """Yield each matrix of the blocks: the module that it is an attribute of, and its name."""
    for number, block in enumerate(loaded.model.language_model.model.layers):
        for part, names in PARTS.items():
            for name in names:
                yield (getattr(block, part), name), f"layers.{number}.{part}.{name}"


def _with_head(loaded: Any) -> Iterator[tuple[tuple[Any, str], str]]:
    yield from _modules(loaded)
    yield (loaded.model.language_model.model, EMBEDDINGS), EMBEDDINGS
