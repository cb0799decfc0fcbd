import io
import logging

import pytest
from rich.console import Console

from olmocr.inputs.sources import find_sources
from olmocr.pipeline.terminal.display import Display, shown_run
from olmocr.stages import Downloading, FindingDocuments, FirstText, Loading
from olmocr.terminal.command import LINE_EVERY_SECONDS
from tests.four_pages import VALID
from tests.pipeline.doubles import write_pdf
from tests.terminal.test_stage_view import Clock


@pytest.fixture
def source(tmp_path):
    return find_sources([str(write_pdf(tmp_path / f"{'long ' * 30}.pdf"))])[0]


def drawn(display, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(display)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_from_the_first_second_to_the_last_page_there_is_something_to_see_that_fits(width, source):
    clock = Clock()
    display, seen = Display(logs_lines=False, clock=clock), []

    def look():
        clock.now += 60
        seen.append(drawn(display, width))

    display.on_stage(FindingDocuments(3))
    look()
    display.on_document(source, 2, 2)
    look()
    display.on_stage(Downloading("a/b", 1, 10))
    look()
    display.on_stage(Loading("b"))
    look()
    display.on_stage(FirstText("---\na: b\n---\nThe first words"))
    look()
    display.on_page(source, VALID)
    look()
    assert [lines[0].split(":")[0].strip() for lines in seen[:1] + seen[2:5]] == [
        "finding documents", "downloading a/b", "loading b", "reading the first page",
    ]  # fmt: skip
    assert "0 of 2+ pages" in seen[1][0]
    assert "The first words" in seen[4][1]
    assert "1 of 2+ pages  0.5 pages/min  about 10 min left" in seen[5][0]
    assert seen[5][1].startswith("0 of 3 documents, last: ")
    assert max(len(line) for lines in seen for line in lines) <= width


def test_where_nobody_looks_there_is_a_line_now_and_then(source, caplog):
    clock = Clock()
    display = Display(logs_lines=True, clock=clock)
    with caplog.at_level(logging.INFO, "olmocr"):
        display.on_document(source, 9, 0)
        display.on_stage(Loading("b"))
        assert caplog.messages == []
        clock.now = LINE_EVERY_SECONDS
        display.on_stage(FirstText("abc"))
        display.on_stage(FirstText("abcd"))
        clock.now *= 2
        display.on_page(source, VALID)
    first, second = caplog.messages
    assert first == "reading the first page: 0 s, 3 letters so far"
    assert second.startswith("1 of 9 pages, 0 of 1 documents, 2.0 pages/min, about 4 min left, ")


def test_quiet_draws_nothing(source):
    console = Console(file=io.StringIO(), force_terminal=True)
    with shown_run(console, quiet=True) as display:
        display.on_stage(FindingDocuments(1))
    assert console.file.getvalue() == ""
