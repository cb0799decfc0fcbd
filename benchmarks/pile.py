"""Thousands of pages through the command ``olmocr``, and whether the memory of its processes grows.

``python benchmarks/pile.py MODEL --pages 2000 --work FOLDER``. *MODEL* is a crafted checkpoint (crafted.py) or a
variant of it; the pages show its answer, so all are known. Their own text is the answer (``--text right``), or
that with some words changed, as in true_size.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from crafted import WORDS, make_pdf, words
from machine import describe_machine
from true_size import KINDS
from watch import GB, Sample, start, watched

from olmocr.version import __version__


def main() -> None:
    args = _arguments()
    args.work.mkdir(parents=True)
    pdfs = make_pile(args.work / "pdfs", args.pages, args.pages_each, args.words, KINDS[args.text])
    workspace = args.work / "workspace"
    side = ("--target_longest_image_dim", str(args.side))
    model = ("--backend", "mlx", "--model", str(args.model))
    names = ("olmocr", str(workspace), "--pdfs", *map(str, pdfs), *model, *side, *args.options)
    with (args.work / "log.txt").open("w") as log:
        started = time.perf_counter()
        with start(names, log) as process, watched(process) as held:
            code = process.wait()
        seconds = time.perf_counter() - started
    print(f"{describe_machine()}; olmocr {__version__}; {args.gpu}")
    print(f"{args.pages} pages of {args.side} px, text {args.text}: {seconds:.1f} s with loading, exit code {code}")
    print(f"{_right(workspace, args.words)} of {args.pages} pages have the known text; the command says:")
    print("".join(f"    {line}\n" for line in _last_lines(args.work / "log.txt")))
    print("| part of the run | processes, GB | GPU, GB |\n| --- | ---: | ---: |")
    for name, part in quarters(held.samples):
        gpu = [each.gpu for each in part if each.gpu is not None]
        shown = f"{statistics.median(gpu) / GB:.2f}" if gpu else ""
        print(f"| {name} | {statistics.median(each.memory for each in part) / GB:.2f} | {shown} |")
    print(f"| most | {held.memory / GB:.2f} | {'' if held.gpu is None else f'{held.gpu / GB:.2f}'} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pages", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--pages-each", type=int, default=20, help="in a document (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--text", choices=tuple(KINDS), default="right", help="(default: %(default)s)")
    parser.add_argument("--words", type=int, default=WORDS, help="in the model's answer (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1288, help="pixels of a page (default: %(default)s)")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more options of the command")
    parser.add_argument("--gpu", default="", help="the GPU's name, for the heading")
    return parser.parse_args()


def make_pile(folder: Path, pages: int, each: int, count: int, changed: float) -> list[Path]:
    """Write PDFs of *each* pages (the last may have fewer), *pages* in all, no two with the same pixels."""
    folder.mkdir()
    paths = []
    for first in range(1, pages + 1, each):
        paths.append(folder / f"{first:06d}.pdf")
        make_pdf(paths[-1], min(each, pages + 1 - first), count, changed, first)
    return paths


def quarters(samples: list[Sample]) -> list[tuple[str, list[Sample]]]:
    """Return the samples of each quarter of the run's time, with its name."""
    names = ("first quarter", "second", "third", "last")
    size = max(1, len(samples) // 4)
    parts = [(name, samples[place * size : (place + 1) * size]) for place, name in enumerate(names)]
    return [(name, part) for name, part in parts if part]


def _right(workspace: Path, count: int) -> int:
    """Return how many pages are in documents that have the answer, *count* words, on every page."""
    lines = [line for path in sorted(workspace.glob("results/*.jsonl")) for line in path.open(encoding="utf-8")]
    documents = map(json.loads, lines)
    pages = [(each["metadata"]["pdf-total-pages"], each["text"].split()) for each in documents]
    return sum(number for number, text in pages if text == words(count) * number)


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("documents:", "pages:"))]


if __name__ == "__main__":
    main()
