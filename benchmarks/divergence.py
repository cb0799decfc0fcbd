"""How far quantized models differ from their source, token by token, on the source's answers to the demo's pages.

Each variant gets the unquantized model's greedy answer to a page, and predicts the token at every position. The output
is the Kullback-Leibler divergence of its distribution from the source's (in nats), and the share of positions with the
same most likely token. All variants compute in float32, so only the weights differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import Method
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest
from olmocr.rendering.render import open_document
from olmocr.runtime.device import start_mlx
from olmocr.version import __version__

DEMO = Path(__file__).resolve().parent.parent / "demo"
LONGEST_SIDE = 644
VARIANTS: tuple[tuple[str, Method], ...] = (
    ("4bit", "stock"),
    ("4bit", "fit"),
    ("mixed-small", "fit"),
    ("mixed", "fit"),
    ("mixed-large", "fit"),
    ("8bit", "stock"),
    ("8bit", "fit"),
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A page as the model gets it, and the source's answer: token ids."""

    inputs: Any
    answer: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=24, help="how many of the demo's pages (default: all 24)")
    args = parser.parse_args()
    device = start_mlx()
    print(f"{describe_machine()}; olmocr {__version__}, {device}; {args.pages} pages at {LONGEST_SIDE} px\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = load(folder, "none", "stock")
        questions = [ask(source, request) for request in requests()[: args.pages]]
        expected = [log_probabilities(source, question) for question in questions]
        print_table(folder, questions, expected)


def load(folder: Path, recipe: str, method: Method) -> Any:
    from olmocr.inference.model import load_model

    output = folder / f"{recipe}-{method}"
    convert(DEMO / "checkpoint", recipe, output, method=method)
    return load_model(ModelFolder(output), start_mlx())


def requests() -> list[PageRequest]:
    """Return the demo's pages."""
    entries = json.loads((DEMO / "pages/pages.json").read_text(encoding="utf-8"))
    found = []
    for entry in entries:
        path = DEMO / "pages" / entry["pdf"]
        with open_document(path, path.name) as pages:
            found.append(PageRequest(pages.render(entry["page"], LONGEST_SIDE)))
    return found


def ask(loaded: Any, request: PageRequest) -> Question:
    from olmocr.inference.decode import decode
    from olmocr.inference.prompt import make_inputs

    inputs = make_inputs(loaded.processor, request)
    answer = decode(loaded, replace(request, max_tokens=2000))
    return Question(inputs, list(answer.tokens))


def log_probabilities(loaded: Any, question: Question) -> Floats:
    """Return the log probability of every token at each position of the answer and after its end."""
    from olmocr.validate.fidelity.forced import ForcedAnswer

    return np.concatenate(list(ForcedAnswer(loaded, question.inputs, question.answer).blocks()))


def print_table(folder: Path, questions: list[Question], expected: list[Floats]) -> None:
    print("| recipe | method | weights, bytes | mean KL | 99th percentile | same most likely token | on whole pages |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for recipe, method in VARIANTS:
        loaded = load(folder, recipe, method)
        nbytes = sum(path.stat().st_size for path in (folder / f"{recipe}-{method}").glob("*.safetensors"))
        divergence, same = [], []
        for question, truth in zip(questions, expected, strict=True):
            found = log_probabilities(loaded, question)
            divergence.append((np.exp(truth) * (truth - found)).sum(axis=1))
            same.append(truth.argmax(axis=1) == found.argmax(axis=1))
        every, alike = np.concatenate(divergence), np.concatenate(same)
        print(
            f"| {recipe} | {method} | {nbytes:,} | {every.mean():.2e} | {np.quantile(every, 0.99):.2e} "
            f"| {alike.mean():.3%} | {sum(page.all() for page in same)} of {len(same)} |"
        )
        del loaded
    print(
        f"\n{sum(each.shape[0] for each in expected)} positions; median answer "
        f"{statistics.median(len(each.answer) for each in questions):.0f} tokens."
    )


if __name__ == "__main__":
    main()
