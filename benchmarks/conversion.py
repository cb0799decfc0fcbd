"""Conversion side by side with stock mlx-vlm: wall and CPU seconds and peak memory, in turn, as medians of pairs.

Every conversion runs in its own process, on a checkpoint that is not in the page cache. The numbers are those of the
operating system, and include writing what the process leaves in the cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine

from olmocr.version import __version__


@dataclass(frozen=True)
class Contender:
    """A program to run; it is compared with *peer_runs* runs of *peer* in the same round."""

    label: str
    arguments: tuple[str, ...]
    peer: str
    peer_runs: int = 1


PEER_4, PEER_8 = "mlx-vlm, 4 bits", "mlx-vlm, 8 bits"

_OURS = ("-m", "olmocr.convert_to_mlx", "CHECKPOINT", "--quiet", "--output", "OUTPUT")
_PEER = ("-m", "mlx_vlm", "convert", "--hf-path", "CHECKPOINT", "--mlx-path", "OUTPUT", "-q", "--q-bits")

CONTENDERS = (
    Contender(PEER_4, (*_PEER, "4"), PEER_4),
    Contender("olmocr, 4bit, stock", (*_OURS, "--quantize", "4bit", "--method", "stock"), PEER_4),
    Contender("olmocr, 4bit, fit", (*_OURS, "--quantize", "4bit"), PEER_4),
    Contender("olmocr, 4bit,8bit, stock", (*_OURS, "--quantize", "4bit,8bit", "--method", "stock"), PEER_4, 2),
    Contender("olmocr, mixed, fit", (*_OURS, "--quantize", "mixed"), PEER_4),
    Contender(PEER_8, (*_PEER, "8"), PEER_8),
    Contender("olmocr, 8bit, stock", (*_OURS, "--quantize", "8bit", "--method", "stock"), PEER_8),
)


@dataclass(frozen=True)
class Run:
    """The cost of one process: seconds, and peak bytes of memory."""

    wall: float
    cpu: float
    peak: int


def main() -> None:
    args = _arguments()
    chosen = [each for each in CONTENDERS if each.label == PEER_4 or args.only is None or args.only in each.label]
    runs: dict[str, list[Run]] = {contender.label: [] for contender in chosen}
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        outputs = Path(name)
        for round_number in range(args.rounds):
            for contender in chosen:
                run = run_once(contender, args.checkpoint, outputs / "out")
                runs[contender.label].append(run)
                print(f"round {round_number + 1}, {contender.label}: {run}", file=sys.stderr)
                if round_number == 0:
                    keep_for_comparison(contender, outputs)
                else:
                    shutil.rmtree(outputs / "out")
        print_tables(chosen, runs, args)
        if (outputs / "ours").is_dir():
            print_same_weights(outputs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a Hugging Face checkpoint of the 7B model's layout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="conversions whose name has this in it, beside mlx-vlm at 4 bits")
    parser.add_argument("--scratch", type=Path, help="where the results go while they are needed")
    return parser.parse_args()


def run_once(contender: Contender, checkpoint: Path, output: Path) -> Run:
    """Run *contender* on a checkpoint that is not in the page cache, until all output is on the disk."""
    names = {"CHECKPOINT": str(checkpoint), "OUTPUT": str(output)}
    command = [sys.executable, *(names.get(each, each) for each in contender.arguments)]
    forget(checkpoint)
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{contender.label} failed: {process.stderr.read().decode() if process.stderr else ''}")
    os.sync()
    wall = time.monotonic() - started
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return Run(wall, usage.ru_utime + usage.ru_stime, peak)


def forget(folder: Path) -> None:
    """Remove the weights in *folder* from the page cache, if the system has a way to do that."""
    if not hasattr(os, "posix_fadvise"):
        print("this machine cannot be asked to empty its page cache; the input may be warm", file=sys.stderr)
        return
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def keep_for_comparison(contender: Contender, outputs: Path) -> None:
    """Keep the two folders that should have the same weights, and remove all others."""
    names = {PEER_4: "theirs", "olmocr, 4bit, stock": "ours"}
    if contender.label in names:
        (outputs / "out").rename(outputs / names[contender.label])
    else:
        shutil.rmtree(outputs / "out")


def print_tables(chosen: list[Contender], runs: dict[str, list[Run]], args: argparse.Namespace) -> None:
    nbytes = sum(path.stat().st_size for path in args.checkpoint.glob("*.safetensors"))
    print(f"{describe_machine()}; olmocr {__version__}; a checkpoint of {nbytes / 1e9:.2f} GB, cold, on the disk\n")
    print(f"Medians of {args.rounds} rounds; ratios are of the runs in one round:\n")
    print("| conversion | wall, s | CPU, s | peak memory, MiB | wall / peer | CPU / peer | memory / peer |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for contender in chosen:
        mine, theirs = runs[contender.label], runs[contender.peer]
        cells = [
            f"{statistics.median(run.wall for run in mine):.1f}",
            f"{statistics.median(run.cpu for run in mine):.1f}",
            f"{statistics.median(run.peak for run in mine) / 2**20:.0f}",
        ]
        pairs = list(zip(mine, theirs, strict=True))
        if contender.label != contender.peer:
            cells += [
                f"{statistics.median(a.wall / (b.wall * contender.peer_runs) for a, b in pairs):.2f}",
                f"{statistics.median(a.cpu / (b.cpu * contender.peer_runs) for a, b in pairs):.2f}",
                f"{statistics.median(a.peak / b.peak for a, b in pairs):.3f}",
            ]
        else:
            cells += ["1", "1", "1"]
        times = f" (against {contender.peer_runs} runs)" if contender.peer_runs > 1 else ""
        print(f"| {contender.label}{times} | {' | '.join(cells)} |")


def print_same_weights(outputs: Path) -> None:
    """Compare our 4-bit stock folder with the peer's, tensor by tensor, byte by byte."""
    ours, theirs = (dict(tensors_of(outputs / name)) for name in ("ours", "theirs"))
    same = sum(equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    print(f"\n4bit, stock: {same} of {len(theirs)} tensors are byte for byte mlx-vlm's ({len(ours)} are ours).")


Place = tuple[Path, int, int]


def tensors_of(folder: Path) -> list[tuple[str, Place]]:
    """Return each tensor's name with its file, first byte and number of bytes."""
    found = []
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            found.append((name, (path, 8 + length + begin, end - begin)))
    return found


def equal(first: Place, second: Place, piece: int = 4 << 20) -> bool:
    if first[2] != second[2]:
        return False
    with first[0].open("rb") as a, second[0].open("rb") as b:
        a.seek(first[1])
        b.seek(second[1])
        sizes = itertools.chain(itertools.repeat(piece, first[2] // piece), [first[2] % piece])
        return all(a.read(size) == b.read(size) for size in sizes)


if __name__ == "__main__":
    main()
