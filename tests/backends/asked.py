"""How the tests ask a scripted server."""

import asyncio

import pytest
from PIL import Image

from olmocr.backends.client import ServerClient
from olmocr.page import ModelResponse, PageImage, PageRequest
from tests.backends.model_server import TEXT, ModelServer, chat_body, responses_body

REQUEST = PageRequest(PageImage(Image.new("RGB", (6, 4), "red")), temperature=0.2, max_tokens=50, seed=3)


READ = ModelResponse(TEXT, "stop", 100, 20)


WHOLE = {"chat": chat_body, "responses": responses_body}


apis = pytest.mark.parametrize("api", ["chat", "responses"])


def ask_server(server, request=REQUEST, **options):
    async def ask():
        async with ServerClient(server.url, **{"model": "olmocr", "timeout": 5, **options}) as client:
            return await client.ask(request)

    return asyncio.run(ask())


def ask(*script, **options):
    """Ask a server with this script once; return the answer."""
    with ModelServer(*script) as server:
        return ask_server(server, **options)
