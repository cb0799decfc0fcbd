"""Hostile text in a real browser: nothing of it runs, and nothing is asked of a server."""

import re
import threading

import pytest

from olmocr.viewer.catalogue import Choice
from olmocr.viewer.katex import Katex
from olmocr.viewer.pages import Look
from olmocr.viewer.serve import ServedSite, address, make_server, set_site
from olmocr.viewer.site import opened_catalogue, write_site
from tests.browser import BROWSER, browse_url, opened, running_trap
from tests.viewer.workspaces import hostile_texts, write_hostile_workspace, write_record

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


@pytest.fixture
def trap():
    with running_trap() as trap:
        yield trap


def unsafe(url):
    """Return all hostile texts but the one that goes to another page."""
    return "\n".join(text for text in hostile_texts(url) if "refresh" not in text)


def write(path, html):
    path.write_bytes(html.encode("utf-8", "replace"))


def test_a_page_that_is_not_made_safe_is_harmed_and_does_ask(tmp_path, trap):
    page = tmp_path / "unsafe.html"
    write(page, f"<!doctype html><html><body>{unsafe(trap.url)}")
    root, _ = opened(page, tmp_path / "profile")
    assert "data-harmed" in root, "the test could not see harm"
    assert "/ran" in trap.asked


def test_hostile_text_runs_nowhere_and_loads_nothing(tmp_path, trap):
    write_hostile_workspace(tmp_path / "ws", trap.url)
    site = write_site(tmp_path / "ws", tmp_path / "site")
    pages = [site.index, *sorted((tmp_path / "site/documents").iterdir())]
    assert len(pages) == 6
    for page in pages:
        root, document = opened(page, tmp_path / "profile")
        assert "data-harmed" not in root
        assert ">Dark</button>" in document or ">Light</button>" in document
    assert trap.asked == []


def test_were_the_sanitiser_to_let_something_through_the_policy_would_stop_it(tmp_path, trap):
    write_record(tmp_path / "ws", ["MARK"], name="a.pdf")
    write_site(tmp_path / "ws", tmp_path / "site")
    (page,) = (tmp_path / "site/documents").iterdir()
    html = page.read_text()
    assert "<p>MARK</p>" in html
    write(page, html.replace("<p>MARK</p>", unsafe(trap.url)))
    root, _ = opened(page, tmp_path / "profile")
    assert "data-harmed" not in root
    assert trap.asked == []


def test_our_own_script_runs_under_the_policy(tmp_path):
    write_record(tmp_path / "ws", ["# One\n\nwords", "two words"], name="a.pdf")
    site = write_site(tmp_path / "ws", tmp_path / "site")
    (page,) = (tmp_path / "site/documents").iterdir()
    _, document = opened(page, tmp_path / "profile", "#page-2~words")
    assert 'aria-current="true"' in document
    assert re.search(r'<output id="found"[^>]*>2 of 2</output>', document)
    assert site.totals.documents == 1


def test_katex_that_came_with_a_page_typesets_its_equations(tmp_path):
    write_record(tmp_path / "ws", ["\\(x\\)\n\n\\[\ny\n\\]"], name="a.pdf")
    katex = "globalThis.katex = { render(tex, to, how) { to.textContent = `set ${tex.trim()} ${how.displayMode}`; } }"
    write_site(tmp_path / "ws", tmp_path / "site", katex=Katex(katex, ".katex { color: red }"))
    (page,) = (tmp_path / "site/documents").iterdir()
    _, document = opened(page, tmp_path / "profile")
    assert re.search(r'<span class="math typeset" title="[^"]*">set x false</span>', document)
    assert re.search(r'<div class="math display typeset" title="[^"]*">set y true</div>', document)


def test_a_server_that_makes_the_pages_is_asked_and_shows_the_place(tmp_path):
    write_record(tmp_path / "ws", ["# One\n\nwords", "two words </script>"], name="a.pdf")
    server = make_server(0)
    with opened_catalogue(tmp_path / "ws", tmp_path / "viewer", Choice()) as catalogue:
        set_site(server, ServedSite(catalogue, Look("ws", is_served=True)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            found, console = browse_url(f"{address(server)}?q=two", tmp_path / "profile")
            link = re.search(r'href="(documents/[^"]*#page-2~two)"', found)[1]
            page, _ = browse_url(address(server) + link, tmp_path / "profile")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    assert console == []
    assert re.search(r'<output id="found"[^>]*>1 page</output>', found)
    assert re.search(r'<output id="found"[^>]*>1 of 1</output>', page)
