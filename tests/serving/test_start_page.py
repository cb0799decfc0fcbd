"""The page at / of the server: what it is made of, and in a real browser what a person does with it."""

import asyncio
import re

import pytest

from olmocr.errors import AnswerError, ServerUnavailableError
from olmocr.serving.start_page import start_page
from tests.browser import BROWSER, running_tab, running_trap
from tests.pipeline.doubles import Reader, answer, write_numbered_pdf
from tests.serving.uploaded import HeldBack, reading
from tests.viewer.workspaces import hostile_texts
from tests.waiting import until

in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")

STATE, DONE = (
    "document.querySelector('article .state').textContent",
    "document.querySelector('.again:not([hidden])') !== null",
)
TEXTS = "[...document.querySelectorAll('pre')].map((each) => each.textContent)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with running_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def pdf(tmp_path):
    return lambda *numbers, name="a b.pdf": write_numbered_pdf(tmp_path / name, numbers)


def test_the_page_may_load_nothing_and_asks_its_own_server_only():
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', start_page())
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "connect-src &#39;self&#39;" in policy
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', start_page())


def test_the_page_is_shown_without_a_key_and_in_no_frame_and_tells_nothing_that_a_key_is_for():
    with reading(api_key="secret") as server, server.client() as client:
        reply = client.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert "scripted" not in reply.text
    assert reply.text == start_page()


def test_the_page_is_answered_to_this_machines_own_names_only():
    with reading() as server, server.client() as client:
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403


@in_a_browser
def test_a_document_that_is_chosen_appears_page_by_page_with_progress(tab, pdf):
    reader = HeldBack()
    with reading(reader) as server:
        tab.open(server.url)
        assert tab.wait_for("document.getElementById('model').textContent") == ", with scripted"
        tab.choose("#file", pdf(1, 2, 0, 4))
        tab.wait_for(f"{STATE}.startsWith('3 of 4 pages')")
        assert tab.value(TEXTS) == ["page 1", "page 4"]
        assert tab.value("document.querySelector('progress').position") == 0.75
        reader.release.set()
        tab.wait_for(DONE)
        assert tab.value(TEXTS) == ["page 1", "page 2", "page 4"]
        assert tab.value("document.querySelectorAll('section')[2].innerText").split("\n")[-1] == "This page is blank."
        assert tab.value(STATE).startswith("4 pages in ")
        assert tab.value("document.querySelector('h2').textContent") == "a b.pdf"
    assert [each for each in tab.said if "favicon" in each] == []


@in_a_browser
def test_a_document_that_is_dropped_anywhere_is_read_and_only_the_pages_that_are_wanted(tab, pdf):
    with reading() as server:
        tab.open(server.url)
        tab.value("document.getElementById('pages').value = '2-'")
        tab.drop(pdf(5, 6, 7), y=700)
        tab.wait_for(DONE)
        assert tab.value(TEXTS) == ["page 6", "page 7"]
        tab.drop(pdf(8, 9, name="c.pdf"), pdf(1, 3, name="d.pdf"))
        tab.wait_for("document.querySelectorAll('.again:not([hidden])').length === 3")
        assert tab.value(TEXTS) == ["page 3", "page 9", "page 6", "page 7"]


@in_a_browser
def test_the_markdown_is_copied_and_downloaded_as_the_server_has_it(tab, pdf, tmp_path):
    with reading() as server:
        content = pdf(1, 0, 3).read_bytes()
        markdown = server.post("/v1/ocr", content=content, headers={"accept": "text/markdown"}).text
        tab.open(server.url)
        tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        tab.choose("#file", pdf(1, 0, 3))
        tab.wait_for(DONE)
        tab.value("document.querySelector('.download').click()")
        until(lambda: (tmp_path / "a b.md").exists() and (tmp_path / "a b.md").read_text())
        assert (tmp_path / "a b.md").read_text() == markdown == "page 1\npage 3"
        tab.value("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }")
        tab.value("document.querySelector('.copy').click()")
        tab.wait_for("document.querySelector('.copy').textContent === 'Copied'")
        assert tab.value("copied") == markdown


@in_a_browser
def test_if_a_key_is_required_the_page_asks_for_it_and_continues(tab, pdf):
    with reading(api_key="secret") as server:
        tab.open(server.url)
        tab.wait_for("document.activeElement.id === 'key'")
        tab.choose("#file", pdf(7))
        for key, said in (("wrong", "wants its"), ("secret", "is wrong")):
            tab.wait_for(f"document.forms[0].innerText.includes('{said}') && !document.forms[0].hidden")
            tab.value("document.getElementById('key').focus()")
            tab.type(key)
            tab.press("Enter")
        tab.wait_for(DONE)
        assert tab.value(TEXTS) == ["page 7"]


@in_a_browser
def test_all_of_it_works_with_the_keyboard(tab, pdf):
    with reading() as server:
        tab.open(server.url)
        tab.choose("#file", pdf(7))
        tab.wait_for(DONE)
        reached = []
        for _ in range(6):
            tab.press("Tab")
            reached.append(tab.value("document.activeElement.id || document.activeElement.className"))
        assert reached == ["skip", "file", "pages", "copy", "download", "again"]
        assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.press("Enter")
        tab.wait_for(f"{DONE} && {STATE}.startsWith('1 page in')")


@in_a_browser
def test_a_document_that_is_refused_says_why_and_the_next_one_is_read(tab, pdf, tmp_path):
    (tmp_path / "page.pdf").write_bytes(b"<html>")
    with reading() as server:
        tab.open(server.url)
        tab.choose("#file", tmp_path / "page.pdf", pdf(7))
        tab.wait_for("document.querySelectorAll('.again:not([hidden])').length === 2")
        shown = "document.querySelectorAll('article')[1].querySelector('.error').textContent"
        assert "page.pdf is a web page" in tab.value(shown)
        assert tab.value(TEXTS) == ["page 7"]


@in_a_browser
def test_what_was_read_before_a_failure_stays_and_it_can_be_read_again(tab, pdf):
    script = {2: [ServerUnavailableError("this server is closing"), answer("second")]}
    with reading(Reader(script), at_once=1) as server:
        tab.open(server.url)
        tab.choose("#file", pdf(1, 2))
        tab.wait_for(DONE)
        assert tab.value("document.querySelector('article .error').textContent") == "this server is closing"
        assert tab.value(STATE) == "Ended after 1 page."
        assert tab.value(TEXTS) == ["page 1"]
        tab.value("document.querySelector('.again').click()")
        tab.wait_for(f"{DONE} && {STATE}.startsWith('2 pages in')")
        assert tab.value(TEXTS) == ["page 1", "second"]
        assert tab.value("document.querySelector('article .error').hidden")


@in_a_browser
def test_a_document_that_is_stopped_is_read_no_further_by_the_server(tab, pdf):
    class Endless(Reader):
        async def ask(self, request):
            self.open += 1
            try:
                await asyncio.sleep(60)
            finally:
                self.open -= 1

    reader = Endless()
    with reading(reader) as server:
        tab.open(server.url)
        tab.choose("#file", pdf(1, 2))
        until(lambda: reader.open == 2)
        tab.choose("#file", pdf(3, name="waits.pdf"))
        tab.value("document.querySelectorAll('.stop').forEach((each) => each.click())")
        until(lambda: reader.open == 0)
        assert tab.value(STATE) == "Stopped before the first page."
        assert tab.value("document.querySelectorAll('.again:not([hidden])').length") == 2


@in_a_browser
def test_pages_without_a_good_answer_say_so(tab, pdf):
    with reading(Reader({7: [AnswerError("no words")]})) as server:
        tab.open(server.url)
        tab.choose("#file", pdf(7))
        tab.wait_for(DONE)
        assert tab.value("document.querySelector('.note').textContent") == (
            "The model gave no good answer; this is the file's own text (no words)."
        )


@in_a_browser
def test_hostile_text_is_shown_as_text_and_loads_nothing(tab, pdf):
    with running_trap() as trap:
        texts = [text for text in hostile_texts(trap.url) if text.strip()]
        script = {number: [answer(text)] for number, text in enumerate(texts, 1)}
        with reading(Reader(script)) as server:
            tab.open(server.url)
            tab.choose("#file", pdf(*script))
            tab.wait_for(DONE, seconds=60)
            assert len(tab.value(TEXTS)) == len(texts)
            assert tab.value("document.querySelectorAll('pre *').length") == 0
            assert not tab.value("'harmed' in document.documentElement.dataset")
    assert trap.asked == []


@in_a_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_nothing_is_wider_than_the_window(tab, pdf, width):
    with reading(Reader({1: [answer("W" * 400)]})) as server:
        tab.open(server.url, width=width, dark=True)
        assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 27)"
        tab.choose("#file", pdf(1, name="n" * 120 + ".pdf"))
        tab.wait_for(DONE)
        assert tab.value("document.documentElement.scrollWidth") == width
