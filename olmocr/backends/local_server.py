"""Our own model server: a command line -> a process that is started, watched, restarted, and stopped."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from olmocr.backends.batches import sampled_alone
from olmocr.backends.client import IsLooping, ServerClient, has_loaded
from olmocr.backends.faults import plain
from olmocr.backends.wire import Api, Guide
from olmocr.errors import InputError, MissingDependencyError, ServerError, ServerUnavailableError, output_error
from olmocr.page import MAX_TOTAL_TOKENS, Ask, ModelResponse, PageRequest
from olmocr.runtime.extras import install_command

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
MLX_VLM_PORT = 8000
VLLM_PORT = 30024

_LAST_LINES = 20

_DEATHS_OF_A_PAGE = 2
"""A page over which the server died this often is given up."""


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server, and how to send requests to it.

    *key_variable* is the environment variable with its API key. *samples_by_batch* is True if it needs
    :func:`~olmocr.backends.batches.sampled_alone`.
    """

    name: str
    arguments: tuple[str, ...]
    model: str
    port: int
    guide: Guide
    key_variable: str
    samples_by_batch: bool = False

    @property
    def url(self) -> str:
        """The URL at which it will answer."""
        return f"http://{HOST}:{self.port}/v1"


def mlx_vlm_command(
    model: str, *, port: int = MLX_VLM_PORT, max_num_seqs: int = 1, max_tokens: int = 8000, extra: Sequence[str] = ()
) -> ServerCommand:
    """Return the command for mlx-vlm's server with *model*, a folder or a Hub repository.

    The server reads at most *max_num_seqs* pages at once; others wait.

    Raises:
        MissingDependencyError: mlx-vlm is not installed.
    """
    if importlib.util.find_spec("mlx_vlm") is None:
        raise MissingDependencyError(f"mlx-vlm is not installed; install it with: {install_command('mlx')}")
    launcher = (sys.executable, "-m", "olmocr.backends.mlx_vlm_launcher")
    options = ("--model", model, "--host", HOST, "--port", str(port))
    limits = ("--max-num-seqs", str(max_num_seqs), "--max-tokens", str(max_tokens), "--log-level", "WARNING")
    return ServerCommand(
        name="mlx-vlm",
        arguments=(*launcher, *options, *limits, *extra),
        model=model,
        port=port,
        guide="mlx-vlm",
        key_variable="MLX_VLM_SERVER_API_KEY",
        samples_by_batch=True,
    )


def vllm_command(
    model: str,
    *,
    port: int = VLLM_PORT,
    max_model_len: int = MAX_TOTAL_TOKENS,
    served_model_name: str = "olmocr",
    extra: Sequence[str] = (),
    executable: str = "vllm",
) -> ServerCommand:
    """Return the command for ``vllm serve`` with *model*; *extra* options are passed on, and come last.

    Raises:
        MissingDependencyError: the executable does not exist.
    """
    found = shutil.which(executable)
    if found is None:
        raise MissingDependencyError(
            f"there is no program {executable}; install vLLM (on Linux with an NVIDIA GPU), "
            "or name a running server with `server`"
        )
    options = ("--host", HOST, "--port", str(port), "--served-model-name", served_model_name)
    limits = ("--max-model-len", str(max_model_len), "--limit-mm-per-prompt", '{"video": 0}')
    quiet = ("--uvicorn-log-level", "warning")
    return ServerCommand(
        name="vLLM",
        arguments=(found, "serve", model, *options, *limits, *quiet, *extra),
        model=served_model_name,
        port=port,
        guide="vllm",
        key_variable="VLLM_API_KEY",
    )


@dataclass(frozen=True)
class Patience:
    """Times, in seconds, and how many restarts.

    Attributes:
        ready: limit until the model must be loaded.
        restarts: crashes in a row after which the server is given up; the count restarts once the server has answered,
            or has lived for *stable* seconds.
        pause: before the first restart after a crash; doubled for each further one, up to a minute.
        drain: limit for pages in flight, before a restart that can wait.
        stop: from the request to end until the server is killed.
        look: between two checks whether it is ready.
        weigh: between two checks of its memory.
    """

    ready: float = 600.0
    restarts: int = 5
    stable: float = 600.0
    pause: float = 1.0
    drain: float = 300.0
    stop: float = 10.0
    look: float = 0.5
    weigh: float = 10.0


class LocalServer:
    """A model server on this machine, on the loopback interface only, and with its own API key.

    Use it as an async context manager: entering waits until the model is loaded, and leaving stops the server and
    everything that it started. In between, it is restarted when it ends, or when it has grown past
    *max_resident_bytes*. Send requests through :meth:`guarded`.
    """

    def __init__(
        self,
        command: ServerCommand,
        *,
        max_resident_bytes: int | None = None,
        log_file: Path | None = None,
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the arguments; nothing is started yet.

        Args:
            command: what to start.
            max_resident_bytes: memory of the server's processes above which it is restarted.
            log_file: the file to which the server's output is appended; it also goes to the log at level DEBUG.
            patience: how long to wait, and how often to restart.
            clock: returns the time in seconds.
        """
        self.command = command
        self.api_key = secrets.token_urlsafe(24)
        self._max_resident_bytes = max_resident_bytes
        self._log_file = log_file
        self._patience = patience
        self._clock = clock
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: BinaryIO | None = None
        self._is_ready = False
        self._given_up: str | None = None
        self._in_flight = 0
        self._has_answered = False  # since it was started
        self._deaths: dict[int, int] = {}  # of the server during a request, by the identity of the request
        self._stopped_by_us: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start the server.

        Raises:
            ServerError: the port is taken, or the server ended or was not ready in time; its last lines are shown.
            OutputError: the log file cannot be written.
        """
        _refuse_taken_port(self.command.port)
        self._open_log()
        atexit.register(self._kill)
        try:
            await self._start_first()
        except BaseException:
            await self._stop()
            self._close()
            raise
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exception: object) -> None:
        try:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        finally:
            self._is_ready = False
            await self._stop()
            self._close()

    def guarded(self, ask: Ask) -> Ask:
        """Return *ask*, guarded so that nothing is sent while this server restarts, or after it was given up.

        The returned Ask raises what *ask* does. It also raises ServerUnavailableError during a restart, ServerError
        after the server was given up, and InputError if the server died each time that it got this request.
        """

        async def answer(request: PageRequest) -> ModelResponse:
            if self._given_up:
                raise ServerError(self._given_up)
            if not self._is_ready:
                raise ServerUnavailableError(f"the {self.command.name} server is being restarted")
            self._in_flight += 1
            process = self._process
            try:
                found = await ask(request)
            except ServerUnavailableError as error:
                if await self._has_died(process):
                    self._count_death(request, error)
                raise
            except BaseException:
                self._deaths.pop(id(request), None)
                raise
            finally:
                self._in_flight -= 1
            self._has_answered = True
            self._deaths.pop(id(request), None)
            return found

        return answer

    async def _has_died(self, process: asyncio.subprocess.Process | None) -> bool:
        """Return whether *process* died, and not because we ended it; its request may have been too much for it."""
        if process is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 1)
        return process.returncode is not None and process is not self._stopped_by_us

    def _count_death(self, request: PageRequest, error: ServerUnavailableError) -> None:
        """Count a death of the server during *request*.

        Raises:
            InputError: the server died too often.
        """
        deaths = self._deaths.pop(id(request), 0) + 1
        if deaths >= _DEATHS_OF_A_PAGE:
            raise InputError(f"the {self.command.name} server died {deaths} times while it read this page") from error
        self._deaths[id(request)] = deaths

    async def _start_first(self) -> None:
        """Start the process; retry if it is killed, since that does not mean that its command was wrong."""
        for killed in range(self._patience.restarts + 1):
            try:
                await self._start()
            except ServerError as error:
                code = self._process.returncode if self._process else None
                if code is None or code >= 0 or killed == self._patience.restarts:
                    raise
                log.warning("%s; it is restarted", error)
                await self._stop()
                await asyncio.sleep(min(self._patience.pause * 2**killed, 60))
            else:
                return

    async def _start(self) -> None:
        """Start the process and wait until the model is loaded."""
        self._lines.clear()
        self._process = await self._spawn()
        self._reader = asyncio.create_task(self._read_output(self._process))
        started = self._clock()
        while not await has_loaded(self.command.url, self.command.model, self.api_key):
            if self._process.returncode is not None:
                raise await self._ended("before it was ready")
            if self._clock() - started > self._patience.ready:
                raise ServerError(
                    f"the {self.command.name} server was not ready after {self._patience.ready:g} s{self._last_lines()}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self._patience.look)
        self._is_ready, self._has_answered = True, False
        log.info("the %s server is ready after %.1f s", self.command.name, self._clock() - started)

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self.command.arguments,
                stdin=asyncio.subprocess.PIPE,  # closes when this process ends, and then our launcher ends, too
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # one process group to stop, which a terminal's Ctrl-C does not reach
                env={**os.environ, "PYTHONUNBUFFERED": "1", self.command.key_variable: self.api_key},
            )
        except OSError as error:
            raise ServerError(f"{self.command.arguments[0]} cannot be started: {error.strerror}") from error

    async def _ended(self, when: str) -> ServerError:
        """Return the error for a process that ended, with the last lines of its output."""
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1)
        status = self._process.returncode if self._process else None
        how = f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by signal {-status}" + (" (the memory may have run out)" if status == -9 else "")
        return ServerError(f"the {self.command.name} server {how} {when}{self._last_lines()}")

    def _last_lines(self) -> str:
        if not self._lines:
            return "; it printed nothing"
        return "; its last lines:\n" + "\n".join(f"  {line}" for line in self._lines)

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        """Read all output of the server, since it would stop at a full pipe."""
        rest = b""
        while process.stdout is not None and (piece := await process.stdout.read(1 << 16)):
            self._write_log(piece)
            *lines, rest = (rest[-(1 << 16) :] + piece).split(b"\n")
            for line in lines:
                self._keep(line)
        self._keep(rest)

    def _open_log(self) -> None:
        if self._log_file is not None:
            try:
                self._log = self._log_file.open("ab", buffering=0)
            except OSError as error:
                raise output_error(error, str(self._log_file)) from error

    def _write_log(self, piece: bytes) -> None:
        try:
            if self._log is not None:
                self._log.write(piece)
        except OSError as error:  # losing the server's output must not end its work
            log.warning("%s", output_error(error, str(self._log_file)))
            self._log = None

    def _close(self) -> None:
        atexit.unregister(self._kill)
        if self._log is not None:
            self._log.close()

    def _keep(self, line: bytes) -> None:
        if line.strip():
            text = plain(line.decode("utf-8", "replace"))
            self._lines.append(text)
            log.debug("%s: %s", self.command.name, text)

    async def _watch(self) -> None:
        """Restart the server whenever it ends or has grown too large, until it crashes too often in a row."""
        crashes = 0
        while True:
            started = self._clock()
            try:
                if not self._is_ready:
                    await self._start()
                    started = self._clock()
                await self._outgrown()
                await self._drain()
                crashes = 0
            except ServerError as error:
                self._is_ready = False
                lived = self._has_answered or self._clock() - started > self._patience.stable
                crashes = 1 if lived else crashes + 1
                if crashes > self._patience.restarts:
                    self._given_up = f"{error}\nit was restarted {self._patience.restarts} times, in vain"
                    return
                log.warning("%s", error)
            await self._stop()
            if crashes:
                await asyncio.sleep(min(self._patience.pause * 2 ** (crashes - 1), 60))

    async def _outgrown(self) -> None:
        """Wait until the server has grown past its limit.

        Raises:
            ServerError: it has ended.
        """
        process = self._process
        if process is None:
            return
        while True:
            try:
                await asyncio.wait_for(process.wait(), self._patience.weigh)
            except TimeoutError:
                resident = await _resident_bytes(process.pid) if self._max_resident_bytes else 0
                if self._max_resident_bytes and resident > self._max_resident_bytes:
                    log.info("the %s server uses %.1f GB and is restarted", self.command.name, resident / 1e9)
                    return
            else:
                raise await self._ended("in the middle of its work")

    async def _drain(self) -> None:
        """Accept no more pages, and wait for those in flight."""
        self._is_ready = False
        until = self._clock() + self._patience.drain
        while self._in_flight and self._clock() < until:
            await asyncio.sleep(self._patience.look)

    async def _stop(self) -> None:
        """End the process and everything that it started."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self._stopped_by_us = process
        try:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._patience.stop)
        finally:
            self._kill()
        await process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1)
            self._reader.cancel()
        self._process = None

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _refuse_taken_port(port: int) -> None:
    with contextlib.closing(socket.socket()) as there:
        there.settimeout(1)
        is_taken = there.connect_ex((HOST, port)) == 0
    with contextlib.closing(socket.socket()) as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind((HOST, port))
        except PermissionError as error:
            raise ServerError(f"port {port} may not be used ({error.strerror}); choose one above 1023") from error
        except OSError:
            is_taken = True
    if is_taken:
        raise ServerError(
            f"port {port} is taken by another program; choose another with `port`, "
            f"or use the server that runs there with `server='http://{HOST}:{port}/v1'`"
        )


async def _resident_bytes(group: int) -> int:
    """Return the memory of the processes of a group; 0 if ``ps`` is missing or too slow."""
    ps = ("ps", "-A", "-o", "pgid=,rss=")
    try:
        done = await asyncio.to_thread(subprocess.run, ps, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    rows = (line.split() for line in done.stdout.splitlines())
    return 1024 * sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == str(group).encode())


@contextlib.asynccontextmanager
async def serving(
    command: ServerCommand,
    *,
    api: Api = "chat",
    timeout: float = 1200.0,
    is_looping: IsLooping | None = None,
    max_resident_bytes: int | None = None,
    log_file: Path | None = None,
    patience: Patience = Patience(),
) -> AsyncIterator[Ask]:
    """Start *command*, yield an Ask for its server, and stop it.

    Arguments and errors are those of :class:`LocalServer` and :class:`ServerClient`.
    """
    async with (
        LocalServer(command, max_resident_bytes=max_resident_bytes, log_file=log_file, patience=patience) as server,
        ServerClient(
            command.url,
            model=command.model,
            api_key=server.api_key,
            api=api,
            timeout=timeout,
            guide=command.guide,
            is_looping=is_looping,
        ) as client,
    ):
        ask = server.guarded(client.ask)
        yield sampled_alone(ask) if command.samples_by_batch else ask
