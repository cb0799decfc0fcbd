"""Every command of the README, run once on one checkpoint: seconds, exit code, peak memory.

``python benchmarks/commands.py CHECKPOINT --pages demo/pages --work FOLDER``. The checkpoint may have random weights of
the true size (`crafted.py`). Such a model reads nothing, so the smoke test ends with 11; all other commands end with 0.

Memory is the sum over the processes of a command, sampled ten times a second. A GPU's memory, if ``nvidia-smi`` reports
it, is that of all processes on it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from machine import describe_machine
from watch import GB, Watched, start, watched

from olmocr.version import __version__

PORT = 8765
LONGEST_START = 300.0
"""Seconds in which a server must be ready."""


@dataclass(frozen=True)
class Command:
    """Words after ``python -m``, and the folders to remove when it is done, since disks are small."""

    words: tuple[str, ...]
    then_remove: tuple[Path, ...] = ()


@dataclass
class Cost:
    """The cost of a command, and its exit code."""

    exit_code: int
    seconds: float
    held: Watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pages", type=Path, required=True, help="a folder of PDFs with their true texts")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is made, also of an earlier call")
    parser.add_argument(
        "--recipes", nargs="+", default=["8bit,6bit,mixed-large", "4bit,mixed,mixed-small,mixed-tiny"],
        help="each from one read; all but the last are removed after it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--models", type=Path, help="the folder of converted models (default: the last one made)")
    parser.add_argument("--model", default="4bit", help="the recipe that reads (default: %(default)s)")
    parser.add_argument("--method", default="fit", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], help="run the commands that have one of these words")
    parser.add_argument("--without", nargs="+", default=[], help="leave out the commands that have one of these words")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{describe_machine()}; olmocr {__version__}\n\n| command | seconds | exit code | memory, GB | GPU, GB |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for command in commands(args):
        if is_wanted(args, command.words):
            print(row(args, "olmocr " + " ".join(command.words[1:]), run(command, args.work)), flush=True)
    if is_wanted(args, ("serve",)):
        print(row(args, "olmocr serve, one PDF asked for", served(args)), flush=True)


def is_wanted(args: argparse.Namespace, words: tuple[str, ...]) -> bool:
    return bool(not args.only or set(args.only) & set(words)) and not set(args.without) & set(words)


def commands(args: argparse.Namespace) -> Iterator[Command]:
    source, work = str(args.checkpoint), args.work
    *removed, kept = (work / f"models-{number}" for number in range(len(args.recipes)))
    model = str(model_of(args))
    pdfs = sorted(map(str, args.pages.glob("*.pdf")))
    yield _olmocr("convert", source, "--quantize", "mixed", "--method", args.method, "--dry-run")
    for recipes, folder in zip(args.recipes, [*removed, kept], strict=True):
        words = ("--quantize", recipes, "--method", args.method, "--output", str(folder), "--no-smoke-test")
        yield _olmocr("convert", source, *words, then_remove=(folder,) if folder in removed else ())
    yield _olmocr("doctor")
    yield _olmocr("validate", "weights", model, "--source", source)
    yield _olmocr("validate", "smoke", model)
    yield _olmocr(pdfs[0], "--model", model)
    yield _olmocr(str(work / "workspace"), "--pdfs", *pdfs, "--backend", "mlx", "--model", model, "--markdown")
    yield _olmocr(str(work / "workspace"), "--stats")
    yield _olmocr("view", str(work / "workspace"), "--output-dir", str(work / "view"))
    asked = ("--source", source, "--pages", pdfs[0], "--max-tokens", "64", "--work", str(work / "fidelity"))
    yield _olmocr("validate", "fidelity", model, *asked)
    yield _olmocr("publish", "card", model)
    yield _olmocr("publish", "audit", model)
    yield _olmocr("publish", "push", model, "--repo", "someone/some-model", "--dry-run")


def model_of(args: argparse.Namespace) -> Path:
    """Return the folder of the model that reads."""
    made = args.work / f"models-{len(args.recipes) - 1}"
    return Path((args.models or made) / f"{args.checkpoint.name}-mlx-{args.model}")


def _olmocr(*words: str, then_remove: tuple[Path, ...] = ()) -> Command:
    return Command(("olmocr", *words), then_remove)


def run(command: Command, work: Path) -> Cost:
    """Run *command*; its output goes to ``commands.log`` in *work*."""
    with (work / "commands.log").open("a") as log:
        log.write(f"\n$ {' '.join(command.words)}\n")
        started = time.perf_counter()
        with start(command.words, log) as process, watched(process) as held:
            exit_code = process.wait()
        seconds = time.perf_counter() - started
    for folder in command.then_remove:
        shutil.rmtree(folder)
    return Cost(exit_code, seconds, held)


def served(args: argparse.Namespace) -> Cost:
    """Start a server, have it read one PDF, and stop it; return the seconds until its text is there."""
    words = ("olmocr", "serve", "--model", str(model_of(args)), "--port", str(PORT))
    with (args.work / "commands.log").open("a") as log:
        started = time.perf_counter()
        with start(words, log) as process, watched(process) as held:
            _wait(lambda: _answer(f"http://127.0.0.1:{PORT}/health"), process)
            pdf = min(args.pages.glob("*.pdf"))
            _answer(f"http://127.0.0.1:{PORT}/v1/ocr", pdf.read_bytes())
            seconds = time.perf_counter() - started
            process.terminate()
            exit_code = process.wait()
    return Cost(exit_code, seconds, held)


def _answer(url: str, document: bytes | None = None) -> None:
    headers = {"Content-Type": "application/pdf"}
    found = httpx.post(url, content=document, headers=headers, timeout=LONGEST_START) if document else httpx.get(url)
    found.raise_for_status()


def _wait(ask: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    for _ in range(int(LONGEST_START / 0.2)):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            ask()
            return
        time.sleep(0.2)
    raise SystemExit("the server did not get ready")


def row(args: argparse.Namespace, shown: str, cost: Cost) -> str:
    model = model_of(args)
    places = ((model, "MODEL"), (args.checkpoint, "CHECKPOINT"), (args.pages, "PAGES"), (args.work, "WORK"))
    for path, name in places:
        shown = shown.replace(str(path) + os.sep, f"{name}/").replace(str(path), name)
    pdfs = [word for word in shown.split() if word.endswith(".pdf") and word.startswith("PAGES/")]
    if len(pdfs) > 1:
        shown = shown.replace(" ".join(pdfs), "PAGES/*.pdf")
    gpu = "" if cost.held.gpu is None else f"{cost.held.gpu / GB:.1f}"
    return f"| `{shown}` | {cost.seconds:.1f} | {cost.exit_code} | {cost.held.memory / GB:.2f} | {gpu} |"


if __name__ == "__main__":
    main()
