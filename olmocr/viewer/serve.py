"""A folder that the viewer wrote -> an HTTP server on this machine's own address."""

from __future__ import annotations

import errno
import functools
import re
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import IO, Any

from olmocr.errors import UsageError

HOST = "127.0.0.1"

# What the viewer writes, and nothing else that may lie in the folder.
_OURS = re.compile(r"/(index\.html|documents/[A-Za-z0-9-]+\.html)?", re.ASCII)


class _Handler(SimpleHTTPRequestHandler):
    def send_head(self) -> Any:
        """Refuse what is none of the viewer's pages, and whoever came here by another name (DNS rebinding)."""
        if self.headers.get("Host", "") not in self._hosts():
            self.send_error(403, "This server answers to its own address only")
            return None
        if not _OURS.fullmatch(self.path.partition("?")[0]):
            self.send_error(404, "Not a page of the viewer")
            return None
        return super().send_head()

    def _hosts(self) -> set[str]:
        port = _port(self.server)
        return {f"{HOST}:{port}", f"localhost:{port}"}

    def list_directory(self, path: Any) -> None:
        """Show no folder."""
        self.send_error(404, "Not a page of the viewer")

    def end_headers(self) -> None:
        """Add what keeps a page from being taken for something else, framed, or remembered."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
        """Say nothing."""

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        """Send a page to a browser that may leave before it has it all."""
        try:
            super().copyfile(source, outputfile)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of *folder* that listens on the loopback address; with port 0 on one that is free.

    Raises:
        UsageError: the port is taken, or may not be used.
    """
    try:
        return ThreadingHTTPServer((HOST, port), functools.partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken" if taken else f"cannot be used ({error})"
        raise UsageError(f"port {port} {reason}; choose another one with --port, or 0 for any that is free") from error


def address(server: ThreadingHTTPServer) -> str:
    """Return the URL at which *server* is found."""
    return f"http://{HOST}:{_port(server)}/"


def _port(server: BaseServer) -> int:
    return int(server.server_address[1])  # type: ignore[index]  # (host, port): it is no Unix socket
