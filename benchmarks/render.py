"""Milliseconds to render a page on one core: one of our workers against pdfinfo and pdftoppm, as upstream uses them."""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from machine import describe_machine
from PIL import Image, ImageDraw, ImageFilter

from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.rendering.pool import RenderPool

DEMO_PAGES = Path(__file__).parents[1] / "demo" / "pages"
POPPLER, OURS, OURS_PNG = "pdfinfo + pdftoppm -png", "olmocr: pixels", "olmocr: pixels, then PNG"
CONTENDERS = (POPPLER, OURS, OURS_PNG)

Page = tuple[Path, int]
Times = dict[str, dict[Page, list[float]]]


def main() -> None:
    args = _arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})  # workers and poppler's processes inherit it
    with tempfile.TemporaryDirectory() as folder:
        paths = args.pdfs or [*sorted(DEMO_PAGES.glob("*.pdf")), *make_dense_pages(Path(folder))]
        pages = asyncio.run(list_pages(paths))
        times: Times = {name: {page: [] for page in pages} for name in CONTENDERS}
        cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for number in range(args.rounds):
            for name in CONTENDERS if number % 2 else reversed(CONTENDERS):
                cpu[name].append(measure(name, times[name]))
                print(f"round {number + 1}, {name}: {cpu[name][-1] * 1e3:.1f} ms of CPU a page", file=sys.stderr)
        print_tables(times, cpu, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", nargs="*", type=Path, metavar="PDF", help="instead of the demo's and made-up ones")
    parser.add_argument("--rounds", type=int, default=5, help="times that each page is rendered (default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the one that all run on (default: %(default)s)")
    return parser.parse_args()


def make_dense_pages(folder: Path) -> list[Path]:
    """Write pages that are harder to render than the demo's: full text, a drawing, a large photo, a 1-bit scan."""
    chance = random.Random(0)
    text = "BT /F 8 Tf 9 TL 36 770 Td" + "".join(f" ({_words(chance, 115)}) Tj T*" for _ in range(82)) + " ET"
    places = [(chance.uniform(0, 612), chance.uniform(0, 792)) for _ in range(3000)]
    drawing = "0.2 w 0 0 m " + " ".join(f"{x:.1f} {y:.1f} l" for x, y in places) + " S"
    paths = [folder / f"made_{name}.pdf" for name in ("text", "drawing", "photo", "bits")]
    paths[0].write_bytes(_one_page(text))
    paths[1].write_bytes(_one_page(drawing))
    noise = Image.effect_noise((2550, 3300), 60).filter(ImageFilter.GaussianBlur(2))
    Image.merge("RGB", (noise, noise, noise)).save(paths[2], resolution=300, quality=85)
    scan = Image.new("1", (5100, 6600), 1)
    for at in range(100):
        ImageDraw.Draw(scan).text((300, 300 + 60 * at), _words(chance, 300), fill=0)
    scan.save(paths[3], resolution=600)
    return paths


def _words(chance: random.Random, characters: int) -> str:
    return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz     ") for _ in range(characters))


def _one_page(content: str) -> bytes:
    """Return a letter page in Helvetica; readers find its objects without a table."""
    return (
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        "/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
        f"4 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    ).encode("ascii")


async def list_pages(paths: list[Path]) -> list[Page]:
    async with RenderPool(1) as pool:
        return [(path, n) for path in paths for n in range(1, await pool.page_count(*_named(path)) + 1)]


def _named(path: Path) -> tuple[Path, str]:
    return path, path.name


def measure(name: str, times: dict[Page, list[float]]) -> float:
    """Add one round's seconds to *times*; return the CPU seconds per page, including the start of processes."""
    before = _cpu_seconds()
    asyncio.run(_round(name, times))
    return (_cpu_seconds() - before) / len(times)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def _round(name: str, times: dict[Page, list[float]]) -> None:
    async with RenderPool(1) as pool:
        await pool.page_count(*_named(next(iter(times))[0]))  # starts the worker, a fifth of a second, once a run
        for path, number in times:

            async def ours(path: Path = path, number: int = number) -> object:
                return (await pool.render(*_named(path), number, TARGET_LONGEST_IMAGE_DIM)).image.pixels

            async def ours_png(path: Path = path, number: int = number) -> object:
                page = await pool.render(*_named(path), number, TARGET_LONGEST_IMAGE_DIM)
                return encode(page.image.pixels)

            async def poppler(path: Path = path, number: int = number) -> object:
                return render_with_poppler(path, number)

            render: Callable[[], Awaitable[object]] = {OURS: ours, OURS_PNG: ours_png, POPPLER: poppler}[name]
            started = time.perf_counter()
            await render()
            times[path, number].append(time.perf_counter() - started)


def encode(pixels: Image.Image) -> bytes:
    """Return the bytes that olmocr sends to a server."""
    buffer = io.BytesIO()
    pixels.save(buffer, format="PNG", compress_level=1)
    return base64.b64encode(buffer.getbuffer())


def render_with_poppler(path: Path, number: int) -> bytes:
    """Return what upstream's olmocr sends to a server, made by its two commands for each page."""
    page = ["-f", str(number), "-l", str(number)]
    info = subprocess.run(
        ["pdfinfo", *page, "-box", "-enc", "UTF-8", str(path)], capture_output=True, text=True, check=True
    ).stdout
    line = next(line for line in info.splitlines() if "MediaBox" in line)
    left, bottom, right, top = map(float, line.split(":")[1].split())
    dots_per_inch = TARGET_LONGEST_IMAGE_DIM * 72 / max(abs(left - right), abs(top - bottom))
    done = subprocess.run(
        ["pdftoppm", "-png", *page, "-r", str(dots_per_inch), str(path)], capture_output=True, check=True
    )
    return base64.b64encode(done.stdout)


def print_tables(times: Times, cpu: dict[str, list[float]], rounds: int) -> None:
    medians = {name: {page: statistics.median(each) for page, each in of.items()} for name, of in times.items()}
    version = subprocess.run(["pdftoppm", "-v"], capture_output=True, text=True, check=True).stderr.split("\n")[0]
    pages = list(times[OURS])
    print(f"{describe_machine()}; {version}")
    print(f"{len(pages)} pages, {TARGET_LONGEST_IMAGE_DIM} px, one core, {rounds} rounds; milliseconds\n")
    print(
        "| contender | median page | all pages / count | poppler's time / this, median | lowest | CPU a page | ratio |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in CONTENDERS:
        of = medians[name]
        ratios = [medians[POPPLER][page] / of[page] for page in pages]
        seconds = statistics.median(cpu[name])
        print(
            f"| {name} | {_ms(statistics.median(of.values()))} | {_ms(statistics.mean(of.values()))} | "
            f"{statistics.median(ratios):.1f} | {min(ratios):.1f} | {_ms(seconds)} | "
            f"{statistics.median(cpu[POPPLER]) / seconds:.1f} |"
        )
    print(f"\n| page | {' | '.join(CONTENDERS)} | poppler / pixels |\n| ---{' | ---:' * 4} |")
    for page in pages:
        row = " | ".join(_ms(medians[name][page]) for name in CONTENDERS)
        print(f"| {page[0].stem}, {page[1]} | {row} | {medians[POPPLER][page] / medians[OURS][page]:.1f} |")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"


if __name__ == "__main__":
    main()
