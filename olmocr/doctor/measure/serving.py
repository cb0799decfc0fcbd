"""``olmocr serve``, used once as other programs use it, in its own process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from olmocr.backends.client import ServerClient
from olmocr.doctor.measure.answers import MOST_ERRORS
from olmocr.doctor.measure.pages import MAX_TOKENS
from olmocr.doctor.measure.terms import Demo
from olmocr.errors import OlmocrError
from olmocr.page import PageRequest, text_below
from olmocr.rendering.render import open_document
from olmocr.reports.machine import MeasuredServing
from olmocr.validate.known_pages.page_set import pages_of
from olmocr.validate.score import character_error_rate, plain

PAGE = "digital_01.pdf"
DOCUMENT = "report_22.pdf"

_SECONDS = 900.0  # for a document
_GRACE = 30.0  # seconds for a server to end after the request

_SERVE = f"import sys; sys.path.append({str(Path(__file__).parents[3])!r})\nfrom olmocr.__main__ import main; main()"


def serve_once(model: Path, demo: Demo, longest_side: int) -> MeasuredServing:
    """Start a server, request a page as OpenAI's clients do, send a document, and stop the server."""
    started = time.perf_counter()
    command = [sys.executable, "-P", "-c", _SERVE, "serve", "--model", str(model), "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            url = _address(server)
            start_seconds = time.perf_counter() - started
            page, page_seconds = asyncio.run(_ask(url, demo, longest_side))
            document, document_seconds = _send(url, demo, longest_side)
            server.terminate()
            exit_code = server.wait(_GRACE)
        finally:
            server.kill()
    whole = pages_of(demo.pages / DOCUMENT)
    return MeasuredServing(
        start_seconds=start_seconds,
        page_seconds=page_seconds,
        document_seconds=document_seconds,
        document_pages=len(whole),
        page_right=_is_right(page, pages_of(demo.pages / PAGE)[0].truth or ""),
        document_right=_is_right(document, "\n\n".join(each.truth or "" for each in whole)),
        exit_code=exit_code,
    )


def _address(server: subprocess.Popen[str]) -> str:
    """Return the address of *server*, which it prints when its model is loaded."""
    line = server.stdout.readline() if server.stdout else ""
    found = re.search(r"http://[^/\s]+", line)
    if found is None:
        raise OlmocrError(f"olmocr serve ended with status {server.wait(_GRACE)} before it answered")
    return found[0]


async def _ask(url: str, demo: Demo, longest_side: int) -> tuple[str, float]:
    with open_document(demo.pages / PAGE, PAGE) as document:
        request = PageRequest(document.render(1, longest_side), max_tokens=MAX_TOKENS)
    async with ServerClient(f"{url}/v1", model="olmocr") as client:
        started = time.perf_counter()
        answer = await client.ask(request)
        return text_below(answer.text), time.perf_counter() - started


def _send(url: str, demo: Demo, longest_side: int) -> tuple[str, float]:
    body = (demo.pages / DOCUMENT).read_bytes()
    headers = {"Content-Type": "application/pdf", "Accept": "text/markdown"}
    request = Request(f"{url}/v1/ocr?longest_side={longest_side}", body, headers)  # noqa: S310 - to our own server
    started = time.perf_counter()
    with build_opener(ProxyHandler({})).open(request, timeout=_SECONDS) as answer:  # ignores the shell's proxy
        return answer.read().decode("utf-8"), time.perf_counter() - started


def _is_right(text: str, truth: str) -> bool:
    return character_error_rate(plain(text), plain(truth)) <= MOST_ERRORS
