import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.serving.document_formats import EVENTS, LINES, MARKDOWN, as_markdown, wanted_format


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", LINES),
        ("*/*", LINES),
        ("application/json", LINES),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", LINES),
        ("text/markdown", MARKDOWN),
        ("Text/Markdown ; charset=utf-8", MARKDOWN),
        ("text/markdown, */*", MARKDOWN),
        ("text/markdown;q=0.5, */*", LINES),
        ("text/markdown;q=0.5, application/x-ndjson;q=0.4", MARKDOWN),
        ("application/json;q=0.9, text/markdown;q=0.1", LINES),
        ("text/markdown;q=0", LINES),
        ("text/markdown;variant=GFM;q=0.000, text/event-stream;q=0.001", EVENTS),
        ("text/*", MARKDOWN),
        ("text/*, text/markdown;q=0", EVENTS),
        ("text/event-stream", EVENTS),
        ("application/json, text/event-stream", EVENTS),
        ("text/event-stream;q=0.2, text/markdown;q=0.8, */*;q=0.1", MARKDOWN),
        ("text/markdown;q=2, text/event-stream;q=x", LINES),
    ],
)
def test_a_client_gets_the_format_that_it_prefers_and_lines_where_it_names_none(accept, wanted):
    assert wanted_format(accept) == wanted


@given(st.text(alphabet='tex/markdown*;,=q.01 \t"', max_size=60))
def test_any_accept_header_leads_to_one_of_the_formats(accept):
    assert wanted_format(accept) in (LINES, EVENTS, MARKDOWN)


def page(number, text):
    return {"type": "page", "page_number": number, "text": text}


def markdown_of(*lines):
    async def told():
        for line in lines:
            yield line

    async def pieces():
        return [piece.decode() async for piece in as_markdown(told())]

    return asyncio.run(pieces())


def test_a_page_is_sent_when_all_before_it_are_read():
    about = {"type": "document", "pages": [1, 2, 5]}
    assert markdown_of(about, page(2, "two"), page(1, "one"), page(5, "five"), {"type": "summary"}) == [
        "one\n", "two\n", "five"
    ]  # fmt: skip


def test_pages_without_text_leave_no_line():
    about = {"type": "document", "pages": [1, 2]}
    assert markdown_of(about, page(2, None), page(1, "one")) == ["one\n"]
    assert markdown_of(about, page(1, None), page(2, None)) == []
