"""A page -> its document after a headless browser ran it. The browser is found on this machine, or given."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from olmocr.errors import InputError
from olmocr.files import temporary_folder

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "brave-browser",
    "brave",
)
_ON_MACOS = ("Google Chrome", "Chromium", "Microsoft Edge", "Brave Browser")
_APPLICATIONS = ("/Applications", "~/Applications")

# It stays isolated: no user profile, no first run, no network, no separate process to paint.
_OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    "--password-store=basic",
    "--use-mock-keychain",
    "--force-device-scale-factor=1",
    "--window-size=800,400",
)


class BrowserError(Exception):
    """A browser did not render a page: it did not start, crashed or took too long; the text says which."""


@dataclass(frozen=True)
class Browser:
    """A browser of Chromium's family; *command* starts it, and options are added."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        """Return the program's own name."""
        return self.command[0]

    def dump(self, page: str, seconds: float) -> str:
        """Return the document that *page* has become once its scripts have run; leave nothing behind.

        Raises:
            BrowserError: it does not finish within this many seconds.
        """
        with temporary_folder(_folder_for(self.command)) as folder:
            path = folder / "page.html"
            path.write_text(page, encoding="utf-8")
            options = [*_OPTIONS, *_without_sandbox(), f"--user-data-dir={folder / 'profile'}"]
            return self._run([*self.command, *options, "--dump-dom", path.as_uri()], folder / "said", seconds)

    def _run(self, command: Sequence[str], said: Path, seconds: float) -> str:
        try:
            with said.open("wb") as stderr, _started(command, stderr) as process:
                output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise BrowserError(f"{self} did not draw a page within {seconds:.0f} s") from error
        except OSError as error:
            raise BrowserError(f"{self} cannot be started: {error.strerror or error}") from error
        if process.returncode:
            raise BrowserError(f"{self} ended with status {process.returncode}{_last_words(said)}")
        return output.decode("utf-8", "replace")


def find_browser(named: str | Path | None = None) -> Browser | None:
    """Return the browser *named*, or else an installed one, or None.

    Raises:
        InputError: the named one is missing.
    """
    if named:
        found = shutil.which(str(Path(named).expanduser()))
        if found is None:
            raise InputError(
                f"{named} is not a program that can be started; give a Chromium, Chrome, Edge or Brave as `browser`"
            )
        return Browser((found,))
    return next((Browser((path,)) for path in _installed()), None)


def _installed() -> Iterator[str]:
    yield from filter(None, map(shutil.which, _NAMES))
    if sys.platform == "darwin":
        for folder in _APPLICATIONS:
            for name in _ON_MACOS:
                program = Path(folder).expanduser() / f"{name}.app" / "Contents/MacOS" / name
                yield from filter(None, [shutil.which(str(program))])


def _without_sandbox() -> list[str]:
    """Return the option without which browsers on Linux do not start for root, as in containers; none for others."""
    return ["--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else []


def _folder_for(command: Sequence[str]) -> Path | None:
    """Return a place where a browser can read files: one from a snap has its own /tmp, and no hidden folders."""
    program = Path(command[0]).resolve()
    if "snap" not in program.parts:
        return None
    shared = Path.home() / "snap" / Path(command[0]).name / "common"
    return shared if shared.is_dir() else Path.home()


@contextlib.contextmanager
def _started(command: Sequence[str], stderr: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Start a browser, and end it with all its processes: there are many, and they wait for each other."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=stderr, start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _last_words(said: Path) -> str:
    lines = said.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")
