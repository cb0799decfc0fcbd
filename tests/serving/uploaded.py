"""Documents that the tests send, and what comes back."""

import asyncio
import json
import tempfile

from tests.pipeline.doubles import Reader
from tests.serving.servers import running

PDF = {"content-type": "application/pdf"}


class HeldBack(Reader):
    """Answers page 2 only once it is let go."""

    def __init__(self):
        super().__init__()
        self.release = asyncio.Event()

    async def ask(self, request):
        response = await super().ask(request)
        while response.text.endswith("page 2") and not self.release.is_set():
            await asyncio.sleep(0.005)
        return response


def reading(reader=None, **options):
    reader = reader or Reader()
    return running(lambda request, on_text: reader.ask(request), **options)


def uploads(reading_server):
    return [path for path in reading_server.folder.rglob("*") if path.is_file()]


def lines_of(reply):
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def refused(reply, status, *words):
    assert reply.status_code == status
    message = reply.json()["error"]["message"]
    for word in words:
        assert word in message
    assert str(tempfile.gettempdir()) not in message


def by_number(lines):
    return {line["page_number"]: line for line in lines if line["type"] == "page"}
