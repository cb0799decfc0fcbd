"""The time of one pass over a language model's weights, by its number of tokens: prompts, answers at once, drafts.

The weights are random, since their values do not affect the time. So this runs at the 7B model's shape without its
files.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from machine import describe_machine

from olmocr.model_folder import ModelFolder, read_config
from olmocr.runtime.device import Device, start_mlx
from olmocr.version import __version__

DEMO = Path(__file__).resolve().parent.parent / "demo/checkpoint"
GROUP_SIZE = 64
PROMPT_STEP = 512

SHAPE_7B = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {"model_type": "qwen2_5_vl", "hidden_size": 1280, "out_hidden_size": 3584},
}

Pass = Callable[[], float]


def main() -> None:
    args = _arguments()
    device = start_mlx()
    print(f"{describe_machine()}; olmocr {__version__}; {args.gpu or device}\n")
    print(f"the shape of {args.shape}, random weights, {args.context} tokens in each cache; medians of {args.rounds}\n")
    rows = [(bits, measure(bits, args, device)) for bits in args.bits]
    print_tables(rows, args, device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("7b", "demo"), default="demo", help="(default: %(default)s)")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 8, 4], help="(default: 16 8 4)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="(default: 1 4 8 16 32)")
    parser.add_argument("--drafts", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="(default: 1 2 4 8 16)")
    parser.add_argument("--context", type=int, default=2048, help="tokens read before (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="times that each pass runs (default: %(default)s)")
    parser.add_argument("--gpu", help="the name of the GPU, for the heading", default="")
    return parser.parse_args()


def measure(bits: int, args: argparse.Namespace, device: Device) -> dict[tuple[str, int], float]:
    """Return the median seconds of each pass: ("prompt", tokens), ("batch", answers), ("stock", answers), ("draft", …).

    One after the other in each round, so that what else the machine does falls on all of them.
    """
    from olmocr.inference.passes.forward import Language

    model = make_model(SHAPE_7B if args.shape == "7b" else read_config(ModelFolder(DEMO)), bits)
    language = Language(model, has_kernels=device.kind != "cpu")
    passes: dict[tuple[str, int], Pass] = {("prompt", PROMPT_STEP): prompt_pass(language, args.context)}
    for size in args.drafts:
        passes["draft", size] = own_pass(language, [size], args, device)
    for size in args.batches:
        passes["batch", size] = own_pass(language, [1] * size, args, device)
        passes["stock", size] = stock_pass(model, size, args.context)
    for each in passes.values():
        each()  # compiles kernels
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in passes}
    for _ in range(args.rounds):
        for key, each in passes.items():
            seconds[key].append(each())
    return {key: statistics.median(values) for key, values in seconds.items()}


def make_model(config: dict[str, Any], bits: int) -> Any:
    """Return a language model of random weights in bfloat16, or packed in *bits* bits like our folders."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_map
    from mlx_vlm.models.qwen2_5_vl.config import ModelConfig, TextConfig, VisionConfig
    from mlx_vlm.models.qwen2_5_vl.language import LanguageModel

    text = TextConfig.from_dict(config)
    whole = ModelConfig(text, VisionConfig.from_dict(config["vision_config"]), "qwen2_5_vl")
    language = LanguageModel(text, whole)
    for _, module in language.named_modules():
        own = {name: value for name, value in module.items() if isinstance(value, mx.array) and name[0] != "_"}
        module.update(tree_map(_random, own))
        mx.eval(module.parameters())
    if bits < 16:
        nn.quantize(language, group_size=GROUP_SIZE, bits=bits)
        mx.eval(language.parameters())
    return SimpleNamespace(language_model=language)


def _random(array: Any) -> Any:
    import mlx.core as mx

    return mx.random.normal(array.shape, scale=0.02, dtype=mx.bfloat16)


def own_pass(language: Any, counts: list[int], args: argparse.Namespace, device: Device) -> Pass:
    """Return a pass of the engine's: so many tokens for each of several answers.

    Each run finds keys that are a token longer than those of the last one, as in an answer: some devices plan attention
    anew for a new length.
    """
    import mlx.core as mx

    from olmocr.inference.passes.cache import RowCache, cache_for
    from olmocr.inference.passes.forward import embed, forward, logits
    from olmocr.inference.sampling import Draw, choose

    layers = len(language.blocks)
    prompts = [RowCache(layers) for _ in counts]
    for prompt in prompts:
        _read(language, prompt, args.context)
    cache = cache_for(device, layers)
    cache.arrange(range(len(counts)), prompts, args.context + args.rounds + 1 + max(counts))
    draws = [Draw(0.0, 0, 0)] * sum(counts)
    lengths = itertools.count(args.context)

    def run() -> float:
        length = next(lengths)
        started = time.perf_counter()
        cache.expect([length] * len(counts), counts)
        positions = mx.concatenate([mx.arange(length, length + count, dtype=mx.int32) for count in counts])
        hidden = forward(language, embed(language, mx.ones(sum(counts), dtype=mx.int32)), positions, cache)
        mx.eval(choose(logits(language, hidden), draws))
        return time.perf_counter() - started

    return run


def prompt_pass(language: Any, context: int) -> Pass:
    """Return a function that reads a piece of a prompt after *context* tokens."""
    from olmocr.inference.passes.cache import RowCache

    cache = RowCache(len(language.blocks))
    _read(language, cache, context)

    def run() -> float:
        started = time.perf_counter()
        _read(language, cache, PROMPT_STEP)
        seconds = time.perf_counter() - started
        cache.drop_last(PROMPT_STEP)
        return seconds

    return run


def _read(language: Any, cache: Any, count: int) -> None:
    import mlx.core as mx

    from olmocr.inference.passes.forward import embed, forward

    while count > 0:
        step = min(count, PROMPT_STEP)
        positions = mx.broadcast_to(mx.arange(cache.length, cache.length + step, dtype=mx.int32), (3, 1, step))
        forward(language, embed(language, mx.ones(step, dtype=mx.int32)), positions, cache)
        mx.eval(cache.arrays())
        count -= step


def stock_pass(model: Any, answers: int, context: int) -> Pass:
    """Return mlx-vlm's own step for a batch of equally long answers, which is the best case for it."""
    import mlx.core as mx
    from mlx_vlm.models.cache import KVCache

    language = model.language_model
    caches = [KVCache() for _ in language.layers]
    tokens = mx.ones((answers, PROMPT_STEP), dtype=mx.int32)
    for start in range(0, context, PROMPT_STEP):
        step = tokens[:, : min(PROMPT_STEP, context - start)]
        language(step, cache=caches, position_ids=_positions(start, step.shape[1], answers))
        mx.eval([cache.state for cache in caches])

    def run() -> float:
        started = time.perf_counter()
        logits = language(tokens[:, :1], cache=caches, position_ids=_positions(context, 1, answers)).logits
        mx.eval(mx.argmax(logits[:, -1], axis=-1))
        seconds = time.perf_counter() - started
        for cache in caches:
            cache.trim(1)
        return seconds

    return run


def _positions(start: int, count: int, answers: int) -> Any:
    import mlx.core as mx

    return mx.broadcast_to(mx.arange(start, start + count, dtype=mx.int32), (3, answers, count))


def print_tables(
    rows: list[tuple[int, dict[tuple[str, int], float]]], args: argparse.Namespace, device: Device
) -> None:
    """Print a table of answers at once and one of drafts."""
    print("Answers at once, one token each; milliseconds a step, and tokens a second in brackets:\n")
    heads = [f"{size}" for size in args.batches]
    print("| bits | prompt, tokens/s | step | " + " | ".join(heads) + " |")
    print("| ---: | ---: | --- | " + " | ".join("---:" for _ in heads) + " |")
    for bits, seconds in rows:
        for kind, name in (("batch", "olmocr"), ("stock", "mlx-vlm")):
            prompt = f"{PROMPT_STEP / seconds['prompt', PROMPT_STEP]:,.0f}" if kind == "batch" else ""
            cells = [_cell(seconds[kind, size], size) for size in args.batches]
            print(f"| {bits} | {prompt} | {name} | " + " | ".join(cells) + " |")
    print("\nOne answer, with a draft of so many tokens less one to verify; milliseconds a pass:\n")
    print("| bits | " + " | ".join(f"{size}" for size in args.drafts) + " |")
    print("| ---: | " + " | ".join("---:" for _ in args.drafts) + " |")
    for bits, seconds in rows:
        print(f"| {bits} | " + " | ".join(f"{1000 * seconds['draft', size]:.1f}" for size in args.drafts) + " |")


def _cell(seconds: float, tokens: int) -> str:
    return f"{1000 * seconds:.1f} ({tokens / seconds:,.0f})"


if __name__ == "__main__":
    main()
