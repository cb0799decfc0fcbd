"""A machine -> Findings: what is fine, what is worth knowing, and what must be fixed before it can read pages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from olmocr.conversion.macs import running_memory
from olmocr.conversion.source.config import flat_config
from olmocr.errors import CheckpointError, MissingDependencyError
from olmocr.model_folder import ModelFolder, read_config
from olmocr.reports.machine_text import gib
from olmocr.runtime import machine
from olmocr.runtime.device import REFERENCE_BLAS, gpu_limit, start_mlx
from olmocr.runtime.extras import install_command, upgrade_command
from olmocr.runtime.versions import installed_version, known_bad
from olmocr.strays import files_in
from olmocr.version import __version__

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. A problem prevents the machine from reading pages.

    *advice* says what to do, unless the state is ok.
    """

    name: str
    state: State
    value: str
    advice: str = ""


PACKAGES = ("mlx", "mlx-vlm", "transformers", "huggingface_hub", "numpy")

_NEEDED = ("mlx", "mlx-vlm")

# Extra -> the packages that it installs, and what they are for.
_EXTRAS = {
    "fast": (("numba",), "quantizes several times as fast"),
    "validate": (("rapidfuzz", "fuzzysearch"), "scores answers against known text"),
    "viewer": (("markdown-it-py", "nh3"), "shows pages beside their text"),
    "blas": (("mkl",), "makes MLX fast on this CPU"),
}

PORTS = {8000: "mlx-vlm", 30024: "vllm"}
"""The default ports of the servers that the pipeline starts."""

_SMALLEST_MEMORY = 12 << 30
_SOURCE_BYTES = 16_600_000_000  # of olmOCR-2's own weights


def check_machine(model: Path | None = None) -> Iterator[Finding]:
    """Yield the findings one by one; with *model*, also whether it fits."""
    yield _platform()
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("olmocr", "ok", __version__)
    yield from _versions()
    yield _device()
    yield _memory()
    yield _disk("disk, here", Path.cwd())
    yield _disk("disk, Hub's cache", machine.hub_cache())
    yield from _extras()
    yield from (_port(port, server) for port, server in PORTS.items())
    if model is not None:
        yield _model(model)


def _platform() -> Finding:
    value = f"{platform.system()} {platform.machine()}, {machine.chip()}"
    if machine.runs_translated():
        return Finding("platform", "problem", value, "this Python is built for Intel: install one for Apple silicon")
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return Finding("platform", "problem", value, "MLX needs an Apple chip, or Linux")
    if sys.platform not in ("darwin", "linux"):
        return Finding("platform", "problem", value, "olmocr runs on macOS and Linux only")
    return Finding("platform", "ok", value)


def _versions() -> Iterator[Finding]:
    for package in PACKAGES:
        version = installed_version(package)
        if version is not None:
            yield _version(package, version)
        elif package in _NEEDED:
            yield Finding(package, "problem", "not installed", install_command("mlx"))
        else:
            yield Finding(package, "warning", "not installed", f"it comes with: {install_command('mlx')}")
    if installed_version("mlx-cpu") and any(map(installed_version, ("mlx-cuda-12", "mlx-cuda-13"))):
        advice = f"they overwrite each other: uninstall mlx-cpu, then: {install_command('cuda')}"
        yield Finding("mlx wheels", "problem", "MLX's CPU and CUDA builds together", advice)


def _version(package: str, version: str) -> Finding:
    found = known_bad(package, version)
    if not found:
        return Finding(package, "ok", version)
    state: State = "problem" if any(bad.is_needed for bad in found) else "warning"
    return Finding(
        package, state, version, f"{'; '.join(bad.why for bad in found)}: {upgrade_command(found[0].wanted)}"
    )


def _device() -> Finding:
    try:
        device = start_mlx()
    except MissingDependencyError as error:
        return Finding("device", "problem", "none", str(error))
    if device.blas == REFERENCE_BLAS:
        advice = f"pages take much longer than with: {install_command('blas')}"
        return Finding("device", "warning", str(device), advice)
    return Finding("device", "ok", str(device))


def _memory() -> Finding:
    total, available = machine.total_memory(), machine.available_memory()
    value = f"{gib(total)} in all" + ("" if available is None else f", {gib(available)} available")
    if total < _SMALLEST_MEMORY:
        return Finding("memory", "warning", value, "olmOCR-2 with 7 billion weights does not fit, even at 4 bits")
    return Finding("memory", "ok", value)


def _disk(name: str, folder: Path) -> Finding:
    free = machine.free_disk(folder)
    if free is None:
        return Finding(name, "warning", f"unknown for {folder}", "check that the folder can be written")
    value = f"{free / 1e9:.1f} GB free in {folder}"
    if free < _SOURCE_BYTES:
        return Finding(name, "warning", value, "olmOCR-2's own weights take 16.6 GB: convert with --low-disk")
    return Finding(name, "ok", value)


def _extras() -> Iterator[Finding]:
    for extra, (packages, purpose) in _EXTRAS.items():
        if extra == "blas" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
            continue
        missing = [package for package in packages if installed_version(package) is None]
        value = f"not installed; {purpose}: {install_command(extra)}" if missing else "installed"
        yield Finding(f"extra [{extra}]", "ok", value)


def _port(port: int, server: str) -> Finding:
    if machine.is_port_free(port):
        return Finding(f"port {port}", "ok", "free")
    return Finding(f"port {port}", "warning", "taken", f"give the {server} server another port with --port")


def _model(path: Path) -> Finding:
    try:
        folder = ModelFolder(path)
        config = flat_config(read_config(folder))
        needed = running_memory(config, _weight_bytes(path)).total
    except CheckpointError as error:
        return Finding("model", "problem", str(path), str(error))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        return Finding("model", "problem", str(path), f"its config.json is invalid ({error!r}): convert it again")
    return fit(folder.name, needed, _limit(), machine.available_memory())


def _weight_bytes(path: Path) -> int:
    sizes = [file.stat().st_size for file in files_in(path, ".safetensors")]
    if not sizes:
        raise CheckpointError(f"{path} has no *.safetensors files; give a converted model's folder")
    return sum(sizes)


def fit(name: str, needed: int, total: int, available: int | None) -> Finding:
    """Compare the memory that a page needs with the device's limit and with what is free now, all in bytes."""
    value = f"{name} needs {gib(needed)} to read a page, of {gib(total)}"
    if needed > total:
        return Finding("model", "problem", value, "it does not fit: convert with fewer bits, like --quantize 4bit")
    if available is not None and needed > available:
        return Finding("model", "warning", value, f"only {gib(available)} are available now: close other programs")
    return Finding("model", "ok", f"{value}: it fits")


def _limit() -> int:
    try:
        return gpu_limit() or machine.total_memory()
    except MissingDependencyError:
        return machine.total_memory()
