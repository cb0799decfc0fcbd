"""A command in its own process, and the memory of all its processes while it runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

GB = 1e9
_EACH = 0.1  # seconds
_GPU_EACH = 10  # samples: nvidia-smi takes longer than ps


@dataclass(frozen=True)
class Sample:
    """Bytes of the processes, and of all processes on a GPU, *seconds* after the start; None if it is not reported."""

    seconds: float
    memory: int
    gpu: int | None


@dataclass
class Watched:
    """The *samples* so far."""

    samples: list[Sample] = field(default_factory=list)

    @property
    def memory(self) -> int:
        """The most bytes that the processes held together."""
        return max((each.memory for each in self.samples), default=0)

    @property
    def gpu(self) -> int | None:
        """The most bytes in use on the GPU, by all processes; None if that is not reported."""
        return max((each.gpu for each in self.samples if each.gpu is not None), default=None)


def start(words: tuple[str, ...], log: IO[str]) -> subprocess.Popen[bytes]:
    """Start ``python -m`` with *words*; its output goes to *log*."""
    log.flush()
    return subprocess.Popen((sys.executable, "-m", *words), stdout=log, stderr=log, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[Watched]:
    """Sample the memory of *process* and of its children until the block ends."""
    found, ended, started = Watched(), threading.Event(), time.perf_counter()
    has_gpu = shutil.which("nvidia-smi") is not None

    def watch() -> None:
        gpu = None
        while not ended.wait(_EACH):
            if has_gpu and len(found.samples) % _GPU_EACH == 0:
                gpu = _gpu_bytes()
            found.samples.append(Sample(time.perf_counter() - started, _resident(process.pid), gpu))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _resident(pid: int) -> int:
    """Return the memory in bytes, as ``ps`` reports it, of a process and all processes that it started."""
    found = subprocess.run(("ps", "-axo", "pid=,ppid=,rss="), capture_output=True, text=True, check=False).stdout
    rows = [tuple(map(int, line.split())) for line in found.splitlines()]
    family = {pid}
    for own, parent, _ in sorted(rows):
        if parent in family:
            family.add(own)
    return 1024 * sum(kilobytes for own, _, kilobytes in rows if own in family)


def _gpu_bytes() -> int:
    words = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return sum(int(each) for each in found if each.isdecimal()) << 20
