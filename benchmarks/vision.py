"""One page's image through the vision tower: olmocr's with MLX, mlx-vlm's own, and olmocr's with numpy (on a CPU).

The weights are random, since their values do not affect the time. So this runs at the 7B model's shape without its
files.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from machine import describe_machine
from passes import DEMO, GROUP_SIZE, SHAPE_7B

from olmocr.model_folder import ModelFolder, read_config
from olmocr.runtime.device import Device, start_mlx
from olmocr.version import __version__

LETTER = 8.5 / 11


def main() -> None:
    args = _arguments()
    device = start_mlx()
    dtype = args.dtype or ("float32" if device.kind == "cpu" else "bfloat16")
    model = make_model(args, dtype)
    print(f"{describe_machine()}; olmocr {__version__}; {args.gpu or device}\n")
    weights = dtype if args.bits == 16 else f"{dtype} on {args.bits}-bit weights"
    blocks = len(model.vision_tower.blocks)
    print(f"the vision tower of {args.shape}, {blocks} blocks of random weights, {weights}; medians of {args.rounds}\n")
    names = ["olmocr, MLX", "mlx-vlm", *(["olmocr, numpy"] if _takes_numpy(args, device, dtype) else [])]
    heads = ["letter page, px", "patches", *(f"{name}, ms" for name in names), "longest piece, ms", "differs by"]
    print("| " + " | ".join(heads) + " |\n| " + " | ".join("---:" for _ in heads) + " |")
    for side in args.sides:
        print_row(model, side, names, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("7b", "demo"), default="demo", help="(default: %(default)s)")
    parser.add_argument("--blocks", type=int, help="fewer blocks than the model has")
    parser.add_argument("--bits", type=int, choices=(4, 8, 16), default=16, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="(default: float32 on a CPU, else bfloat16)")
    parser.add_argument("--sides", type=int, nargs="+", default=[644, 1288], help="longer sides (default: 644 1288)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each image is read (default: %(default)s)")
    parser.add_argument("--gpu", help="the name of the GPU, for the heading", default="")
    return parser.parse_args()


def make_model(args: argparse.Namespace, dtype: str) -> Any:
    """Return a vision tower of random weights, and its config, like a model's."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_vlm.models.qwen2_5_vl.config import VisionConfig
    from mlx_vlm.models.qwen2_5_vl.vision import VisionModel

    shape = SHAPE_7B if args.shape == "7b" else read_config(ModelFolder(DEMO))
    config = VisionConfig.from_dict(shape["vision_config"])
    config.depth = args.blocks or config.depth
    if args.bits < 16:  # our recipes pad the MLP so that its width can be quantized
        config.intermediate_size = -(-config.intermediate_size // GROUP_SIZE) * GROUP_SIZE
    tower = VisionModel(config)
    tower.load_weights([(name, _random(name, array)) for name, array in tree_flatten(tower.parameters())], strict=False)
    tower.set_dtype(getattr(mx, dtype))
    if args.bits < 16:
        nn.quantize(
            tower, group_size=GROUP_SIZE, bits=args.bits, class_predicate=lambda _, each: type(each) is nn.Linear
        )
    mx.eval(tower.parameters())
    return SimpleNamespace(vision_tower=tower, config=SimpleNamespace(vision_config=config))


def _random(name: str, array: Any) -> Any:
    import mlx.core as mx

    return mx.ones_like(array) if "norm" in name or "ln_q" in name else mx.random.normal(array.shape, scale=0.02)


def _takes_numpy(args: argparse.Namespace, device: Device, dtype: str) -> bool:
    return bool(device.kind == "cpu" and dtype == "float32" and args.bits == 16)


def print_row(model: Any, side: int, names: Sequence[str], rounds: int) -> None:
    """Read an image with each tower in turn, so that other load on the machine affects all of them."""
    import mlx.core as mx
    import numpy as np

    from olmocr.inference.vision import CpuVisionTower
    from olmocr.inference.vision_mlx import MlxVisionTower, StockVisionTower

    kinds = [MlxVisionTower, StockVisionTower, CpuVisionTower][: len(names)]
    towers = [kind(model) for kind in kinds]
    rows, columns = 2 * round(side / 28), 2 * round(side * LETTER / 28)
    pixels = np.random.default_rng(side).normal(0, 1, (rows * columns, 1176)).astype(np.float32)
    grid = np.array([[1, rows, columns]])
    features = [np.array(tower(pixels, grid).astype(mx.float32)) for tower in towers]  # compiles kernels, too
    differs = np.abs(features[0] - features[1]).max() / np.abs(features[1]).max()
    seconds = [[_pieces(tower, pixels, grid) for tower in towers] for _ in range(rounds)]
    whole = [1000 * statistics.median(map(sum, times)) for times in zip(*seconds, strict=True)]
    piece = 1000 * statistics.median(max(times[0]) for times in seconds)
    cells = [f"{side}", f"{rows * columns:,}", *(f"{each:,.1f}" for each in whole), f"{piece:,.1f}", f"{differs:.1e}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def _pieces(tower: Any, pixels: Any, grid: Any) -> list[float]:
    """Return the seconds of each piece of an image."""
    import mlx.core as mx

    seconds, started = [], time.perf_counter()
    for features in tower.begin(pixels, grid):
        if features is not None:
            mx.eval(features)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return seconds


if __name__ == "__main__":
    main()
