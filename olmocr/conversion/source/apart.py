"""A stranger's program -> what it prints, from a process of its own with limits of time and memory."""

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

# The process bounds itself first, where the system heeds that. Mac systems take RLIMIT_AS and do not keep to it, so
# that the memory is looked at from outside, too.
_LIMITS = """
import contextlib, resource, sys
sys.path.append({package!r})
for kind, wanted in ((resource.RLIMIT_CPU, {seconds}), (resource.RLIMIT_AS, {memory}), (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
"""

_LOOK_EVERY = 0.05  # seconds; what is as quick as it should be is over by then
_WAITS = 60.0  # seconds; a process that computes for less than its limit may wait on a machine that is swapping


class ApartError(Exception):
    """The process gave no answer; the text says why."""


def run_apart(code: str, request: bytes, *, seconds: int, memory: int, waits: float = _WAITS) -> bytes:
    """Return what the Python *code* writes to standard output when it is given *request* on standard input.

    It may compute for *seconds*, last as long as *waits* (seconds, too) and have *memory* bytes; the folder in which
    the parent is, which may hold untrusted files, is no place where it looks for modules.

    Raises:
        ApartError: it went past a limit, or did not end well.
    """
    limits = _LIMITS.format(package=str(_FOLDER_OF_PACKAGE), seconds=seconds, memory=memory)
    with (
        _file_of(request) as given,  # not a pipe: Python forgets what is left to send when it waits in steps
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
        raise ApartError(f"it takes more memory than {shown_size(memory)}, or than there is")
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
    """Return what *process* writes to standard output and error, and end it if it grows or lasts too long."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_LOOK_EVERY)
        if resident_memory(process.pid) > memory:
            raise ApartError(f"it takes more memory than {shown_size(memory)}")
        if time.monotonic() > end:
            raise ApartError("it does not come to an end")
