"""Matrices that are given the same input -> one, so that they are one product; the memory stays what it was."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_PARTS = ("weight", "scales", "biases", "bias")
"""What a matrix is made of; each has a row for each output. MLX calls the zero points of quantized ones *biases*."""


class Joined:
    """Several matrices of one input. Those beside each other that are stored alike are one.

    Afterwards *modules* have views of what was joined, so that they work as before and no weight is there twice.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        groups = (list(group) for _, group in groupby(modules, _storage))
        self._matrices = [group[0] if len(group) == 1 else _joined(group) for group in groups]

    def __len__(self) -> int:
        return len(self._matrices)

    def __call__(self, values: mx.array) -> mx.array:
        """Return the outputs (…, of all) one behind the other, of *values* (…, width)."""
        parts: list[mx.array] = [matrix(values) for matrix in self._matrices]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)


def _storage(module: Any) -> tuple[object, ...]:
    """Return what two matrices must have in common to be joined."""
    settings = tuple(getattr(module, name, None) for name in ("group_size", "bits", "mode"))
    parts = tuple((name, module[name].dtype, module[name].shape[1:]) for name in _PARTS if _has(module, name))
    return (type(module), settings, parts)


def _has(module: Any, name: str) -> bool:
    return module.get(name) is not None  # mxfp4, mxfp8 and nvfp4 have no zero points


def _joined(modules: Sequence[Any]) -> Any:
    """Return one matrix with the outputs of *modules*, which from now on are views of it."""
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
            # A slice of rows is a view once it is computed: what was there before is let go.
            module[name] = array[start:end]
            mx.eval(module[name])
            start = end
    return whole
