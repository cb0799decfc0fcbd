"""Matrices with the same input -> one matrix and one product, in the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_PARTS = ("weight", "scales", "biases", "bias")
"""The arrays of a matrix; each has a row for each output. MLX calls the zero points of quantized matrices *biases*."""


class Joined:
    """Several matrices of one input. Adjacent matrices with the same storage become one.

    Afterwards *modules* have views of the joined matrices, so that they work as before and no weight is stored twice.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        groups = (list(group) for _, group in groupby(modules, _storage))
        self.matrices = [group[0] if len(group) == 1 else _joined(group) for group in groups]

    def __len__(self) -> int:
        return len(self.matrices)

    def __call__(self, values: mx.array) -> mx.array:
        """Return the outputs (…, of all matrices), one after the other, for *values* (…, width)."""
        parts: list[mx.array] = [matrix(values) for matrix in self.matrices]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)


def _storage(module: Any) -> tuple[object, ...]:
    """Return the properties that two matrices must share to be joined."""
    settings = tuple(getattr(module, name, None) for name in ("group_size", "bits", "mode"))
    parts = tuple((name, module[name].dtype, module[name].shape[1:]) for name in _PARTS if _has(module, name))
    return (type(module), settings, parts)


def _has(module: Any, name: str) -> bool:
    return module.get(name) is not None  # mxfp4, mxfp8 and nvfp4 have no zero points


def _joined(modules: Sequence[Any]) -> Any:
    """Return one matrix with the outputs of *modules*, which become views of it."""
    first = modules[0]
    kind: Any = type(first)
    whole = kind.__new__(kind)  # without the random weights that its __init__ makes
    nn.Module.__init__(whole)
    for name in ("group_size", "bits", "mode"):
        if hasattr(first, name):
            setattr(whole, name, getattr(first, name))
    for name in _PARTS:
        if not _has(first, name):
            continue
        array = mx.concatenate([module[name] for module in modules], axis=0)
        mx.eval(array)
        whole[name] = array
        start = 0
        for module in modules:
            end = start + module[name].shape[0]
            # Once computed, a slice of rows is a view, and the module's old array is released.
            module[name] = array[start:end]
            mx.eval(module[name])
            start = end
    return whole
