"""What stock MLX makes of a folder: the values of packed weights, and whether mlx-vlm loads it.

The only module here that uses MLX and mlx-vlm. Import it after ``start_mlx``.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

from olmocr.errors import MissingDependencyError
from olmocr.runtime.extras import install_command
from olmocr.tensors.floats import Elements, Floats
from olmocr.validate.weights.packing import Packing


def dequantized(weight: Elements, scales: Elements, biases: Floats | None, packing: Packing) -> Floats:
    """Return rows of a packed weight as MLX dequantizes them in float32, always on its CPU backend.

    *scales* are floats or, in a mode without *biases*, the stored bytes.
    """
    with mx.stream(mx.cpu):
        values = mx.dequantize(
            mx.array(weight),
            mx.array(scales),
            None if biases is None else mx.array(biases),
            group_size=packing.group_size,
            bits=packing.bits,
            mode=packing.mode,
            dtype=mx.float32,
        )
        return np.array(values)


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
