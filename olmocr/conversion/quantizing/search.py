"""How ``fit`` looks for a group's scale and bias, step by step, as data: every implementation follows these steps.

MLX's affine format stores for each group of weights w an integer code q in [0, n], n = 2**bits - 1, and one scale s
and bias b in the model's 16-bit dtype, so that w is read back as ``s * q + b``. ``mx.quantize`` takes s and b from the
group's extremes, chooses the codes, and rounds s and b to 16 bits only afterwards. ``fit`` minimizes the squared error
of what is read back, over candidates that are rounded to the stored dtype *before* the codes are chosen:

1. ``mx.quantize``'s own scale and bias, rounded, so that ``fit`` is never worse.
2. The group's range shrunk by each of ``SHRINKS`` about its middle: clipping an outlier buys finer steps for the rest.
3. ``LEAST_SQUARES``: the scale and bias that least squares gives for the best candidate's codes; then a grid a little
   finer and a little coarser than the best one's, its bias re-centred, which gets out of the local minimum; and again.

With at most ``MOST_BITS_AROUND_ZERO`` bits, except in embeddings and the head, each grid that is tried has a level at
zero (up to the rounding of its bias, a whole number of its scales), as ``mx.quantize``'s has: step 2 shrinks candidate
1's scale, and step 3 fits the scale alone. And a group whose largest weight is more than ``OUTLIER`` times its root
mean square keeps candidate 1, which stores that weight exactly. In a language model the first token's hidden state is
hundreds of times as large as the others': a few weights of a ``down_proj``, each far larger than its neighbours, make
it (super weights, arXiv:2411.07191), and weights of ``v_proj`` near zero keep it from the later tokens, which attend
to it. Neither shows in the error of one matrix, and a coarse grid that cuts the first and has no zero for the second
harms every token. Rows of tokens have no such part: there the freer search is nearer to the source (measured:
``benchmarks/real_weights.py``).

A group whose range is within ``EPSILON * n`` keeps candidate 1. All arithmetic is float32, each operation rounded once
(no fused multiply-add); sums over a group are halving trees (element i plus element i + size/2, and so on), so that
every implementation, on any device, gives the same bits. Codes are ``clip(rint((w - b) * (1 / s)), 0, n)``, halves to
even. The first candidate with the least error wins.
"""

from __future__ import annotations

EPSILON = 1e-7
"""The least scale, as in ``mx.quantize`` (mlx/backend/cpu/quantized.cpp)."""

MOST_BITS_AROUND_ZERO = 3

OUTLIER = 4.0

LEAST_SQUARES = 0.0
"""A step that is neither a shrink nor a stretch."""

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)

REFINEMENTS = (LEAST_SQUARES, LEAST_SQUARES, 0.97, 1.03, LEAST_SQUARES, 0.985, 1.015, LEAST_SQUARES)
"""``LEAST_SQUARES``, or what the best candidate's scale is multiplied by (measured: ``benchmarks/rounding.py``)."""
