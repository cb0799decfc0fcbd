"""Pages per second and peak memory of the complete pipeline on one core, with a model that answers at once."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import logging
import os
import pstats
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import describe_machine

from olmocr import PipelineConfig, run_pipeline
from olmocr.page import Ask, ModelResponse, PageRequest

WORDS = 300  # a page's, about 2000 characters; a dense one has more
SIDES = (28, 256, 1288)

FRONT_MATTER = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\n"
)


def main() -> None:
    args = _arguments()
    if args.measure:
        print(json.dumps(asyncio.run(measure(args.folder, args.measure, args.profile))))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})  # the renderers inherit it
    print(f"{describe_machine()}; {args.documents} documents of {args.pages} pages, one core\n")
    print(
        "| longest side, px | pages/s by the clock | pages a second of CPU | coordinator, ms a page | "
        "renderer, ms a page | pages/s of the coordinator alone | peak, coordinator, MiB | peak, renderer, MiB |"
    )
    print(f"|{' ---: |' * 8}")
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            make_documents(Path(folder), args.documents, args.pages)
            print_row(side, measured_apart(Path(folder), side, args.profile))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--pages", type=int, default=100, help="of each document (default: %(default)s)")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="pixels (default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the core that all runs on, where the system can say so")
    parser.add_argument("--profile", action="store_true", help="print where the coordinator's time goes")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_documents(folder: Path, documents: int, pages: int) -> None:
    """Write PDFs of letter pages with a few lines of text each, no two pages alike."""
    for document in range(documents):
        (folder / f"{document:05}.pdf").write_bytes(
            _pdf([f"document {document}, page {page}" for page in range(pages)])
        )


def _pdf(titles: list[str]) -> bytes:
    """Return a PDF; readers find its objects without a table."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(titles)))
    parts = [
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {len(titles)}/MediaBox[0 0 612 792]"
        "/Resources<</Font<</F 3 0 R>>>>>>endobj\n3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n"
    ]
    for at, title in enumerate(titles):
        lines = " ".join(f"({title}, line {line}) Tj T*" for line in range(8))
        content = f"BT /F 24 Tf 28 TL 72 700 Td {lines} ET"
        parts.append(f"{4 + 2 * at} 0 obj<</Type/Page/Parent 2 0 R/Contents {5 + 2 * at} 0 R>>endobj\n")
        parts.append(f"{5 + 2 * at} 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj\n")
    return "".join([*parts, "trailer<</Root 1 0 R>>\n%%EOF\n"]).encode("ascii")


def measured_apart(folder: Path, side: int, profile: bool) -> dict[str, float]:
    """Measure in a separate process, whose peak memory is that of this run."""
    command = [sys.executable, __file__, "--measure", str(side), "--folder", str(folder)]
    done = subprocess.run(command + ["--profile"] * profile, stdout=subprocess.PIPE, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    print(*shown, sep="\n", end="", file=sys.stderr)
    found: dict[str, float] = json.loads(last)
    return found


async def measure(folder: Path, side: int, profile: bool) -> dict[str, float]:
    logging.getLogger("olmocr").setLevel(logging.ERROR)
    config = PipelineConfig(
        workspace=folder / "workspace",
        pdfs=(str(folder),),
        model="scripted",
        markdown=True,
        target_longest_image_dim=side,
        max_concurrent_pages=8,
        max_page_error_rate=0,
    )
    started, before = time.perf_counter(), _cpu(resource.RUSAGE_SELF)
    with _profiled(profile):
        summary = await run_pipeline(config, ask=scripted())
    own, renderers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "pages": summary.pages,
        "failed": len(summary.failures) + summary.fallback_pages,
        "seconds": time.perf_counter() - started,
        "own_cpu": _cpu(resource.RUSAGE_SELF) - before,
        "renderer_cpu": _cpu(resource.RUSAGE_CHILDREN),
        "own_peak": _bytes(own.ru_maxrss),
        "renderer_peak": _bytes(renderers.ru_maxrss),
    }


def scripted() -> Ask:
    """Return a model that answers at once, with a different answer for each page."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 10))) for _ in range(5000)]

    async def ask(request: PageRequest) -> ModelResponse:
        return ModelResponse(FRONT_MATTER + " ".join(chance.choices(words, k=WORDS)), "stop", 1700, 500)

    return ask


@contextlib.contextmanager
def _profiled(wanted: bool) -> Iterator[None]:
    profile = cProfile.Profile()
    if wanted:
        profile.enable()
    yield
    profile.disable()
    if wanted:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def print_row(side: int, found: dict[str, float]) -> None:
    pages = found["pages"]
    own, renderer = found["own_cpu"] / pages, found["renderer_cpu"] / pages
    print(
        f"| {side} | {pages / found['seconds']:.0f} | {1 / (own + renderer):.0f} | {own * 1e3:.2f} | "
        f"{renderer * 1e3:.2f} | {1 / own:.0f} | {found['own_peak'] / 2**20:.0f} | "
        f"{found['renderer_peak'] / 2**20:.0f} |",
        flush=True,
    )
    if found["failed"]:
        print(f"{found['failed']:.0f} pages or documents failed: this measures nothing", file=sys.stderr)


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _bytes(peak: int) -> int:
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
