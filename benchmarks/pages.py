"""Seconds per page, side by side: olmocr's engine, stock mlx-vlm and transformers on the same pixels and prompt."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe_machine

from olmocr.conversion.convert import convert
from olmocr.page import chat_prompt
from olmocr.rendering.render import open_document
from olmocr.version import __version__

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo"
LONGEST_SIDE = 644
MAX_TOKENS = 1000

# One page of each kind first; the others follow in the order of pages.json.
FIRST_PAGES = ("digital_01.pdf", "table_15.pdf", "scan_17.pdf", "dense_12.pdf", "codes_13.pdf", "rotated_20.pdf")
WARM_UP = ("report_22.pdf", 3)


@dataclass(frozen=True)
class Page:
    """A page as every contender gets it: *image* is a PNG file."""

    name: str
    image: Path


@dataclass
class Contender:
    """*function* of contenders.py on *model*, in *python*. *runs* holds its result of each round."""

    label: str
    function: str
    model: Path
    pages: list[Page]
    python: str = sys.executable
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missing(self) -> str | None:
        """Return the module that the contender's Python lacks."""
        return next((run["missing"] for run in self.runs if "missing" in run), None)

    def seconds(self, page: Page) -> float:
        """Return the median over the rounds."""
        place = self.pages.index(page)
        return statistics.median(float(run["answers"][place]["seconds"]) for run in self.runs)

    def texts(self, page: Page) -> set[str]:
        """Return the different answers over the rounds; there should be one."""
        place = self.pages.index(page)
        return {run["answers"][place]["text"] for run in self.runs}


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="olmocr-pages-") as name:
        folder = Path(name)
        warm_up, pages = render_pages(args.pages, folder)
        contenders = make_contenders(folder, pages, args)
        for number in range(1, args.rounds + 1):
            for contender in contenders if number % 2 else reversed(contenders):
                print(f"round {number}: {contender.label}, {len(contender.pages)} pages", file=sys.stderr)
                contender.runs.append(run_alone(contender, warm_up, folder))
    print_tables(contenders, pages, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=6, help="demo pages (default: %(default)s)")
    parser.add_argument(
        "--slow-pages", type=int, default=2, help="how many of them stock mlx-vlm is given (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="times that each contender runs (default: %(default)s)")
    parser.add_argument(
        "--transformers-python",
        default=sys.executable,
        metavar="PATH",
        help="Python that has torch and transformers (default: this one)",
    )
    return parser.parse_args()


def render_pages(count: int, folder: Path) -> tuple[Page, list[Page]]:
    """Render the warm-up page and *count* others to PNG files, once, so that all contenders see the same pixels."""
    listed = [(page["pdf"], page["page"]) for page in json.loads((DEMO / "pages/pages.json").read_text("utf-8"))]
    others = [page for page in listed if page != WARM_UP]
    others.sort(key=lambda page: FIRST_PAGES.index(page[0]) if page[0] in FIRST_PAGES else len(FIRST_PAGES))
    return _render(*WARM_UP, folder), [_render(pdf, number, folder) for pdf, number in others[:count]]


def _render(pdf: str, number: int, folder: Path) -> Page:
    path = DEMO / "pages" / pdf
    image = folder / f"{path.stem}-{number}.png"
    with open_document(path, pdf) as document:
        document.render(number, LONGEST_SIDE).pixels.save(image)
    return Page(f"{path.stem}, page {number}", image)


def make_contenders(folder: Path, pages: list[Page], args: argparse.Namespace) -> list[Contender]:
    checkpoint = DEMO / "checkpoint"
    models = {name: converted(checkpoint, name, folder) for name in ("8bit", "4bit", "none")}
    few = pages[: args.slow_pages]
    contenders = [
        Contender("olmocr 8-bit", "olmocr_engine", models["8bit"], pages),
        Contender("olmocr 4-bit", "olmocr_engine", models["4bit"], pages),
        Contender("mlx-vlm 8-bit", "stock_mlx_vlm", models["8bit"], few),
        Contender("mlx-vlm bf16", "stock_mlx_vlm", models["none"], few),
        Contender("transformers float32", "transformers_float32", checkpoint, pages, args.transformers_python),
    ]
    return [contender for contender in contenders if contender.pages]


def converted(checkpoint: Path, recipe: str, folder: Path) -> Path:
    output = folder / recipe
    convert(checkpoint, recipe, output)
    return output


def run_alone(contender: Contender, warm_up: Page, folder: Path) -> dict[str, Any]:
    """Run *contender* in a fresh process, so that it does not share a BLAS, threads or memory with another."""
    job, result = folder / "job.json", folder / "result.json"
    fields = {
        "model": str(contender.model),
        "chat_prompt": chat_prompt(),
        "max_tokens": MAX_TOKENS,
        "warm_up": str(warm_up.image),
        "images": [str(page.image) for page in contender.pages],
    }
    job.write_text(json.dumps(fields), encoding="utf-8")
    command = [contender.python, str(HERE / "contenders.py"), contender.function, str(job), str(result)]
    subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=sys.stderr, check=True)
    run: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return run


def print_tables(contenders: list[Contender], pages: list[Page], rounds: int) -> None:
    print(f"{describe_machine()}; olmocr {__version__}")
    print(f"{LONGEST_SIDE} px, greedy, text first, {rounds} rounds; medians, after one page that is not counted\n")
    print_summary(contenders)
    present = [contender for contender in contenders if not contender.missing]
    print_each_page(present, pages)
    print_differences(present)
    print("\nWhat ran:\n")
    for contender in present:
        print(f"- {contender.label}: {contender.runs[0]['about']}")


def print_summary(contenders: list[Contender]) -> None:
    ours = contenders[0]
    print("| contender | pages | s/page | times olmocr 8-bit, same pages | load, s | peak RSS, MiB | same text |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for contender in contenders:
        if contender.missing:
            print(f"| {contender.label} | 0 | not measured: {contender.missing} is not installed | | | | |")
            continue
        seconds = statistics.median(map(contender.seconds, contender.pages))
        ratio = statistics.median(contender.seconds(page) / ours.seconds(page) for page in contender.pages)
        load = statistics.median(run["load_seconds"] for run in contender.runs)
        peak = statistics.median(run["peak_rss"] for run in contender.runs) / 2**20
        same = sum(contender.texts(page) == ours.texts(page) for page in contender.pages)
        print(
            f"| {contender.label} | {len(contender.pages)} | {seconds:.2f} | {ratio:.1f} | {load:.1f} | {peak:.0f} "
            f"| {same} of {len(contender.pages)} |"
        )


def print_each_page(contenders: list[Contender], pages: list[Page]) -> None:
    print("\nSeconds for each page:\n")
    print(f"| page | {' | '.join(contender.label for contender in contenders)} |")
    print(f"| --- |{' ---: |' * len(contenders)}")
    for page in pages:
        cells = [f"{each.seconds(page):.2f}" if page in each.pages else "not read" for each in contenders]
        print(f"| {page.name} | {' | '.join(cells)} |")


def print_differences(contenders: list[Contender]) -> None:
    """Print answers that differ from olmocr 8-bit's, and contenders with different answers in different rounds."""
    ours = contenders[0]
    lines = []
    for contender in contenders:
        for page in contender.pages:
            where = f"- {contender.label}, {page.name}"
            if len(contender.texts(page)) > 1:
                lines.append(f"{where}: the rounds gave {len(contender.texts(page))} different answers")
            elif contender.texts(page) != ours.texts(page):
                lines.append(f"{where}: {_first_difference(min(ours.texts(page)), min(contender.texts(page)))}")
    print("\nAnswers that are not olmocr 8-bit's:\n" if lines else "\nEvery answer is olmocr 8-bit's, in every round.")
    for line in lines:
        print(line)


def _first_difference(ours: str, theirs: str) -> str:
    pairs = zip(f"{ours}\0", f"{theirs}\0", strict=False)
    place = next(number for number, (our, their) in enumerate(pairs) if our != their)
    cut = slice(max(0, place - 10), place + 20)
    return f"from character {place} of {len(ours)} on, {theirs[cut]!r} where ours is {ours[cut]!r}"


if __name__ == "__main__":
    main()
