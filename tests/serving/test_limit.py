"""Everything that is admitted, at its limit and at once: what docs/serve.md says that it may take."""

import base64
import contextlib
import io
import json
import re
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from olmocr.serving.limits import ServerLimits
from olmocr.serving.requests.pictures import MOST_PIXELS
from tests.conftest import ROOT
from tests.serving.servers import CHAT, OCR
from tests.waiting import until

MOST_BYTES = 1 << 30

SERVER = """
import asyncio
from olmocr.page import ModelResponse
from olmocr.serving.app import make_app
from olmocr.serving.server import address, listen, serve

async def ask(request, on_text):
    await asyncio.sleep(0.5)
    return ModelResponse("x" * 30_000, "stop", 1, 1)

listening = listen("127.0.0.1", 0, has_key=False)
print(address(listening), flush=True)
asyncio.run(serve(make_app(ask, "m"), listening, grace=0))
"""


@pytest.fixture
def url():
    """Where a server answers that has all its memory to itself."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        found = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as client:
            until(lambda: is_well(client, found))
        yield found
        process.kill()


def is_well(client, url):
    with contextlib.suppress(httpx.TransportError):
        return client.get(f"{url}/health").status_code == 200


def metric(url, name):
    text = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text
    return float(re.search(rf"^{name} (.+)$", text, re.MULTILINE)[1])


def largest_picture():
    """Return the picture of most pixels that takes the most memory: transparent, and small as a file."""
    buffer = io.BytesIO()
    Image.new("RGBA", (8000, MOST_PIXELS // 8000), (9, 9, 9, 99)).save(buffer, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": uri}}
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": [part]}]}).encode()


def status(url, path, content):
    return httpx.post(url + path, content=content, trust_env=False, timeout=300).status_code


@pytest.mark.slow
def test_everything_that_is_admitted_at_once_fits_beside_a_model(url):
    most = ServerLimits.request_bytes
    bodies = (
        largest_picture(),
        json.dumps({"model": "m", "a": "\U0001f600" + "a" * (most - 1000)}, ensure_ascii=False).encode(),
        b"[" * 90_000,
        b'{"a": [' + b"[]," * 33_000 + b"[]]}",
        b'{"a": "' + b"a" * (most - 1000) + b'"}',
    )
    before = metric(url, "olmocr_peak_memory_bytes")
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(40) as threads:
        for path in (CHAT, OCR) * 200:
            connection = opened.enter_context(socket.create_connection((host, int(port))))
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {most}\r\n\r\n"
            connection.sendall(head.encode() + b"a" * 60_000)
        asked = [threads.submit(status, url, CHAT, body) for _ in range(12) for body in bodies]
        counts = Counter(each.result() for each in asked)
    assert set(counts) <= {200, 400, 429}, counts
    assert counts[200]
    assert metric(url, "olmocr_peak_memory_bytes") - before < MOST_BYTES
    assert status(url, CHAT, bodies[0]) == 200


def test_the_documents_say_what_is_held_here():
    text = (ROOT / "docs" / "serve.md").read_text()
    assert f"{MOST_BYTES >> 30} GiB in addition to the model" in text
    limits = ServerLimits()
    for bytes_of in (limits.held_bytes, limits.picture_bytes, limits.request_bytes):
        assert f"{bytes_of >> 20} MiB" in text
    for number in (limits.connections, limits.pages_in_hand, limits.upload_bytes >> 30):
        assert re.search(rf"\b{number}\b", text.replace(",", ""))
