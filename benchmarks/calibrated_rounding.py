"""The cost of calibrated rounding: seconds and peak memory for one matrix of each shape, on a CPU or a GPU.

Weights are random; a few columns of the inputs are far larger than the rest. With ``--rows``, only that many rows are
rounded, and the seconds for all rows are extrapolated: rows do not depend on one another.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from olmocr.conversion.calibrated.rounding.matrix import Factor, prepare, round_matrix
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import QuantParams
from olmocr.runtime.memory import peak_memory, shown_size
from olmocr.version import __version__

SHAPES = {
    "demo": (768, 384, 1),
    "SmolLM2": (576, 1536, 1),
    "7B k, v": (512, 3584, 1),
    "7B q, o": (3584, 3584, 1),
    "7B gate, up": (18944, 3584, 1),
    "7B down, 4 blocks": (3584, 18944, 4),
    "7B down, 2 blocks": (3584, 18944, 2),
}
"""Rows, columns, and blocks that the columns' Hessian is in."""

Floats = npt.NDArray[np.float32]


def random_weight(rows: int, columns: int) -> Floats:
    random = np.random.default_rng(0)
    return random.normal(0, 0.02, (rows, columns)).astype(np.float32)


def random_hessian(columns: int) -> Floats:
    """Return the second moments of fewer inputs than columns."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((columns // 4, columns), np.float32) * random.lognormal(0, 1, columns)
    inputs += random.standard_normal((columns // 4, 1))
    inputs = inputs.astype(np.float32)
    product: Floats = inputs.T @ inputs
    return product


def measure(label: str, args: argparse.Namespace) -> None:
    rows, columns, blocks = SHAPES[label]
    some = min(rows, args.rows or rows)
    hessian = random_hessian(columns // blocks)
    started = time.perf_counter()
    # The blocks are alike: each is factorised as often as it would be, and one of them is kept.
    factors: list[Factor] = [prepare(hessian) for _ in range(blocks)]
    prepared = time.perf_counter() - started
    weight = random_weight(some, columns)
    params = QuantParams(args.bits, args.group_size)
    small = weight[:64, : columns // blocks]
    round_matrix(small, factors[:1], params, "BF16", args.processor)  # compiles
    started, cpu = time.perf_counter(), time.process_time()
    rounded = round_matrix(weight, factors, params, "BF16", args.processor, threads=args.threads)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    scale = rows / some
    print(
        f"| {label} | {rows} x {columns} | {some} | {prepared:.1f} | {seconds * scale:.1f} | {cpu * scale:.1f} "
        f"| {weight.size / seconds / 1e6:.2f} | {shown_size(peak_memory())} | {rounded.loss / rounded.fit_loss:.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", help=f"some of {', '.join(SHAPES)} (all of them)")
    parser.add_argument("--processor", default=find_processor(), help="numba, gpu or cpu")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--rows", type=int, help="round at most so many rows (all of them)")
    parser.add_argument("--threads", type=int, default=1, help="with numba (%(default)s)")
    args = parser.parse_args()
    print(f"{describe_machine()}; olmocr {__version__}; {args.processor}, {args.bits} bits, {args.threads} threads\n")
    print(
        "| matrix | shape | rows measured | factor, s | rounding, s | CPU, s | M weights/s | peak so far | loss / fit |"
    )
    print("| --- |" + " ---: |" * 8)
    for label in args.shapes or SHAPES:
        measure(label, args)


if __name__ == "__main__":
    main()
