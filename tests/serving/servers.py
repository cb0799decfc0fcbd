"""Our server on the loopback interface, with whatever is passed in for a model, and what to ask it."""

import asyncio
import base64
import contextlib
import io
import threading
import time
from dataclasses import fields

import httpx
from PIL import Image

from olmocr.serving.app import make_app
from olmocr.serving.limits import ServerLimits
from olmocr.serving.server import address, listen, serve
from tests.pipeline.doubles import answer
from tests.waiting import until

CHAT, RESPONSES, OCR = "/v1/chat/completions", "/v1/responses", "/v1/ocr"


class Writer:
    """Writes *pieces*, and then stops as *answer* does. Before a piece it waits for :meth:`go_on`, if it is to.

    *begun* and *cancelled* count the answers, *most_at_once* how many were open at a time.
    """

    def __init__(self, *pieces, waits=False, ends=None):
        self.pieces = pieces or ("---\n", "Hello")
        self.ends = ends or answer()
        self.begun = self.cancelled = self.open = self.most_at_once = 0
        self.requests = []
        self._waits = waits
        self._permits = threading.Semaphore(0)

    def go_on(self, count=1):
        self._permits.release(count)

    async def __call__(self, request, on_text):
        self.requests.append(request)
        self.begun += 1
        self.open += 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            return await self._write(on_text)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    async def _write(self, on_text):
        written = ""
        for piece in self.pieces:
            while self._waits and not self._permits.acquire(blocking=False):
                await asyncio.sleep(0.005)
            if isinstance(piece, BaseException):
                raise piece
            written += piece
            on_text(written)
            await asyncio.sleep(0)
        return answer_of(written, self.ends)


def answer_of(text, like):
    return type(like)(text, like.finish_reason, like.input_tokens, like.output_tokens)


class Server:
    def __init__(self, url, stop, loop):
        self.url = url
        self.stop = stop
        self._loop = loop

    def pause(self, seconds):
        """Let it do nothing for some time, so that it sees all that comes meanwhile at the same moment."""
        self._loop.call_soon_threadsafe(time.sleep, seconds)

    def client(self, **options):
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, verify=False, **options)

    def post(self, path, **options):
        with self.client() as client:
            return client.post(path, **options)


@contextlib.contextmanager
def running(write, *, grace=0.0, api_key=None, **options):
    """Serve *write* in a thread, and stop in the end. *options* are limits', or an application's."""
    limits = {field.name: options.pop(field.name) for field in fields(ServerLimits) if field.name in options}
    listening = listen("127.0.0.1", 0, has_key=False)
    url, loop, tasks = address(listening), asyncio.new_event_loop(), []

    async def main():
        app = make_app(write, "scripted", api_key=api_key, limits=ServerLimits(**limits), **options)
        tasks.append(asyncio.create_task(serve(app, listening, grace=grace)))
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]

    def run():
        with contextlib.closing(loop):
            loop.run_until_complete(main())

    thread = threading.Thread(target=run)
    thread.start()
    is_stopped = False

    def stop():
        nonlocal is_stopped
        if not is_stopped:
            is_stopped = True
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())

    until(lambda: tasks)
    try:
        with httpx.Client(trust_env=False, verify=False) as client:
            until(lambda: client.get(f"{url}/health", headers={"host": "localhost"}).status_code == 200)
        yield Server(url, stop, loop)
    finally:
        stop()
        thread.join(20)
        listening.close()


def picture(size=(56, 56), kind="PNG", **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, "white").save(buffer, format=kind, **options)
    return buffer.getvalue()


def data_uri(content=None, mime="image/png"):
    return f"data:{mime};base64," + base64.b64encode(picture() if content is None else content).decode()


def chat(url=None, text="Read this.", **fields):
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url or data_uri()}}]
    return {"model": "scripted", "messages": [{"role": "user", "content": parts}], **fields}


def response(url=None, text="Read this.", **fields):
    parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": url or data_uri()}]
    return {"model": "scripted", "input": [{"role": "user", "content": parts}], **fields}
