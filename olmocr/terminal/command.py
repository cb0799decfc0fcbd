"""What all commands have in common: errors as sentences, exit codes, spellings of options, progress."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar

import typer
from typer.core import TyperCommand

from olmocr.errors import ExitCode, OlmocrError, output_error
from olmocr.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LINE_EVERY_SECONDS = 30.0
"""How often progress is logged when nobody watches a display."""

P = ParamSpec("P")
R = TypeVar("R")


def ends_with_exit_code(function: Callable[P, R]) -> Callable[P, R]:
    """Make a command end with one sentence and its exit code if *function* raises an OlmocrError.

    Whatever becomes of the terminal or the pipe that is written to, *function* continues; a result that could not be
    written because there was no room is reported at the end.
    """

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        _interrupt_once()
        # Read when huggingface_hub is imported, which is later: our own display shows its downloads.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        with _steady_streams():
            try:
                result = function(*args, **kwargs)
            except typer.Exit as end:
                if not end.exit_code:
                    _refuse_unsaid()
                raise
            except OlmocrError as error:
                complain(f"error: {error}")
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt as error:
                complain("interrupted: finished work is kept, and nothing is left half done; run it again to continue")
                raise typer.Exit(ExitCode.INTERRUPTED) from error
            _refuse_unsaid()
            return result

    return command


class SteadyStream(io.TextIOBase):
    """Standard output or error as a command writes to it: once that fails, later output is dropped.

    *fault* is why it failed; None if it did not, or if nobody listens any more: a pipe's reader has seen enough, or the
    terminal was closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self.fault: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of text."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Claim to be writable, since a write that fails is ignored."""
        return True

    def isatty(self) -> bool:
        """Return whether somebody watches."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            OSError: there is none.
        """
        return super().fileno() if self._stream is None else self._stream.fileno()

    def write(self, text: str) -> int:
        """Write *text*, with characters that the encoding lacks as escapes."""
        if self._stream is not None:
            with self._losing(self._stream):
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        if self._stream is not None:
            with self._losing(self._stream):
                self._stream.flush()

    @contextlib.contextmanager
    def _losing(self, stream: TextIO) -> Iterator[None]:
        """Give the stream up if the block fails."""
        try:
            yield
        except OSError as error:
            self._stream = None
            if error.errno not in _NOBODY_LISTENS:
                self.fault = error
            _divert(stream)
        except ValueError:  # it was closed
            self._stream = None


_NOBODY_LISTENS = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET}


def _divert(stream: TextIO) -> None:
    """Discard what is still buffered: when Python ends it would fail again, and change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _steady_streams() -> Iterator[None]:
    """Replace standard output and error so that their faults never end work."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    steady = SteadyStream(sys.stdout), SteadyStream(sys.stderr)
    sys.stdout, sys.stderr = steady
    try:
        yield
    finally:
        for stream in steady:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_standard_descriptors() -> None:
    """Open those of the first three descriptors that are closed: otherwise the next file opened would become one.

    Whatever any library prints would then go into that file, even into the workspace's records.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    for number in (1, 2):
        with contextlib.suppress(OSError):
            os.set_blocking(number, True)  # another program of the same shell may have set it otherwise


def _refuse_unsaid() -> None:
    """End with the exit code for output that cannot be written, if that happened to a result on standard output."""
    sys.stdout.flush()
    fault = sys.stdout.fault if isinstance(sys.stdout, SteadyStream) else None
    if fault is not None:
        complain(f"error: {output_error(fault, 'standard output')}")
        raise typer.Exit(ExitCode.OUTPUT)


def _interrupt_once() -> None:
    """Make Ctrl-C and the signals that end a process raise KeyboardInterrupt, once: after that it cleans up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _ending_signals():
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in _ending_signals():
        signal.signal(each, interrupt)


def _ending_signals() -> list[signal.Signals]:
    """Return the signals that end a process, without SIGHUP if it is to be ignored, as nohup requests."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def run_interruptibly(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run *coroutine*. A signal that would end the process cancels it, once: after that it cleans up.

    An exception raised in a signal's handler could end any of its tasks, and the others would not notice.

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


def as_options(text: str, options: Mapping[str, str]) -> str:
    """Return a sentence with the command line's names: ```max_tokens=100``` becomes ``--max-tokens 100``.

    Errors name settings as Python does, between backquotes; *options* are those of a command, by these names. Other
    names stay.
    """

    def as_option(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in options or value == "True" or value is None:
            return options.get(name, match[0])
        if value == "False":
            return f"--no-{options[name][2:]}"
        is_text = len(value) > 1 and value[0] == value[-1] == "'"
        return f"{options[name]} {shlex.quote(value[1:-1]) if is_text else value}"

    return _SETTING.sub(as_option, text)


_SETTING = re.compile("`([a-z][a-z0-9_]*)(?:=([^`]*))?`")  # as errors name them


def in_this_commands_words(text: str) -> str:
    """Return a sentence with the option names of the running command."""
    return as_options(text, _OPTIONS.get())


_OPTIONS: ContextVar[Mapping[str, str]] = ContextVar("options", default=MappingProxyType({}))


def say(text: str) -> None:
    """Print a result to standard output; if it cannot be written, the command reports that when it ends."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """Print to standard error, with the option names of the running command."""
    _print(in_this_commands_words(text), sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    steady = stream if isinstance(stream, SteadyStream) else SteadyStream(stream)
    steady.write(printable(text) + "\n")
    steady.flush()


_REFUSAL: Any = typer.BadParameter.__mro__[1]  # of arguments; Typer gives it no public name


class CommandWithBothSpellings(TyperCommand):
    """A command whose options may be spelled ``--like_this`` or ``--like-this``.

    Options named in *several* may be given as ``--option a b c``.
    """

    several: tuple[str, ...] = ()

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Accept both spellings of an option's name."""
        return super().make_context(info_name, args, parent, token_normalize_func=hyphenated, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, whose sentences name its options."""
        long = {each.name: opt for each in self.params for opt in each.opts if each.name and opt.startswith("--")}
        token = _OPTIONS.set(long)
        try:
            return super().invoke(ctx)
        finally:
            _OPTIONS.reset(token)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread what takes several values, then parse. Of an option that is none, the one most like it is named."""
        try:
            for option in self.several:
                args = several_values(args, option)
            return super().parse_args(ctx, args)
        except _REFUSAL as error:
            if alike := getattr(error, "possibilities", None):
                error.possibilities = alike[:1]  # the closest match; several would be shown alphabetically
            raise


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
        spread.append(option)  # nothing follows: the parser reports that
    return spread + args[end:]


_RAY_ADDRESS = re.compile(r"auto|local|[\w.-]+:\d+|\[[\d:a-fA-F]+\]:\d+|ray://.*")


def with_ray_address(args: list[str]) -> list[str]:
    """Return *args* with ``--ray local`` for ``--ray`` without an address: what follows may well be a document."""
    spread = []
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        spread.append(arg)
        if arg == "--ray" and not _RAY_ADDRESS.fullmatch(following):
            spread.append("local")
    return spread


def start_logging(*, quiet: bool, with_time: bool = False) -> Console:
    """Send this package's log to standard error, above any progress bar; with *quiet* only warnings.

    *with_time* begins each line with the time of this machine's clock, and how far that is from UTC.
    """
    from rich.console import Console

    console = Console(stderr=True)
    package = logging.getLogger("olmocr")
    handler = _ConsoleHandler(console)
    if with_time:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.WARNING if quiet else logging.INFO)
    return console


def log_to_file(path: Path) -> None:
    """Append this package's log, with all details, to a file as well.

    If the file cannot be written later on, this is reported once, and work continues.

    Raises:
        OutputError: it cannot be opened.
    """
    try:
        handler = _FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise output_error(error, str(path)) from error
    handler.setFormatter(_LinesFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
        self._console.print(
            in_this_commands_words(printable(self.format(record))), markup=False, highlight=False, soft_wrap=True
        )


class _FileHandler(logging.FileHandler):
    """A log whose disk may be full: what cannot be written is lost, and this is reported once."""

    _is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not self._is_told and isinstance(error, OSError):
            self._is_told = True
            complain(f"the log {self.baseFilename} can no longer be written ({error.strerror}); the run continues")


class _LinesFormatter(logging.Formatter):
    """Indents all lines of a message except the first: a file's name cannot look like a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record)).replace("\n", "\n    ")


def is_watched(console: Console) -> bool:
    """Return whether somebody watches *console*, on a terminal that can redraw."""
    return sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal


def counting_columns() -> list[Any]:
    """Return the columns of a progress bar for things."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    return [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]


def byte_columns() -> list[Any]:
    """Return the columns of a progress bar for bytes."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}")
    return [text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]


@contextlib.contextmanager
def progress_bar(console: Console, *columns: Any, quiet: bool) -> Iterator[Progress]:
    """Yield a progress bar on *console*: an invisible one if nobody watches."""
    from rich.progress import Progress

    with Progress(*columns, console=console, transient=True, disable=quiet or not is_watched(console)) as progress:
        yield progress
