"""A benchmark's machine in one line, so that a table pasted elsewhere still names it."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
from pathlib import Path


def describe_machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{os.cpu_count()} CPUs, {_cpu_name()} ({platform.machine()} {platform.system()}), "
        f"{memory / 2**30:.0f} GiB, {datetime.date.today()}"
    )


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    if sys.platform == "linux":  # where getrusage starts from what the parent held
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
