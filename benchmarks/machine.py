"""What a benchmark ran on, in one line, so that a table pasted elsewhere still says it."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path


def describe_machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{os.cpu_count()} CPUs, {_cpu_name()} ({platform.machine()} {platform.system()}), "
        f"{memory / 2**30:.0f} GiB, {datetime.date.today()}"
    )


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
