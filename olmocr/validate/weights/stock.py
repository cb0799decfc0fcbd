"""What stock MLX makes of a folder: the values of packed weights, and whether mlx-vlm loads it.

The only module here that uses MLX and mlx-vlm. Import it after ``start_mlx``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from olmocr.errors import MissingDependencyError
from olmocr.runtime.extras import install_command
from olmocr.tensors.floats import Elements, Floats
from olmocr.validate.weights.packing import Packing


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Some rows of a packed weight, as stored. *scales* are floats or, in a mode without *biases*, the stored bytes."""

    weight: Elements
    scales: Elements
    biases: Floats | None


def dequantized(pieces: Sequence[PackedRows], packing: Packing) -> list[Floats]:
    """Return each of *pieces* as MLX dequantizes it in float32, always on its CPU backend, several at once.

    MLX runs one operation of a stream at a time, on one core, so each piece has a stream of its own.
    """
    values = []
    for piece, stream in zip(pieces, _streams(len(pieces)), strict=True):
        with mx.stream(stream):
            values.append(
                mx.dequantize(
                    mx.array(piece.weight),
                    mx.array(piece.scales),
                    None if piece.biases is None else mx.array(piece.biases),
                    group_size=packing.group_size,
                    bits=packing.bits,
                    mode=packing.mode,
                    dtype=mx.float32,
                )
            )
    mx.eval(values)
    return [np.array(each) for each in values]


_made: list[mx.Stream] = []


def _streams(count: int) -> list[mx.Stream]:
    """Return *count* streams of the CPU; they are kept, since MLX never ends the thread of one."""
    _made.extend(mx.new_stream(mx.cpu) for _ in range(count - len(_made)))
    return _made[:count]


def why_not_loaded(folder: Path) -> str | None:
    """Have mlx-vlm load *folder* without reading its weights; return its reason if it fails, else None.

    Raises:
        MissingDependencyError: mlx-vlm is not installed.
    """
    try:
        from mlx_vlm.utils import load_model
    except ImportError as error:
        raise MissingDependencyError(
            f"mlx-vlm is not installed ({error}); install it with: {install_command('mlx')}"
        ) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for the report
            load_model(folder, lazy=True)
    except Exception as error:  # mlx-vlm has no error classes: a bad folder can raise any built-in one
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
    return None
