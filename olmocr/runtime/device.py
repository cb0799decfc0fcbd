"""Where MLX computes, and with which BLAS. Import this before any other module imports MLX."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import sys
import threading
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from olmocr.errors import MissingDependencyError
from olmocr.files import cache_folder
from olmocr.runtime.extras import install_command
from olmocr.runtime.threads import in_a_lasting_thread

REFERENCE_BLAS = "reference"

STEP_BYTES = 3 << 29
"""The bytes of a step beside weights and caches: activations, logits, and the vision tower working on a page.

MLX may keep as much freed memory for itself, since the next step needs it again.
"""

CUDA_STEP_BYTES = 10 << 30
"""The same on CUDA, where images and prompts are read in larger pieces, one queued behind another: 5 to 12 GB on an
H200 (benchmarks/README.md).
"""

GPU_LOCK = threading.Lock()
"""Held while rows are rounded on a GPU: MLX does not promise that several threads may use one at once."""


@dataclass(frozen=True)
class Device:
    """Where MLX computes. *blas* is None unless that is a CPU."""

    kind: Literal["metal", "cuda", "cpu"]
    blas: str | None
    mlx_version: str

    def __str__(self) -> str:
        blas = f", BLAS {self.blas}" if self.blas else ""
        return f"MLX {self.mlx_version} on {self.kind}{blas}"


@dataclass(frozen=True)
class MemoryLimits:
    """Bytes that MLX keeps *wired*, that it uses as *memory* before it waits for some, and that it may *cache*."""

    wired: int
    memory: int
    cache: int


def memory_limits(info: Mapping[str, Any]) -> MemoryLimits | None:
    """Return the limits for a Mac whose ``mx.device_info()`` is *info*; None if that says too little.

    *wired* is what the driver recommends, so that macOS does not push weights out between two pages. It must be less
    than all memory, to which ``sysctl iogpu.wired_limit_mb`` may have set it. Beyond the same number MLX waits for
    memory instead of letting the system swap; by default it would wait only at half as much again.
    """
    recommended, physical = info.get("max_recommended_working_set_size"), info.get("memory_size")
    if not isinstance(recommended, int) or not isinstance(physical, int) or recommended <= 0 or physical <= 0:
        return None
    wired = min(recommended, physical - physical // 10)
    return MemoryLimits(wired, wired, min(STEP_BYTES, wired // 8))


WAITING = {"KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""How long threads that wait for work spin, by the variables of their libraries.

Intel's OpenMP, which MKL uses, lets them spin for 200 ms after each product by default (0: not at all), and
OpenBLAS, which numpy brings, for 2^26 ticks of the processor (4, the least: for 2^4). A page is thousands of small
products with other work between them. So threads that only wait would take the processors from those that work. Beside
another busy process, where they use up what the system grants, a page takes many times as long.
"""

_OPENMP_WAITING = ("KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_WAIT_POLICY")


def let_waiting_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Set WAITING in *environment*, unless somebody has already said how OpenMP or OpenBLAS are to wait.

    It affects libraries that have not started working: numpy's reads its variable when it is loaded.
    """
    has_own = any(name in environment for name in _OPENMP_WAITING)
    for name, value in WAITING.items():
        if not (has_own and name in _OPENMP_WAITING):
            environment.setdefault(name, value)


_KERNELS = "MLX_PTX_CACHE_DIR"


def keep_kernels(environment: MutableMapping[str, str]) -> None:
    """Set in *environment* that MLX keeps the kernels that it compiles for CUDA in the user's cache, by its version.

    By itself it keeps them in the folder for temporary files, which is empty after each start of a machine or of a
    container, and compiles them again then, for a minute or more. A place that a person has named stays, and MLX's own
    if the cache cannot be written.
    """
    if _KERNELS in environment:
        return
    folder = cache_folder("kernels") / importlib.metadata.version("mlx")
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        environment[_KERNELS] = str(folder)


PLANS = {"MLX_CUDA_SDPA_CACHE_SIZE": "1024", "MLX_ENABLE_CACHE_THRASHING_CHECK": "0"}
"""How MLX keeps plans of attention for CUDA, by its variables.

A plan takes tens of milliseconds to make, and each new size of images, prompts and batches needs one. MLX keeps 256.
Once it has made twice as many, it raises an error for every new one, as it does for graphs of kernels
(``mlx/backend/cuda/lru_cache.h``). A run over many different documents needs more.
"""


def keep_plans(environment: MutableMapping[str, str]) -> None:
    """Set PLANS in *environment*, except what a person has set."""
    for name, value in PLANS.items():
        environment.setdefault(name, value)


def compiled_kernels(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many kernels MLX has compiled for CUDA and kept where *environment* says."""
    folder = environment.get(_KERNELS)
    return sum(1 for _ in Path(folder).glob("*.ptx")) if folder else 0


def _has_cuda() -> bool:
    """Say whether MLX is installed for CUDA; nothing else compiles kernels."""
    for name in ("mlx-cuda-13", "mlx-cuda-12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return bool(importlib.metadata.version(name))
    return False


def start_mlx() -> Device:
    """Import MLX, on a Linux CPU with a fast BLAS under it, and return where it computes.

    Call this before anything else imports MLX: a BLAS that comes later is not used. Its threads sleep while they wait.
    What MLX compiles for CUDA is kept in the user's cache, and more plans of attention than MLX keeps by itself.

    Raises:
        MissingDependencyError: MLX is not installed, or not for this machine.
    """
    if _has_cuda():
        keep_kernels(os.environ)
        keep_plans(os.environ)
    blas = _load_fast_blas() if sys.platform == "linux" else "Accelerate"
    mx = _import_mlx()
    version = importlib.metadata.version("mlx")
    if mx.default_device().type != mx.DeviceType.gpu:
        return Device("cpu", blas, version)
    return Device("metal" if mx.metal.is_available() else "cuda", None, version)


def gpu_limit() -> int | None:
    """Return how many bytes a process can keep on the GPU; None if there is no GPU.

    Raises:
        MissingDependencyError: MLX is not installed, or not for this machine.
    """
    return limit_of(_import_mlx().device_info())


def limit_of(info: Mapping[str, Any]) -> int | None:
    """Return how many bytes a process can keep on the device whose ``mx.device_info()`` is *info*; None for a CPU.

    A Mac's driver recommends a number. CUDA's reports all memory; MLX uses 95 % of it before it frees some itself
    (``mlx/backend/cuda/allocator.cpp``).
    """
    recommended, total = info.get("max_recommended_working_set_size"), info.get("total_memory")
    if isinstance(recommended, int):
        return recommended
    return total * 19 // 20 if isinstance(total, int) else None


def _import_mlx() -> Any:
    try:
        return _mlx() if threading.current_thread() is threading.main_thread() else in_a_lasting_thread(_mlx).result()
    except ImportError as error:
        raise MissingDependencyError(
            f"MLX is not installed for this machine ({error}); install it with: {install_command('mlx')}"
        ) from error


def _mlx() -> Any:
    import mlx.core as mx

    return mx


_loaded_blas: tuple[str, ctypes.CDLL | None] | None = None


def opened_blas() -> ctypes.CDLL | None:
    """Return the fast BLAS that :func:`start_mlx` has opened, for others to call; None if it opened none."""
    return _loaded_blas[1] if _loaded_blas else None


def _load_fast_blas() -> str:
    """Load a fast BLAS so that its symbols come before those of the reference BLAS in MLX's CPU wheel.

    ``OLMOCR_BLAS`` may name another library to load, or be ``reference`` to load none.
    """
    global _loaded_blas
    if _loaded_blas is None:
        let_waiting_threads_sleep(os.environ)
        _loaded_blas = _open_first([] if "mlx.core" in sys.modules else _blas_candidates())
    return _loaded_blas[0]


def _blas_candidates() -> list[str]:
    chosen = os.environ.get("OLMOCR_BLAS")
    if chosen:
        return [] if chosen == REFERENCE_BLAS else [chosen]
    return [*_mkl_wheel(), "libopenblas.so.0"]


def _mkl_wheel() -> list[str]:
    """Return the path of MKL's single-library interface, if the ``mkl`` wheel is installed."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [str(Path(str(file.locate())).resolve()) for file in files if file.name.startswith("libmkl_rt.so")]


def _open_first(candidates: list[str]) -> tuple[str, ctypes.CDLL | None]:
    for candidate in candidates:
        try:
            library = ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return Path(candidate).name, library
    return REFERENCE_BLAS, None
