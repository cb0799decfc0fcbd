"""Four pages made by hand, of each kind one: what is reported of them is worked out by hand in each test."""

from pathlib import Path

from olmocr.inputs.sources import Source
from olmocr.page import PageResponse
from olmocr.workspace.document import Document, PageRecord

VALID = PageRecord(
    page_number=1,
    status="valid",
    response=PageResponse("en", True, 0, True, False, "One"),
    model="m-4bit",
    attempts=1,
    finish_reason="stop",
    input_tokens=1000,
    output_tokens=200,
    total_output_tokens=200,
    coverage=0.95,
    seconds=4.0,
    ends=("stop",),
    passes=50,
    server="http://mac:8000/v1",
)
RETRIED = PageRecord(
    page_number=2,
    status="valid",
    response=PageResponse("de", True, 0, False, True, "Zwei"),
    model="m-8bit",
    attempts=3,
    rejected=("went round in circles", "no words"),
    rotation=90,
    temperature=0.2,
    guided=True,
    finish_reason="stop",
    input_tokens=1100,
    output_tokens=300,
    total_output_tokens=900,
    coverage=0.5,
    seconds=9.0,
    ends=("loop", "failed", "stop"),
    passes=700,
    asked="1288 pixels, prompt c12f21ac",
)
FALLBACK = PageRecord(
    page_number=3,
    status="fallback",
    response=PageResponse(None, True, 0, False, False, "the file's own"),
    model="m-4bit",
    attempts=2,
    rejected=("cut", "the page took more than 60 s"),
    total_output_tokens=70,
    seconds=60.25,
    ends=("length", "cancelled"),
)
BLANK = PageRecord(page_number=4, status="blank", response=PageResponse(None, True, 0, False, False, None))

FOUR = (VALID, RETRIED, FALLBACK, BLANK)

SHA = "ab" * 32
DOCUMENT = Document(Source("in/a.pdf", Path("in/a.pdf")), SHA, FOUR, page_count=7)
