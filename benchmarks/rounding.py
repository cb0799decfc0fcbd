"""What `fit` gains over `stock`, which is mx.quantize: squared errors of the weights, and of products with them.

It uses the demo checkpoint's language model, which is really trained, and a matrix of the 7B model's shape with random
weights: normally distributed, with rows of different scales and a few outliers. Outputs are products with normal
vectors.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from olmocr.conversion.disk import Buffer, reading
from olmocr.conversion.quantizing.rows import StoredRows, find_processor, quantized_rows
from olmocr.conversion.recipe import Method, QuantParams
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.model_folder import ModelFolder
from olmocr.runtime.device import start_mlx
from olmocr.tensors.floats import NUMPY_DTYPES
from olmocr.version import __version__

DEMO = Path(__file__).resolve().parent.parent / "demo/checkpoint"
SHAPE = (1024, 18944)
METHODS: tuple[Method, ...] = ("stock", "fit")

Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def demo_matrices() -> Iterator[Bits]:
    """Yield the language model's matrices, bfloat16 bits."""
    source = read_checkpoint(ModelFolder(DEMO))
    for name, info in source.tensors.items():
        if name.startswith("language_model.") and len(info.shape) == 2:
            with reading(DEMO / info.shard) as reader:
                yield reader.read(info.offset, info.nbytes, Buffer()).view(np.uint16).reshape(info.shape).copy()


def large_matrix() -> Iterator[Bits]:
    """Yield rows of a down_proj of the 7B model, with random weights."""
    random = np.random.default_rng(0)
    values = random.normal(0, 0.02, SHAPE) * random.lognormal(0, 0.3, (SHAPE[0], 1))
    values[random.random(SHAPE) < 2e-4] *= 12
    yield (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: Bits) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_back(stored: StoredRows, params: QuantParams, shape: tuple[int, ...]) -> Floats:
    """Return the values that MLX computes with."""
    import mlx.core as mx

    with mx.stream(mx.cpu):
        weight = mx.array(stored.parts[0].view(np.uint32).reshape(shape[0], -1))
        scales, biases = (mx.array(widened(part.view(np.uint16)).reshape(shape[0], -1)) for part in stored.parts[1:])
        return np.array(mx.dequantize(weight, scales, biases, group_size=params.group_size, bits=params.bits))


def measure(matrices: list[Bits], params: QuantParams, method: Method) -> tuple[float, float, float]:
    """Return the squared errors of weights and of outputs, relative to the source's, and weights per CPU second."""
    vectors = np.random.default_rng(1)
    weights, outputs, seconds = np.zeros(2), np.zeros(2), 0.0
    for bits in matrices:
        started = time.process_time()
        stored = quantized_rows(bits.view(NUMPY_DTYPES["BF16"]), params, method, "BF16", find_processor())
        seconds += time.process_time() - started
        source = widened(bits)
        rest = read_back(stored, params, bits.shape) - source
        x = vectors.normal(size=(bits.shape[1], 16)).astype(np.float32)
        weights += [np.square(rest, dtype=np.float64).sum(), np.square(source, dtype=np.float64).sum()]
        outputs += [np.square(rest @ x, dtype=np.float64).sum(), np.square(source @ x, dtype=np.float64).sum()]
    return weights[0] / weights[1], outputs[0] / outputs[1], sum(each.size for each in matrices) / seconds


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    start_mlx()
    print(f"{describe_machine()}; olmocr {__version__}; computed by {find_processor()}\n")
    print(
        "| matrices | bits | group | stock: relative error | fit: relative error | weights, fit / stock (squared) "
        "| outputs, fit / stock (squared) | stock, M weights/s | fit, M weights/s |"
    )
    print("| --- |" + " ---: |" * 8)
    for label, matrices in (("demo checkpoint", list(demo_matrices())), ("7B shape, random", list(large_matrix()))):
        measure(matrices[:1], QuantParams(4), "stock")  # compiles
        measure(matrices[:1], QuantParams(4), "fit")
        for bits, group_size in ((3, 64), (4, 32), (4, 64), (4, 128), (5, 64), (6, 64), (8, 64)):
            stock, fit = (measure(matrices, QuantParams(bits, group_size), method) for method in METHODS)
            print(
                f"| {label} | {bits} | {group_size} | {math.sqrt(stock[0]):.5f} | {math.sqrt(fit[0]):.5f} "
                f"| {fit[0] / stock[0]:.3f} | {fit[1] / stock[1]:.3f} | {stock[2] / 1e6:.0f} | {fit[2] / 1e6:.0f} |"
            )


if __name__ == "__main__":
    main()
