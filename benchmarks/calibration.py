"""The cost of a calibration: seconds for each stage and block, and peak memory, for a checkpoint of any size.

A checkpoint of the 7B layout with fewer blocks shows the cost of one block; with ``--language-blocks 28
--vision-blocks 32`` the table ends with the cost of all of them. Weights may be random: only the cost is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import describe_machine

from olmocr.calibration.choice import Wish, found_pages, measured_rates
from olmocr.conversion.calibrated.store import CalibrationFolder
from olmocr.conversion.calibrated.terms import Calibration
from olmocr.conversion.calibrated.wanted import wanted_matrices, work_of
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.recipe import find_recipe
from olmocr.model_folder import ModelFolder
from olmocr.runtime.device import start_mlx
from olmocr.runtime.memory import peak_memory
from olmocr.version import __version__


class Stopwatch:
    """Gets the finished share: half a block after all pages, the other half after rounding its matrices."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self._blocks, self._last = names, len(names), time.perf_counter()
        self.walked = [0.0] * self._blocks
        self.rounded = [0.0] * self._blocks

    def __call__(self, share: float) -> None:
        """Note the time of a finished share."""
        now = time.perf_counter()
        done = round(share * self._blocks, 6)
        is_rounded = done == int(done)
        stage, place = (self.rounded, int(done) - 1) if is_rounded else (self.walked, int(done))
        stage[place] += now - self._last
        self._last = now


def kind_of(name: str) -> str:
    """Return a block's kind: vision tower, language model or head."""
    return "vision block" if name.startswith("vision") else "language block" if ".layers." in name else "head"


def measure(plans: list[ConversionPlan], calibration: Calibration, threads: int) -> Stopwatch:
    """Calibrate into a folder, which is removed; return the seconds of each block."""
    # These import MLX, whose fast BLAS has to be there before.
    from olmocr.conversion.calibrated.calibrate import calibrate
    from olmocr.conversion.calibrated.passes.walk import block_names

    watch = Stopwatch(block_names(plans[0].source))
    with tempfile.TemporaryDirectory() as scratch:
        folder = CalibrationFolder(Path(scratch) / "calibration", "benchmark")
        folder.resume()
        timed = Calibration(calibration.pages, calibration.down_slices, on_share=watch)
        calibrate(plans, timed, folder, find_processor(), threads)
    return watch


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--quantize", default="mixed", help="recipes, with commas")
    parser.add_argument("--down-slices", type=int, default=1)
    parser.add_argument("--pages", type=Path, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--language-blocks", type=int, help="of the model that the checkpoint stands for")
    parser.add_argument("--vision-blocks", type=int)
    arguments = parser.parse_args()

    device = start_mlx()
    recipes = [find_recipe(name) for name in arguments.quantize.split(",")]
    source = ModelFolder(arguments.checkpoint)
    plans = [target.plan for target in plan_targets(source, recipes, "calibrated", Path("unused"))]
    started = time.perf_counter()
    pages = found_pages(source, Wish("calibrated", tuple(arguments.pages)))
    gathered = time.perf_counter() - started
    work = work_of(wanted_matrices(plans), pages, arguments.down_slices)
    rates = measured_rates()
    watch = measure(plans, Calibration(pages, arguments.down_slices), arguments.threads)

    tokens = sum(len(page.token_ids) for page in pages)
    answers = sum(len(page.token_ids) - page.answer_start for page in pages)
    print(f"{describe_machine()}; olmocr {__version__}, {device}, rounding on {find_processor()}")
    print(f"{len(pages)} pages, {tokens:,} tokens ({answers:,} of answers), made in {gathered:.1f} s\n")
    print("| block | walk, s | rounding, s | blocks | seconds in all |\n| --- | ---: | ---: | ---: | ---: |")
    by_kind: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(watch.names):
        by_kind[kind_of(name)].append(place)
    standing_for = {"vision block": arguments.vision_blocks, "language block": arguments.language_blocks}
    total = 0.0
    for kind, places in by_kind.items():
        walked, rounded = (median(stage[place] for place in places) for stage in (watch.walked, watch.rounded))
        count = standing_for.get(kind) or len(places)
        total += count * (walked + rounded)
        print(f"| {kind} | {walked:.2f} | {rounded:.2f} | {count} | {count * (walked + rounded):.0f} |")
    print(f"| all | | | | {total:.0f} |\n")
    print(f"measured in all {sum(watch.walked) + sum(watch.rounded):.0f} s; estimated {work.seconds(*rates):.0f} s")
    print(f"peak memory {peak_memory() / 1e9:.2f} GB{_on_device()}; estimated {work.peak_memory / 1e9:.2f} GB")


def _on_device() -> str:
    import mlx.core as mx

    return f", MLX's {mx.get_peak_memory() / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
