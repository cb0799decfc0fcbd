"""The page to look at: what it shows, in which order, and that nothing in it runs."""

import dataclasses
import re

import pytest

from olmocr.errors import UsageError
from olmocr.publish.scan import scan_folder
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.html import FIDELITY_HTML_FILE, fidelity_html, html_target, write_fidelity_html
from tests.browser import BROWSER, browse, running_trap
from tests.validate.fidelity.comparisons import comparison, reading
from tests.viewer.workspaces import hostile_texts

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


def articles(html):
    return re.findall(r'<article class="page".*?</article>', html, re.DOTALL)


def test_the_pages_come_worst_first_and_those_that_are_the_same_are_folded(tmp_path):
    pages = [("same", "same"), ("a little wrong here", "a little wring here"), ("all", "nothing of it")]
    html = fidelity_html(comparison(tmp_path, pages))
    assert [re.search(r"page_\d", each)[0] for each in articles(html)] == ["page_2", "page_1", "page_0"]
    assert ['<details class="whole">' in each for each in articles(html)] == [False, False, True]


def test_a_page_that_only_the_model_did_not_read_comes_before_all_others(tmp_path):
    pages = [("one", "other"), ("same", reading("same", valid=False, rejected=("a loop", "no front matter")))]
    html = fidelity_html(comparison(tmp_path, pages))
    first = articles(html)[0]
    assert "page_1" in first
    assert "2 answers refused" in first
    assert "<li>no front matter</li>" in first


def test_what_differs_is_marked_and_numbers_with_a_frame(tmp_path):
    html = fidelity_html(comparison(tmp_path, [("Total 12.50 due", "Total 13.50 owed")]))
    (article,) = articles(html)
    assert '<del><b class="number">12.50</b> due</del><ins><b class="number">13.50</b> owed</ins>' in article


def test_answers_that_are_alike_are_shown_once_with_all_who_gave_them(tmp_path):
    found = comparison(tmp_path, [("one", "one", "two", "two")], ["8bit", "4bit", "3bit"], sizes=[3, 2, 1])
    (article,) = articles(fidelity_html(found))
    assert article.count("<h4>") == 3
    assert re.search(r"<h4>8bit</h4><p[^>]*>As the source", article)
    assert "<h4>4bit, 3bit <span" in article


def test_an_answer_that_differs_in_its_front_matter_only_is_shown_with_it(tmp_path):
    other = reading("text", front=reading("").greedy.text.replace("en", "de", 1))
    (article,) = articles(fidelity_html(comparison(tmp_path, [("text", other)])))
    assert "<del>en</del><ins>de</ins>" in article


def test_spaces_that_differ_are_shown(tmp_path):
    (article,) = articles(fidelity_html(comparison(tmp_path, [("one two", "one\ntwo")])))
    assert "<del>\u2423</del><ins>\u21b5\n</ins>" in article


def test_only_so_many_pages_are_shown_and_all_are_listed(tmp_path):
    html = fidelity_html(comparison(tmp_path, [(f"text {number}", f"txt {number}") for number in range(4)]), 2)
    assert len(articles(html)) == html.count("<img ") == 2
    assert len(set(re.findall(r"page_\d\.png", html))) == 4
    assert "The 2 worst of 4 pages are shown in full." in html


def test_the_verdict_of_the_limits_is_told_in_words(tmp_path):
    found = comparison(tmp_path, [("a", "a", "a")], ["8bit", "4bit"], sizes=[2, 1])
    gates = read_gates()
    reports = tuple(dataclasses.replace(each, gate=check_gates(each, gates)) for each in found.reports)
    found = dataclasses.replace(found, reports=reports)
    html = fidelity_html(found)
    assert "1 of 2 models meet their limits; 8bit breaks them." in html
    assert "8bit broke most_mean_kl of 8bit (gates.yaml): it is 0.001, measured was 0.1" in html


def test_it_is_refused_in_a_models_folder_and_a_folder_that_has_it_is_not_published(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(UsageError, match="name a file outside it"):
        html_target(model / "look.html", [model])
    with pytest.raises(UsageError, match="name a file outside it"):
        html_target(model, [model])
    assert html_target(tmp_path, [model]) == tmp_path / FIDELITY_HTML_FILE
    (model / FIDELITY_HTML_FILE).write_text("pages")
    scan = scan_folder(model)
    assert scan.files == ()
    assert scan.problems == (f"{FIDELITY_HTML_FILE} is not part of a model; take it out of the folder",)


def hostile(folder, url):
    texts = hostile_texts(url)
    everything = "\n".join(texts)
    pages = [(text, "other " + text, text) for text in texts]
    pages.append((everything, everything.replace("a", "b"), reading(everything, valid=False, rejected=tuple(texts))))
    return comparison(
        folder, pages, [everything, "4bit"], source=everything, page_set=everything, machine=everything,
        device=everything, weights={everything: everything}, versions={everything: everything},
    )  # fmt: skip


def test_hidden_characters_are_shown_by_their_names(tmp_path):
    html = fidelity_html(comparison(tmp_path, [("a\u202eb\x1b[2J\x00", "a\ufeff")]))
    assert re.search("[\u202e\x1b\x00\ufeff]", html) is None
    assert "a\\u202eb\\x1b[2J\\x00" in html


@needs_browser
def test_hostile_text_runs_nowhere_loads_nothing_and_is_shown(tmp_path):
    with running_trap() as trap:
        page = tmp_path / "report.html"
        write_fidelity_html(page, hostile(tmp_path, trap.url))
        document, console = browse(page, tmp_path / "profile")
    assert re.search("<html[^>]*>", document)[0] == '<html lang="en">'
    assert "<script" not in document
    assert "&lt;script&gt;" in re.sub(r"</?(?:span|del|ins|b)\b[^>]*>", "", document)
    assert (console, trap.asked) == ([], [])


@needs_browser
def test_were_something_let_through_the_policy_would_stop_it(tmp_path):
    with running_trap() as trap:
        page = tmp_path / "report.html"
        html = fidelity_html(comparison(tmp_path, [("MARK", "MARK")]))
        assert html.count(">MARK<") == 1
        unsafe = "\n".join(text for text in hostile_texts(trap.url) if "refresh" not in text)
        page.write_bytes(html.replace(">MARK<", f">{unsafe}<").encode("utf-8", "replace"))
        document, console = browse(page, tmp_path / "profile")
    assert "data-harmed" not in re.search("<html[^>]*>", document)[0]
    assert trap.asked == []
    assert console, "the test could not see what a console says"


@needs_browser
@pytest.mark.parametrize("width", [500, 1000, 1600])
def test_nothing_reaches_over_the_side(tmp_path, width):
    page = tmp_path / "report.html"
    write_fidelity_html(page, hostile(tmp_path, "http://127.0.0.1:9"))
    measure = "document.documentElement.dataset.width=`${document.documentElement.scrollWidth} ${innerWidth}`"
    html = re.sub("<meta http-equiv[^>]*>", "", page.read_text()).replace(
        "</body>", f"<script>{measure}</script></body>"
    )
    page.write_text(html)
    document, _ = browse(page, tmp_path / "profile", width=width)
    scroll, inner = map(int, re.search(r'data-width="(\d+) (\d+)"', document).groups())
    assert scroll <= inner


@needs_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_no_table_and_no_plot_has_a_part_that_is_out_of_sight(tmp_path, width):
    texts = ["a little wrong here", "a little wring here", "a little wrong here", "other", "a little wrong here"]
    names = ["8bit", "mixed-large", "mixed", "mixed-small"]
    page = tmp_path / "report.html"
    write_fidelity_html(
        page, comparison(tmp_path, [tuple(texts)], names, sizes=[9 * 10**9, 7 * 10**9, 6 * 10**9, 10**9])
    )
    measure = (
        "const cut=[...document.querySelectorAll('.scroll')].filter(each=>each.scrollWidth>each.clientWidth).length;"
        "document.documentElement.dataset.cut=`${document.querySelectorAll('.scroll').length} ${cut}`"
    )
    html = re.sub("<meta http-equiv[^>]*>", "", page.read_text()).replace(
        "</body>", f"<script>{measure}</script></body>"
    )
    page.write_text(html)
    document, _ = browse(page, tmp_path / "profile", width=width)
    found, cut = map(int, re.search(r'data-cut="(\d+) (\d+)"', document).groups())
    assert found >= 5
    assert cut == 0
