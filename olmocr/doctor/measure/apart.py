"""A function and its arguments -> what it returns from its own process, which may crash or hang alone.

It does not share MLX, its BLAS or memory with another measurement, and leaves files only in one temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import pickle  # between two processes of this package, through files that only they can read
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, ParamSpec, TextIO, TypeVar

from olmocr.errors import MissingDependencyError, OlmocrError, reason_of
from olmocr.text import one_line

P = ParamSpec("P")
R = TypeVar("R")

_FOLDER_OF_PACKAGE = Path(__file__).parents[3]

# Not "-m": that would put the current folder before all other modules, and pickle cannot find names in __main__.
_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    f"import sys; sys.path.append({str(_FOLDER_OF_PACKAGE)!r})\nfrom olmocr.doctor.measure.apart import main; main()",
)

_KEPT_SETTINGS = ("OLMOCR_BLAS",)
_GRACE = 20.0  # seconds for a process to end after the request, since it must first stop the servers that it started


class PartFailedError(OlmocrError):
    """A measurement did not finish; the others continue."""


@dataclass(frozen=True)
class Apart:
    """Calls functions in separate processes. Their files are in *scratch*; after *limit* seconds they are ended."""

    scratch: Path
    limit: float

    def call(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Return what *function*, which must belong to a module, returns. Its output is kept for error messages.

        Raises:
            MissingDependencyError: *function* raised it.
            PartFailedError: *function* raised anything else, or its process was killed or took longer than the limit.
        """
        with self.started(function, *arguments, **named) as running:
            return running.result(self.limit)

    @contextlib.contextmanager
    def started(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> Iterator[Running[R]]:
        """Yield the process in which *function* runs; at the end of the block, it and all that it started are ended."""
        folder = self.scratch / f"call-{len(list(self.scratch.glob('call-*'))) + 1}"
        folder.mkdir()
        (folder / "question").write_bytes(pickle.dumps((function, arguments, named)))
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - this very Python
                [*_COMMAND, str(folder)],
                stdin=subprocess.PIPE,  # closes when this process ends, however it ends
                stdout=output,
                stderr=output,
                cwd=self.scratch,
                env=environment(self.scratch),
                start_new_session=True,  # Ctrl-C reaches only the waiting process, which then ends this one
            )
            running: Running[R] = Running(process, folder)
            try:
                yield running
            finally:
                running.end()


class Running(Generic[R]):
    """A function that runs in *process* and writes its result into *folder*."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def result(self, limit: float) -> R:
        """Wait for the function's result, and return it; raises the errors of :meth:`Apart.call`."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise PartFailedError(f"it took longer than {limit:.0f} seconds and was ended") from error
        answer = self._folder / "answer"
        if not answer.exists():
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise PartFailedError(f"its process {how}{self._last_line()}")
        value, fault, kind = pickle.loads(answer.read_bytes())  # noqa: S301 - from our own process
        if fault is not None:
            raise (MissingDependencyError if kind == "missing" else PartFailedError)(fault)
        return value  # type: ignore[no-any-return]

    @property
    def has_ended(self) -> bool:
        """Whether the function has ended, successfully or not."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End the process at once, like a power failure."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """End the process if it has not ended, and its complete session."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _last_line(self) -> str:
        output = (self._folder / "output").read_text(encoding="utf-8", errors="replace").strip()
        return f"; its last line of output: {one_line(output.splitlines()[-1])[:300]}" if output else ""


def environment(scratch: Path, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return *given* for a process that uses no network, ignores the user's settings and leaves no files behind."""
    kept = {name: value for name, value in given.items() if not name.startswith("OLMOCR_") or name in _KEPT_SETTINGS}
    for name in ("tmp", "cache"):
        (scratch / name).mkdir(exist_ok=True)
    places = {"TMPDIR": str(scratch / "tmp"), "XDG_CACHE_HOME": str(scratch / "cache")}
    return kept | places | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def main() -> None:
    """Run as the process: call the function that the named folder contains, and write its result there."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_standard_input, args=(sys.stdin,), daemon=True).start()
    folder = Path(sys.argv[1])
    function, arguments, named = pickle.loads((folder / "question").read_bytes())  # noqa: S301 - from our own process
    answer: tuple[Any, str | None, str]
    try:
        answer = (function(*arguments, **named), None, "")
    except MissingDependencyError as error:
        answer = (None, str(error), "missing")
    except ModuleNotFoundError as error:
        answer = (None, f"{error.name} is not installed", "missing")
    except Exception as error:  # whatever a device or a library raises, the other parts continue
        answer = (None, str(error) if isinstance(error, OlmocrError) else reason_of(error), "failed")
    beside = folder / "answer.partial"
    beside.write_bytes(pickle.dumps(answer))
    beside.rename(folder / "answer")


def _end_with_standard_input(stream: TextIO) -> None:
    """End this process when the process that waits for it has ended: properly, or after a while by force."""
    stream.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
