"""How many operations of each kind one step has, with one token for each of several answers.

The operations are those of the graph for a GPU that MLX gets: what has its own kernel there counts as one operation,
views do not count. A profile shows slightly different numbers, since a kernel copies some views first and MLX merges
some copies. This runs anywhere, since only the number of layers matters: the model has 28 very small ones.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from machine import describe_machine
from passes import SHAPE_7B, make_model

from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

SMALL = {
    **SHAPE_7B,
    "hidden_size": 28 * 8,
    "intermediate_size": 64,
    "vocab_size": 64,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "vision_config": {"model_type": "qwen2_5_vl", "hidden_size": 64, "out_hidden_size": 28 * 8},
}

VIEWS = {"Broadcast", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unflatten"}
"""Operations that only say otherwise where an array's numbers lie."""

_CONTEXT = 16


def main() -> None:
    args = _arguments()
    start_mlx()
    print(f"{describe_machine()}; olmocr {__version__}\n")
    counts = {rows: step_operations(make_model(SMALL, args.bits), [1] * rows) for rows in args.answers}
    print("| operation | " + " | ".join(f"{rows} at once" for rows in counts) + " |")
    print("| --- | " + " | ".join("---:" for _ in counts) + " |")
    for name in sorted(set().union(*counts.values())):
        print(f"| {name} | " + " | ".join(f"{count[name]}" for count in counts.values()) + " |")
    print("| all | " + " | ".join(f"{count.total()}" for count in counts.values()) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 8], help="at once (default: 1 8)")
    parser.add_argument("--bits", type=int, default=16, help="(default: %(default)s)")
    return parser.parse_args()


def step_operations(model: Any, counts: Sequence[int]) -> Counter[str]:
    """Return how many operations of each name a step has that gives each row *counts* tokens."""
    import mlx.core as mx

    from olmocr.inference.passes.cache import BatchCache, RowCache
    from olmocr.inference.passes.forward import Language, embed, forward, logits
    from olmocr.inference.sampling import Draw, choose

    with as_on_a_gpu():
        language = Language(model, has_kernels=True)
        rows = [RowCache(len(language.blocks)) for _ in counts]
        for row in rows:
            places = mx.arange(_CONTEXT, dtype=mx.int32)
            forward(language, embed(language, mx.zeros(_CONTEXT, dtype=mx.int32)), places, row)
            mx.eval(row.arrays())
        cache = BatchCache(len(language.blocks))
        cache.arrange([object() for _ in rows], rows, 256)
        tokens, positions = mx.zeros(sum(counts), dtype=mx.int32), mx.full(sum(counts), _CONTEXT, dtype=mx.int32)
        mx.eval(tokens, positions)

        def step() -> mx.array:
            cache.expect([_CONTEXT] * len(rows), counts)
            scores = logits(language, forward(language, embed(language, tokens), positions, cache))
            return choose(scores, [Draw(0.0, 0, 0)] * sum(counts))

        mx.eval(step())  # after which all that the next one begins with is computed
        return operations(step())


def operations(array: Any) -> Counter[str]:
    """Return how many operations of each name MLX would use to compute *array*, without views."""
    import mlx.core as mx

    graph = io.StringIO()
    mx.export_to_dot(graph, array)
    return Counter(name for name in re.findall(r'label ?= ?"(\w+)"', graph.getvalue()) if name not in VIEWS)


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Replace each operation that is one kernel on a GPU but several on a CPU by a stand-in."""
    import mlx.core as mx

    fast = mx.fast
    before = fast.rms_norm, fast.rope, fast.scaled_dot_product_attention
    fast.rms_norm = lambda x, weight, eps: mx.tan(x)
    fast.rope = lambda x, dims, **options: mx.tanh(x)
    fast.scaled_dot_product_attention = lambda q, k, v, *, scale, mask=None: mx.depends(
        q, [k, v, *([mask] if isinstance(mask, mx.array) else [])]
    )
    try:
        yield
    finally:
        fast.rms_norm, fast.rope, fast.scaled_dot_product_attention = before


if __name__ == "__main__":
    main()
