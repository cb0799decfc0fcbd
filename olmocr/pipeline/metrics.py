"""Finished pages -> counters that Prometheus scrapes from this machine. Only this module uses its client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from olmocr.errors import MissingDependencyError, UsageError, why_no_port
from olmocr.runtime.extras import install_command
from olmocr.runtime.memory import peak_memory
from olmocr.workspace.document import PageRecord

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

HOST = "127.0.0.1"

SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600)
"""Bounds of the histogram: a blank page takes no time, a page on a fast Mac seconds, a retry on a slow one minutes."""


@contextlib.contextmanager
def served_metrics(port: int) -> Iterator[Callable[[PageRecord], None]]:
    """Serve metrics at ``http://127.0.0.1:<port>/metrics``; yield a function to call with each page.

    ``olmocr_pages_total`` by *status*, ``olmocr_attempts_total``, ``olmocr_attempts_ended_total`` by *end*,
    ``olmocr_input_tokens_total``, ``olmocr_output_tokens_total`` (answers that were not accepted included),
    ``olmocr_passes_total`` over the weights for these, the histogram ``olmocr_page_seconds``,
    ``olmocr_server_pages_total``, ``olmocr_server_output_tokens_total`` and ``olmocr_server_page_seconds_total`` of
    pages that a model server answered, by *server*, and ``olmocr_run_peak_memory_bytes`` of this process.

    Raises:
        MissingDependencyError: the extra is not installed.
        UsageError: the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server
    except ImportError as error:
        raise MissingDependencyError(
            f"--metrics-port needs the Prometheus client; install it with: {install_command('metrics')}"
        ) from error
    registry = CollectorRegistry()
    count = count_pages(registry)
    peak = Gauge("olmocr_run_peak_memory_bytes", "Peak memory of this process, in bytes.", registry=registry)
    peak.set_function(peak_memory)
    try:
        server, thread = start_http_server(port, addr=HOST, registry=registry)
    except OSError as error:
        raise UsageError(f"port {port} {why_no_port(error)}; choose another --metrics-port") from error
    try:
        yield count
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def count_pages(registry: CollectorRegistry) -> Callable[[PageRecord], None]:
    """Return a function to call with each page, which counts the page in *registry*."""
    from prometheus_client import Counter, Histogram

    pages = Counter("olmocr_pages", "Pages finished, by outcome.", ["status"], registry=registry)
    attempts = Counter("olmocr_attempts", "How often the model was asked.", registry=registry)
    read = Counter("olmocr_input_tokens", "Tokens read for accepted answers.", registry=registry)
    written = Counter("olmocr_output_tokens", "Tokens written, for any answer.", registry=registry)
    passes = Counter("olmocr_passes", "Passes over the weights for tokens written.", registry=registry)
    ends = Counter("olmocr_attempts_ended", "Attempts, by how they ended.", ["end"], registry=registry)
    servers = (
        Counter("olmocr_server_pages", "Pages answered, by server.", ["server"], registry=registry),
        Counter("olmocr_server_output_tokens", "Tokens of accepted answers, by server.", ["server"], registry=registry),
        Counter("olmocr_server_page_seconds", "Seconds of pages, by server.", ["server"], registry=registry),
    )
    what = "From the first question to the last answer."
    seconds = Histogram("olmocr_page_seconds", what, registry=registry, buckets=SECONDS)

    def count(page: PageRecord) -> None:
        pages.labels(page.status).inc()
        attempts.inc(page.attempts)
        read.inc(page.input_tokens)
        written.inc(page.total_output_tokens)
        passes.inc(page.passes)
        for end in page.ends:
            ends.labels(end).inc()
        seconds.observe(page.seconds)
        if page.server:
            for counter, value in zip(servers, (1, page.output_tokens, page.seconds), strict=True):
                counter.labels(page.server).inc(value)

    return count
