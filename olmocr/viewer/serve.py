"""A workspace -> an HTTP server on this machine's loopback address, which makes each page on request."""

from __future__ import annotations

import errno
import functools
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any

from olmocr.errors import OlmocrError, UsageError
from olmocr.viewer.catalogue import Catalogue
from olmocr.viewer.pages import DocumentPage, IndexPage, Look, count_of_index_pages, find_places

HOST = "127.0.0.1"

_INDEX = re.compile(r"/(?:index(?:-([1-9][0-9]{0,8}))?\.html)?", re.ASCII)
_DOCUMENT = re.compile(r"/documents/([A-Za-z0-9-]+)\.html", re.ASCII)


class ServedSite:
    """The pages of what is chosen in *catalogue*, each made on request; nothing is written."""

    def __init__(self, catalogue: Catalogue, look: Look) -> None:
        self._catalogue, self._look = catalogue, look
        self._lock = threading.Lock()  # each request has its own thread, but there is one catalogue

    def page(self, target: str) -> Iterator[str] | None:
        """Return the HTML at the *target* of a request, piece by piece; None if there is nothing.

        Raises:
            OutputError: the catalogue is gone.
        """
        path, _, query = target.partition("?")
        if match := _INDEX.fullmatch(path):
            searched = urllib.parse.parse_qs(query, errors="replace", max_num_fields=10).get("q", [""])[0]
            return self._index(int(match[1] or 1), searched[:500])
        match = _DOCUMENT.fullmatch(path)
        return self._document(match[1]) if match else None

    def _index(self, at: int, searched: str) -> Iterator[str] | None:
        with self._lock:
            if at > count_of_index_pages(self._catalogue.totals(), self._look):
                return None
            return IndexPage(self._catalogue, self._look, at).pieces(searched, find_places(self._catalogue, searched))

    def _document(self, key: str) -> Iterator[str] | None:
        with self._lock:
            before, entry, after = self._catalogue.around(key)
        return DocumentPage(self._look, entry, (before, after)).pieces() if entry else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # a page ends with its connection: its length is not known before

    def __init__(self, site: ServedSite, *args: Any) -> None:
        self._site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        """Send a page; refuse requests that use another host name (DNS rebinding)."""
        if self.headers.get("Host", "") not in self._hosts():
            self.send_error(403, "This server answers to its own address only")
            return
        try:
            pieces = self._site.page(self.path)
        except (OlmocrError, ValueError) as error:
            self.send_error(500, "The page could not be made", str(error))
            return
        if pieces is None:
            self.send_error(404, "Not a page of the viewer")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self._send(pieces)

    def _send(self, pieces: Iterator[str]) -> None:
        """Send a page to a browser that may leave before the end."""
        try:
            for piece in pieces:
                self.wfile.write(piece.encode("utf-8", "replace"))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _hosts(self) -> set[str]:
        port = _port(self.server)
        return {f"{HOST}:{port}", f"localhost:{port}"}

    def end_headers(self) -> None:
        """Add headers that stop a page from being misread as another type, framed, or cached."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
        """Log nothing."""


def make_server(port: int) -> ThreadingHTTPServer:
    """Return a server that listens on the loopback address, with port 0 on any free port. It has no site yet.

    Raises:
        UsageError: the port is taken, or may not be used.
    """
    try:
        return ThreadingHTTPServer((HOST, port), BaseHTTPRequestHandler)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken" if taken else f"cannot be used ({error})"
        raise UsageError(f"port {port} {reason}; choose another with `port`, or 0 for any free one") from error


def set_site(server: ThreadingHTTPServer, site: ServedSite) -> None:
    """Make *server* answer with the pages of *site*."""
    server.RequestHandlerClass = functools.partial(_Handler, site)  # it is called, no more


def address(server: ThreadingHTTPServer) -> str:
    """Return the URL of *server*."""
    return f"http://{HOST}:{_port(server)}/"


def _port(server: BaseServer) -> int:
    return int(server.server_address[1])  # type: ignore[index]  # (host, port): it is not a Unix socket
