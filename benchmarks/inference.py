"""Pages per minute, measured like ``olmocr doctor --measure`` but with more pages and other settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from machine import describe_machine

from olmocr.backends.local_server import free_port
from olmocr.conversion.convert import convert
from olmocr.doctor.measure.apart import Apart
from olmocr.doctor.measure.pages import PagesToRead
from olmocr.doctor.measure.parts import as_reading
from olmocr.doctor.measure.reading import (
    EngineSetting,
    Round,
    read_with_engine,
    read_with_generate,
    read_with_server,
)
from olmocr.doctor.measure.terms import find_demo
from olmocr.files import temporary_folder
from olmocr.reports.machine import MeasuredReading, Reader
from olmocr.reports.machine_text import reading_table
from olmocr.version import __version__

LONGEST_SIDE = 644
SECONDS = 7200.0  # after which a contender is taken for one that hangs

Read = Callable[[], Round]
Contender = tuple[Reader, EngineSetting, str, Read]


def main() -> None:
    args = _arguments()
    with temporary_folder() as folder:
        contenders = make_contenders(folder, args)
        rounds: list[list[Round]] = [[] for _ in contenders]
        for number in range(args.rounds):
            places = range(len(contenders))
            for place in reversed(places) if number % 2 else places:
                name, setting, _, read = contenders[place]
                print(f"round {number + 1}: {name}, {setting}", file=sys.stderr)
                rounds[place].append(read())
    print(f"{describe_machine()}; olmocr {__version__}")
    print(f"{args.pages} demo pages at {LONGEST_SIDE} px, greedy, text first, {args.rounds} rounds; medians\n")
    print("\n".join(reading_table(make_readings(contenders, rounds))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=21, help="demo pages (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs (default: %(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: 1 2 4 8)")
    parser.add_argument("--stock-pages", type=int, default=4, help="pages for mlx-vlm (default: %(default)s)")
    parser.add_argument("--stock-recipe", default="none", help="what mlx-vlm is given (default: %(default)s)")
    return parser.parse_args()


def make_contenders(folder: Path, args: argparse.Namespace) -> list[Contender]:
    """Return ours in every setting, and stock mlx-vlm on fewer pages, with the weights that are fastest for it."""
    demo, apart = find_demo(), Apart(folder, SECONDS)
    ours, stock = folder / "ours", folder / "stock"
    convert(demo.checkpoint, "8bit", ours)
    pages = PagesToRead(demo, args.pages, LONGEST_SIDE)
    settings = [EngineSetting(at_once, has_drafts) for at_once in args.at_once for has_drafts in (False, True)]
    contenders: list[Contender] = [
        ("olmocr", setting, "8bit", partial(_with_engine, apart, ours, pages, setting)) for setting in settings
    ]
    if args.stock_pages:
        convert(demo.checkpoint, args.stock_recipe, stock)
        weights = {"none": "bfloat16"}.get(args.stock_recipe, args.stock_recipe)
        few = PagesToRead(demo, args.pages, LONGEST_SIDE, first=args.stock_pages)
        alone, together = EngineSetting(1, has_drafts=False), EngineSetting(args.stock_pages, has_drafts=False)
        contenders.append(("mlx_vlm.generate", alone, weights, partial(apart.call, read_with_generate, stock, few)))
        contenders.append(("mlx_vlm.server", together, weights, partial(_with_server, apart, stock, few)))
    return contenders


def _with_engine(apart: Apart, model: Path, pages: PagesToRead, setting: EngineSetting) -> Round:
    return apart.call(read_with_engine, model, pages, [setting])[0]


def _with_server(apart: Apart, model: Path, pages: PagesToRead) -> Round:
    return apart.call(read_with_server, model, pages, free_port())


def make_readings(contenders: list[Contender], rounds: list[list[Round]]) -> list[MeasuredReading]:
    """Return each contender's result; texts are compared with those of the first one."""
    expected = rounds[0][0].texts
    return [
        as_reading(name, setting, weights, done, expected)
        for (name, setting, weights, _), done in zip(contenders, rounds, strict=True)
    ]


if __name__ == "__main__":
    main()
