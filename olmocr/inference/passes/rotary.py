"""Positions -> the rotation of queries and keys by them, for all heads at once.

While text is written, the three numbers of a position (time, row, column) are the same. M-RoPE is then plain RoPE
(https://arxiv.org/abs/2409.12191, section 2.1), for which MLX has one kernel on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

Rotate = Callable[[mx.array], tuple[mx.array, mx.array]]
"""Heads (tokens, heads, width): queries, then keys, then others -> rotated queries and keys."""


class Rotary:
    """The rotary embedding of one model: *rotary* is mlx-vlm's, *queries* and *keys* are the numbers of their heads.

    With *is_fused*, as on a GPU, MLX's kernel rotates text. A CPU has no such kernel, and would compute the angles
    anew in each layer.
    """

    def __init__(self, rotary: Any, queries: int, keys: int, is_fused: bool) -> None:
        self._rotary = rotary
        self._queries, self._both = queries, queries + keys
        self._is_fused = is_fused
        self._width = int(rotary.dim)
        # Computed as in mlx-vlm, so that both have the same angles; the kernel takes their inverse.
        self._wavelengths = rotary.base ** (mx.arange(0, self._width, 2).astype(mx.float32) / self._width)
        mx.eval(self._wavelengths)

    def at(self, positions: mx.array, dtype: mx.Dtype) -> Rotate:
        """Return a function that rotates heads of *dtype* whose tokens are at *positions*, int32.

        These are (tokens,) for text, or (3, 1, tokens) for any prompt.
        """
        if positions.ndim == 1:
            return self._fused(positions) if self._is_fused else self._by_angles(positions[None], dtype)
        return self._in_metal(positions) if self._rotary.fused_apply else self._by_angles(positions, dtype)

    def _fused(self, positions: mx.array) -> Rotate:
        def rotate(heads: mx.array) -> tuple[mx.array, mx.array]:
            # The other heads are rotated, too, but not used: leaving them out would need a copy first.
            turned = mx.fast.rope(
                heads[:, :, None],
                self._width,
                traditional=False,
                base=None,
                scale=1.0,
                offset=positions,
                freqs=self._wavelengths,
            )
            return self._parts(turned.squeeze(2))

        return rotate

    def _in_metal(self, positions: mx.array) -> Rotate:
        def rotate(heads: mx.array) -> tuple[mx.array, mx.array]:
            lines = (each.transpose(1, 0, 2)[None] for each in self._parts(heads))
            queries, keys = self._rotary.apply_rotary(*lines, positions, unsqueeze_dim=1)
            return queries.squeeze(0).transpose(1, 0, 2), keys.squeeze(0).transpose(1, 0, 2)

        return rotate

    def _by_angles(self, positions: mx.array, dtype: mx.Dtype) -> Rotate:
        cosines, sines = (each[0, :, None] for each in self._rotary(mx.zeros(0, dtype), positions))
        half = self._width // 2
        # The first half is rotated with minus the second: with the sign here, no head has to be negated.
        sines = mx.concatenate([-sines[..., :half], sines[..., half:]], axis=-1)

        def rotate(heads: mx.array) -> tuple[mx.array, mx.array]:
            heads = heads[:, : self._both]
            swapped = mx.concatenate([heads[..., half:], heads[..., :half]], axis=-1)
            return self._parts(heads * cosines + swapped * sines)

        return rotate

    def _parts(self, heads: mx.array) -> tuple[mx.array, mx.array]:
        return heads[:, : self._queries], heads[:, self._queries : self._both]
