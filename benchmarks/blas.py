"""GFLOP/s of a float32 matrix product in MLX on a Linux CPU, with and without the BLAS that olmocr puts under it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from machine import describe_machine

from olmocr.runtime.device import REFERENCE_BLAS, start_mlx

ROWS, INNER, COLUMNS = 512, 1024, 1024
DEFAULT = "default"


def main() -> None:
    args = _arguments()
    if args.measure:
        print(json.dumps(measure(args.seconds)))
        return
    if sys.platform != "linux":
        raise SystemExit("olmocr chooses a BLAS on Linux only; there is nothing to compare here")
    choices = [REFERENCE_BLAS, DEFAULT, *args.libraries]
    runs: dict[str, list[dict[str, str | float]]] = {choice: [] for choice in choices}
    for number in range(1, args.rounds + 1):
        for choice in choices if number % 2 else reversed(choices):
            run = run_alone(choice, args.seconds)
            runs[choice].append(run)
            print(f"round {number}, {choice}: {run['gflops']:.1f} GFLOP/s with {run['blas']}", file=sys.stderr)
    print_table(runs, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help="more to measure, such as libopenblas.so.0")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_alone(choice: str, seconds: float) -> dict[str, str | float]:
    """Measure in a fresh process: the first BLAS that a process loads stays."""
    env = {name: value for name, value in os.environ.items() if name != "OLMOCR_BLAS"}
    if choice != DEFAULT:
        env["OLMOCR_BLAS"] = choice
    command = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    run: dict[str, str | float] = json.loads(done.stdout)
    return run


def measure(seconds: float) -> dict[str, str | float]:
    """Return the BLAS of this process, and the median speed of the products that fit into *seconds*."""
    device = start_mlx()
    if device.kind != "cpu":
        raise SystemExit(f"{device}: a BLAS is used on a CPU only; there is nothing to compare here")
    import mlx.core as mx

    left, right = mx.random.normal((ROWS, INNER)), mx.random.normal((INNER, COLUMNS))
    mx.eval(left @ right)  # the first product starts the threads
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        mx.eval(left @ right)
        times.append(time.perf_counter() - started)
    gflops = 2 * ROWS * INNER * COLUMNS / statistics.median(times) / 1e9
    return {"blas": str(device.blas), "device": str(device), "mlx": device.mlx_version, "gflops": gflops}


def print_table(runs: dict[str, list[dict[str, str | float]]], rounds: int) -> None:
    medians = {choice: statistics.median(float(run["gflops"]) for run in each) for choice, each in runs.items()}
    print(f"{describe_machine()}; MLX {runs[DEFAULT][0]['mlx']}")
    print(f"float32 {ROWS}x{INNER} @ {INNER}x{COLUMNS}, {rounds} rounds, each in a fresh process\n")
    print("| OLMOCR_BLAS | BLAS in use | median GFLOP/s | lowest | highest | times the reference |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for choice, each in runs.items():
        speeds = [float(run["gflops"]) for run in each]
        used = ", ".join(sorted({str(run["blas"]) for run in each}))
        ratio = medians[choice] / medians[REFERENCE_BLAS]
        name = "not set" if choice == DEFAULT else choice
        print(f"| {name} | {used} | {medians[choice]:.1f} | {min(speeds):.1f} | {max(speeds):.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
