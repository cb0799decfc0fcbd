"""Parts of a transformer in numpy, in float32, for a CPU: the vision tower and the language model use them.

MLX's CPU kernels for exponentials (softmax, SiLU) are scalar, and its attention multiplies head by head; numpy takes a
fraction of the time. The weights are the loaded model's own, shared and not copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from olmocr.inference.blas import Blas, Floats, Product

SMALL = 450_000
"""For at most this many multiplications numpy's own product takes less time than calling MKL; with one row, or a few of
attention. numpy's OpenBLAS does them in one thread (interface/gemv.c), so nobody has to wait for another."""

# Attention scores at once, in elements of all heads: 4 MB, about as much as fits into a processor's cache. Fewer
# rows than _LEAST_ROWS would make the matrix products inefficient.
_SCORES = 1 << 20
_LEAST_ROWS = 64


class Linear:
    """A dense float32 matrix of MLX, with its bias if it has one."""

    def __init__(self, layer: Any, blas: Blas) -> None:
        self._weight = np.asarray(layer.weight)
        self._bias = np.asarray(layer.bias) if "bias" in layer else None
        self._blas = blas

    def __call__(self, values: Floats) -> Floats:
        """Return the outputs (tokens, outputs) for *values* (tokens, width)."""
        is_small = len(values) == 1 and self._weight.size <= SMALL
        out = values @ self._weight.T if is_small else self._blas.product(values, self._weight.T)
        if self._bias is not None:
            out += self._bias
        return out


def rows_at_once(heads: int, keys: int) -> int:
    """Return for how many queries, of all *heads*, scores of so many *keys* should be computed at once."""
    return max(_LEAST_ROWS, _SCORES // (heads * keys))


def windows_at_once(heads: int, size: int) -> int:
    """Return for how many windows of *size* places, of all *heads*, scores should be computed at once."""
    return max(1, _SCORES // (heads * size * size))


def attend(product: Product, queries: Floats, keys: Floats, values: Floats, mask: Floats | None = None) -> Floats:
    """Return softmax(queries keys) values for each head; *queries* are already scaled.

    *queries* and *values* are (…, places, width), *keys* are (…, width, places). *mask* (queries, last keys) is added
    to the scores of the last keys.
    """
    scores = product(queries, keys)
    if mask is not None:
        scores[..., -mask.shape[1] :] += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed = product(scores, values)
    mixed /= scores.sum(axis=-1, keepdims=True)
    return mixed


def rms_norm(values: Floats, weight: Floats, epsilon: np.float32) -> Floats:
    """Return *values* (tokens, width), each token divided by its root mean square, times *weight* (width,)."""
    squares = np.einsum("ij,ij->i", values, values)
    normed: Floats = values / np.sqrt(squares / np.float32(values.shape[1]) + epsilon)[:, None]
    normed *= weight
    return normed


def silu(values: Floats) -> Floats:
    """Return values / (1 + exp(-values))."""
    out = np.negative(values)
    with np.errstate(over="ignore"):  # an infinite exponential is a closed gate
        np.exp(out, out=out)
    out += 1
    np.divide(values, out, out=out)
    return out
