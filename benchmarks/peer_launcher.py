"""Runs one of mlx-lm's quantizers, offline, on given windows of tokens; its last line is the cost as JSON.

`peer_quantizers.py` starts this in the environment that has mlx-lm. The quantizer is mlx-lm's own, from its `main`
on, and this file changes nothing on disk. In this process it changes:

- **Data.** mlx-lm downloads a text or a data set for calibration. Its `load_data` is replaced by one that returns the
  given windows.
- **Products on a CPU.** MLX's CPU kernels for products of 16-bit and of quantized matrices are scalar loops, 50 to 600
  times slower than its float32 products, which go to BLAS. So each product is computed in float32 and rounded to 16
  bits, like on a GPU, which sums in float32. Weights, activations and stored values stay in 16 bits. The loss of dwq
  and dynamic_quant is also summed in float32, as mlx-lm's Metal kernel does; its CPU code sums in 16 bits.
- **gptq, 3 bits.** mlx-lm packs codes of 2, 4 and 8 bits only, and fails with 3. The codes are chosen as mlx-lm would
  choose them, and packed in the form that MLX reads.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parent.parent))  # the environment need not have this package

from machine import peak_bytes

from olmocr.runtime.device import start_mlx

MODULES = {
    "stock": "mlx_lm.convert",
    "awq": "mlx_lm.quant.awq",
    "gptq": "mlx_lm.quant.gptq",
    "dwq": "mlx_lm.quant.dwq",
    "dynamic_quant": "mlx_lm.quant.dynamic_quant",
}

Ids = npt.NDArray[np.int32]


def main() -> None:
    """Take the quantizer's name, a file of windows (windows, tokens), the number of rounds, and its own options."""
    name, file, rounds, *options = sys.argv[1:]
    device = start_mlx()
    started = time.process_time()
    module = importlib.import_module(MODULES[name])
    hand_over(module, name, np.load(file), int(rounds))
    if device.kind == "cpu":
        multiply_in_float32()
        if hasattr(module, "kl_div_loss"):
            module.kl_div_loss = in_float32(module.kl_div_loss)
    if name == "gptq":
        multiply_in_catcher(module)
        module.quantize = pack
    sys.argv = [MODULES[name], *options]
    module.main()
    took = {
        "seconds": time.process_time() - started,
        "peak": peak_bytes(),
        "device": str(device),
        "version": importlib.metadata.version("mlx-lm"),
    }
    print(json.dumps(took))


def hand_over(module: Any, name: str, windows: Ids, rounds: int) -> None:
    """Make *module* calibrate on *windows*. Only dwq, which learns, reads them more than once."""
    import mlx.core as mx

    if name == "dwq":  # (tokens, where what counts begins): to learn from, and to tell now and then how it goes
        pairs = [(window.tolist(), 0) for window in windows]
        module.load_data = lambda *_, **__: (pairs * rounds, pairs[:: len(pairs) // 3])
    elif name != "stock":
        module.load_data = lambda _, num_samples, sequence_length: mx.array(windows[: first(num_samples)])


def first(num_samples: int) -> int | None:
    """Return how many windows mlx-lm means: -1 stands for all."""
    return num_samples if num_samples > 0 else None


def multiply_in_float32() -> None:
    """Replace functions that multiply matrices by float32 versions, whose results keep their dtype."""
    import mlx.core as mx
    import mlx.nn as nn

    nn.Linear.__call__ = linear
    nn.Embedding.as_linear = linear
    mx.quantized_matmul = quantized_matmul
    mx.einsum = in_float32(mx.einsum)
    mx.fast.scaled_dot_product_attention = in_float32(mx.fast.scaled_dot_product_attention)


def linear(self: Any, x: Any) -> Any:
    """Return the output of the layer, or of the embeddings as a head, for *x*."""
    out = wide(x) @ wide(self["weight"]).T
    return (out + wide(self["bias"]) if "bias" in self else out).astype(x.dtype)


def quantized_matmul(x: Any, w: Any, scales: Any, biases: Any, transpose: bool = True, **how: Any) -> Any:
    """Return the same as MLX's function of that name."""
    import mlx.core as mx

    weight = mx.dequantize(w, wide(scales), wide(biases), **how)
    return (wide(x) @ (weight.T if transpose else weight)).astype(x.dtype)


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* computed in float32, its result rounded to the dtype of its first array."""
    import mlx.core as mx

    def computed(*arguments: Any, **more: Any) -> Any:
        first = next(each for each in arguments if isinstance(each, mx.array))
        return function(*map(wide, arguments), **more).astype(first.dtype)

    return computed


def wide(value: Any) -> Any:
    """Return *value* in float32 if it is an array of 16-bit floats."""
    import mlx.core as mx

    is_short = isinstance(value, mx.array) and value.dtype in (mx.bfloat16, mx.float16)
    return value.astype(mx.float32) if is_short else value


def multiply_in_catcher(module: Any) -> None:
    """Make gptq add up products of inputs in float32."""

    def call(self: Any, x: Any, *arguments: Any, **more: Any) -> Any:
        rows = wide(x.flatten(0, -2))
        self.H = self.H + rows.T @ rows
        return self.module(x, *arguments, **more)

    module.Catcher.__call__ = call


def pack(weight: Any, bits: int, scales: Any, biases: Any) -> Any:
    """Return the codes of *weight* (rows, columns) in words of 32 bits, as MLX reads them: gptq's own `quantize`.

    MLX's layout is one stream of bits for each row, the lowest first, also where a code lies in two words.
    """
    import mlx.core as mx

    groups = mx.unflatten(weight, -1, (scales.shape[-1], -1))
    codes = mx.clip(mx.round((groups - biases[..., None]) / scales[..., None]), 0, 2**bits - 1)
    rows = np.array(codes.flatten(-2, -1).astype(mx.uint8))
    stream = np.unpackbits(rows[..., None], axis=-1, count=bits, bitorder="little")
    packed = np.packbits(stream.reshape(len(rows), -1), axis=-1, bitorder="little")
    return mx.array(packed.view(np.uint32))


if __name__ == "__main__":
    main()
