"""What every command does alike: errors as sentences, exit codes, spellings of options, progress."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperCommand

from olmocr.errors import ExitCode, OlmocrError, output_error
from olmocr.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")


def ends_with_exit_code(function: Callable[P, R]) -> Callable[P, R]:
    """Make a command end in one sentence and its exit code where *function* raises an OlmocrError."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        _interrupt_once()
        try:
            return function(*args, **kwargs)
        except OlmocrError as error:
            complain(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            complain("interrupted: what was finished stays, nothing half done is left; run it again to go on")
            raise typer.Exit(ExitCode.INTERRUPTED) from error

    return command


def _interrupt_once() -> None:
    """Have Ctrl-C and the signals that end a process raise KeyboardInterrupt, once: what follows is cleaning up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _ending_signals():
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in _ending_signals():
        signal.signal(each, interrupt)


def _ending_signals() -> list[signal.Signals]:
    return [each for name in ("SIGINT", "SIGTERM", "SIGHUP") if (each := getattr(signal, name, None))]


def run_interruptibly(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run *coroutine*. A signal that would end the process cancels it, once: what follows is cleaning up.

    An exception out of a signal's handler could end any of its tasks, and none of the others would hear of it.

    Raises:
        KeyboardInterrupt: there was such a signal.
    """
    import asyncio

    was_interrupted = False

    def interrupt() -> None:
        nonlocal was_interrupted
        if not was_interrupted:
            was_interrupted = True
            task.cancel()

    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            task = loop.create_task(coroutine)
            for each in _ending_signals():
                loop.add_signal_handler(each, interrupt)
            return loop.run_until_complete(task)
    except asyncio.CancelledError:
        if was_interrupted:
            for each in _ending_signals():
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt from None
        raise


def say(text: str) -> None:
    """Print a result to standard output.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        typer.echo(printable(text))
    except BrokenPipeError:  # whoever read it has seen enough
        raise
    except OSError as error:
        raise output_error(error, "standard output") from error


def complain(text: str) -> None:
    """Print to standard error."""
    typer.echo(printable(text), err=True)


class CommandWithBothSpellings(TyperCommand):
    """A command whose options may be spelled ``--like_this`` or ``--like-this``.

    An option that is named *several* may be given as ``--option a b c``.
    """

    several: str | None = None

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Take both spellings of an option's name."""
        return super().make_context(info_name, args, parent, token_normalize_func=hyphenated, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread what takes several values, then parse."""
        return super().parse_args(ctx, several_values(args, self.several) if self.several else args)


def hyphenated(name: str) -> str:
    """Return an option's name with hyphens for underscores."""
    return name.replace("_", "-")


def several_values(args: list[str], option: str) -> list[str]:
    """Return *args* with ``option A B C`` written as ``option A option B option C``, as a shell's ``*.pdf`` needs."""
    spread: list[str] = []
    taking = False
    end = args.index("--") if "--" in args else len(args)
    for arg in args[:end]:
        if arg.startswith("-") and arg != "-":  # which is standard input
            taking = hyphenated(arg) == option
            if not taking:
                spread.append(arg)
        else:
            spread += [option, arg] if taking else [arg]
    if taking and hyphenated(args[end - 1]) == option:
        spread.append(option)  # nothing follows: leave it to the parser to say so
    return spread + args[end:]


def start_logging(*, quiet: bool, with_time: bool = False) -> Console:
    """Send this package's log to standard error, above any progress bar; with *quiet* only warnings.

    *with_time* begins each line with the time of this machine's clock, and how far that is from UTC.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not _is_watched():  # read when huggingface_hub is imported, which is later
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    package = logging.getLogger("olmocr")
    handler = _ConsoleHandler(console)
    if with_time:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.WARNING if quiet else logging.INFO)
    return console


def log_to_file(path: Path) -> None:
    """Send this package's log, down to details, to a file as well; it is added to.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise output_error(error, str(path)) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("olmocr")
    for other in package.handlers:
        other.setLevel(package.level)
    package.addHandler(handler)
    package.setLevel(logging.DEBUG)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(printable(self.format(record)), markup=False, highlight=False, soft_wrap=True)


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def counting_columns() -> list[Any]:
    """Return a progress bar's columns for things of which some are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    return [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]


def byte_columns() -> list[Any]:
    """Return a progress bar's columns for bytes of which some are done."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}")
    return [text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]


@contextlib.contextmanager
def progress_bar(console: Console, *columns: Any, quiet: bool) -> Iterator[Progress]:
    """Yield a progress bar on *console*: an invisible one where nobody looks."""
    from rich.progress import Progress

    with Progress(*columns, console=console, transient=True, disable=quiet or not _is_watched()) as progress:
        yield progress
