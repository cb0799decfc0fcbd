"""A reader whose model is scripted, for a process of Ray's: it tells a page's number after a while."""

import asyncio
import contextlib

from olmocr.backends.choice import Answering
from olmocr.pipeline.cluster.desk import Desk
from tests.pipeline.doubles import answer, number_of


class ScriptedDesk(Desk):
    """Answers with the number of a page that :func:`~tests.pipeline.doubles.write_numbered_pdf` made, as a Reader does.

    *seconds* is what an answer takes.
    """

    def __init__(self, seconds, terms, fetch):
        async def ask(request):
            number = number_of(request.image.pixels)
            await asyncio.sleep(seconds)
            return answer(f"page {number}")

        @contextlib.asynccontextmanager
        async def answering():
            yield Answering(ask, terms.named)

        super().__init__(terms, fetch, open_answering=answering)
