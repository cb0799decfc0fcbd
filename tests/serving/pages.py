"""Four pages of one document, made by hand: every way in which a page can end, and no number twice."""

from pathlib import Path

from olmocr.inputs.sources import Source
from olmocr.page import PageResponse
from olmocr.pipeline.page_records import blank_record
from olmocr.workspace.document import Document, PageRecord

FIRST_TRY = PageRecord(
    page_number=1,
    status="valid",
    response=PageResponse("en", True, 0, True, False, "One <table>"),
    model="scripted",
    attempts=1,
    temperature=0.0,
    finish_reason="stop",
    input_tokens=1100,
    output_tokens=31,
    total_output_tokens=31,
    coverage=0.9,
    seconds=2.0,
    ends=("stop",),
    passes=11,
)

TURNED_AND_RETRIED = PageRecord(
    page_number=2,
    status="valid",
    response=PageResponse("de", True, 0, False, True, "Zwei"),
    model="scripted",
    attempts=3,
    rejected=("the page is turned: correction 90", "finish_reason is 'loop' after 400 tokens"),
    rotation=90,
    temperature=0.1,
    guided=True,
    finish_reason="stop",
    input_tokens=1300,
    output_tokens=47,
    total_output_tokens=500,
    coverage=0.1,
    seconds=7.5,
    ends=("stop", "loop", "stop"),
    passes=170,
)

BLANK = blank_record(3)

FALLEN_BACK = PageRecord(
    page_number=4,
    status="fallback",
    response=PageResponse(None, True, 0, False, False, "as in the file"),
    model="scripted",
    attempts=2,
    rejected=("no memory", "the page took more than 60 s"),
    total_output_tokens=90,
    seconds=60.25,
    ends=("failed", "cancelled"),
    passes=30,
)

PAGES = (FIRST_TRY, TURNED_AND_RETRIED, BLANK, FALLEN_BACK)

DOCUMENT = Document(Source("four.pdf", Path("four.pdf")), "00ff", PAGES, page_count=9)
