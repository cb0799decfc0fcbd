"""The memory of this process and of this machine, in bytes; text such as ``4GB`` -> bytes."""

from __future__ import annotations

import math
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from olmocr.errors import UsageError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(I?)B?", re.ASCII | re.IGNORECASE)


def peak_memory(who: int = resource.RUSAGE_SELF) -> int:
    """Return the most bytes that this process has had in memory; or, by ``RUSAGE_CHILDREN``, one that it waited for."""
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory(pid: int) -> int:
    """Return the bytes that another process has in memory now; 0 if it has ended, or the system does not say."""
    try:
        if sys.platform == "linux":
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return resident_memory_by_ps(pid)
    except (OSError, ValueError, IndexError):
        return 0


def resident_memory_by_ps(pid: int) -> int:
    """Return the same from the command that every Unix has.

    Raises:
        OSError: it cannot be run.
        ValueError: it does not know such a process.
    """
    command = ["/bin/ps", "-o", "rss=", "-p", str(pid)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a number of ours
    return int(told.stdout) * 1024


def physical_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parse_size(text: str, name: str) -> int:
    """Return the bytes that *text* means: ``4GB``, ``512MiB``, ``1.5 GiB``, or a number. *name* is the option's.

    Raises:
        UsageError: it is not a size, or less than one byte.
    """
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found and (found[2] or not found[3]):
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].upper()])
    if size < 1:
        raise UsageError(f"{name} {text[:40]!r} is not a size; give one such as 4GB or 512MiB")
    return size


def shown_size(size: int) -> str:
    """Return *size* in bytes in the form that :func:`parse_size` reads, rounded up to about three digits: ``412MB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            tenths = math.ceil(10 * size / factor)
            return f"{tenths / 10:.1f}{unit}" if tenths < 100 else f"{-(-tenths // 10)}{unit}"
    return f"{size}B"
