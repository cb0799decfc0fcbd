"""An untrusted program -> its output, from a separate process with limits on time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from olmocr.runtime.memory import resident_memory, shown_size
from olmocr.text import one_line

_FOLDER_OF_PACKAGE = Path(__file__).parents[2]

# The process limits itself first, where the system enforces that. macOS accepts RLIMIT_AS but does not enforce it, so
# the memory is also watched from outside.
_LIMITS = """
import contextlib, resource, sys
sys.path.append({package!r})
for kind, wanted in ((resource.RLIMIT_CPU, {seconds}), (resource.RLIMIT_AS, {memory}), (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
"""

_LOOK_EVERY = 0.05  # seconds; a normal template is done by then
_WAITS = 60.0  # seconds; a process within its limit of CPU time may have to wait on a machine that is swapping


class ApartError(Exception):
    """The process gave no answer; the text says why."""


def run_apart(code: str, request: bytes, *, seconds: int, memory: int, waits: float = _WAITS) -> bytes:
    """Return what the Python *code* writes to standard output when it gets *request* on standard input.

    It may use *seconds* of CPU time, *waits* seconds in all, and *memory* bytes. It does not look for modules in the
    parent's working folder, which may hold untrusted files.

    Raises:
        ApartError: it exceeded a limit or failed.
    """
    limits = _LIMITS.format(package=str(_FOLDER_OF_PACKAGE), seconds=seconds, memory=memory)
    with (
        _file_of(request) as given,  # not a pipe: Python loses what is left to send when it waits in steps
        subprocess.Popen(  # noqa: S603 - our own Python, and code of ours
            [sys.executable, "-P", "-c", limits + code],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUTF8": "1"},
        ) as process,
    ):
        try:
            answer, complaint = _watched(process, memory, time.monotonic() + waits)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode == 0:
        return answer
    if process.returncode == -signal.SIGXCPU:
        raise ApartError(f"it computes for more than {seconds} seconds")
    if process.returncode == -signal.SIGKILL:
        raise ApartError(f"it takes more memory than {shown_size(memory)}, or than is available")
    last = (complaint.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    if last.startswith("MemoryError"):
        raise ApartError(f"it takes more memory than {shown_size(memory)}")
    raise ApartError(one_line(last, 200) or f"its process ended with {process.returncode}")


def _file_of(content: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file


def _watched(process: subprocess.Popen[bytes], memory: int, end: float) -> tuple[bytes, bytes]:
    """Return what *process* writes to standard output and error; end it if it grows or runs too long."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_LOOK_EVERY)
        if resident_memory(process.pid) > memory:
            raise ApartError(f"it takes more memory than {shown_size(memory)}")
        if time.monotonic() > end:
            raise ApartError("it does not end")
