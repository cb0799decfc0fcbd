"""Pages to calibrate on are drawn alike each time, hold what their texts say, and are none of the demo's."""

import re
from collections import Counter

import pytest

from olmocr.calibration.drawn_pages import SEED, draw_pages
from olmocr.page import parse_page_response
from olmocr.rendering.render import open_document
from tests.conftest import ROOT

SIDE = 644


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_pages(tmp_path_factory.mktemp("drawn"), SIDE)


def words(text):
    return re.findall(r"\w+", text.lower())


def runs(text, length):
    found = words(re.sub(r"<[^>]+>", " ", text))
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def test_half_of_24_pages_are_clean_and_the_others_are_of_each_kind_twice(drawn):
    kinds = Counter(page.kind for page in drawn)
    assert kinds.pop("clean") == 12
    assert kinds == dict.fromkeys(("blurred", "skewed", "faint", "narrow", "slanted", "small"), 2)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_pages(drawn, tmp_path):
    for name in ("again", "other"):
        (tmp_path / name).mkdir()
    again, other = draw_pages(tmp_path / "again", SIDE), draw_pages(tmp_path / "other", SIDE, SEED + 1)
    assert [page.path.read_bytes() for page in again] == [page.path.read_bytes() for page in drawn]
    assert not {page.truth for page in other} & {page.truth for page in drawn}


def test_each_text_is_in_the_page_format_as_in_training(drawn):
    for page in drawn:
        answer = parse_page_response(page.path.with_suffix(".md").read_text(encoding="utf-8").rstrip(), "strict")
        assert answer.natural_text == page.truth
        assert answer.is_table == ("<table>" in page.truth)


def test_a_page_that_is_not_a_scan_contains_the_words_of_its_text(drawn):
    compared = 0
    for page in drawn:
        with open_document(page.path, page.path.name) as document:
            layer = document.text(1)
        if layer is not None:
            assert words(layer) == words(re.sub(r"<[^>]+>", " ", page.truth))
            compared += 1
    assert compared == 16


def test_no_line_and_no_five_words_in_a_row_stand_in_the_demos_pages(drawn):
    demo = [path.read_text(encoding="utf-8").split("---\n")[-1] for path in sorted((ROOT / "demo").glob("*/*.md"))]
    assert len(demo) > 35
    lines = {line for text in demo for line in text.splitlines() if line}
    theirs = set().union(*(runs(text, 5) for text in demo))
    for page in drawn:
        own = set(page.truth.splitlines()) - {"", "<table>", "</table>"}
        assert not own & lines
        assert not runs(page.truth, 5) & theirs
