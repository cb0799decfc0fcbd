"""An application -> HTTP on an address, until it is cancelled. Only this module imports uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.applications import Starlette

from olmocr.errors import ServerError, UsageError, why_no_port
from olmocr.serving.asking import Asking
from olmocr.serving.connections import Connection, room_for
from olmocr.serving.limits import ServerLimits

log = logging.getLogger(__name__)

_BACKLOG = 128  # connections that wait to be accepted, and that are accepted at once

_MARGIN_SECONDS = 5.0  # to send the last bytes, once the answers have ended


def listen(host: str, port: int, *, has_key: bool) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        UsageError: there is no such address, or other machines could use the server and no key is set.
        ServerError: the port is taken, or may not be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"`host` {host} is not an address of this machine: {error}") from error
    family, _, _, _, place = found[0]
    if not has_key and not ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback:
        raise UsageError(
            f"at {host} other machines can use it, but no key is set; set one in OLMOCR_API_KEY, or `host='127.0.0.1'`"
        )
    try:
        return socket.create_server((str(place[0]), int(place[1])), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ServerError(f"port {port} {why_no_port(error)}; choose another with `port`") from error


def address(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(app: Starlette, listening: socket.socket, *, grace: float) -> None:
    """Serve until cancelled. Unfinished answers then have *grace* seconds; later ones are ended with an error.

    Raises:
        OlmocrError: it cannot start, because no temporary folder could be made.
    """
    limits: ServerLimits = app.state.limits
    limits = replace(limits, connections=room_for(limits.connections))
    connection: Any = functools.partial(Connection, limits)
    server = _Server(
        uvicorn.Config(
            app,
            http=connection,
            backlog=_BACKLOG,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # our own log reports what goes wrong, without quoting requests
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(grace + _MARGIN_SECONDS)),
        )
    )
    async with app.router.lifespan_context(app), _swept(server, limits.stall_seconds):
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            await _close(app.state.asking, grace)
            server.should_exit = True
            await serving
            raise


@contextlib.asynccontextmanager
async def _swept(server: uvicorn.Server, stall_seconds: float) -> AsyncIterator[None]:
    """Check connections now and then, while this is open."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(min(1.0, stall_seconds / 4))
            for each in list(server.server_state.connections):
                if isinstance(each, Connection):
                    each.look(asyncio.get_running_loop().time())

    sweeping = asyncio.create_task(sweep())
    try:
        yield
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


async def _close(asking: Asking, grace: float) -> None:
    asking.close()
    if asking.admitted:
        log.info("closing: %d requests have %g s to finish", asking.admitted, grace)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace):
            while asking.admitted:
                await asyncio.sleep(0.05)
    asking.end_all()


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
