"""The harder demo pages are what their script draws, hold the text that is said to be true, and are small."""

import sys

import numpy as np
import pytest

from olmocr.rendering.render import open_document
from olmocr.validate.known_pages.page_set import read_page_set
from tests.conftest import ROOT

HARD = ROOT / "demo" / "hard"
PAGES = read_page_set([HARD])


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "demo"))
    try:
        import harder_pages
    finally:
        sys.path.remove(str(ROOT / "demo"))
    return harder_pages


@pytest.fixture(scope="module")
def drawn(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard")
    script.draw(folder)
    return folder


def pixels_of(path):
    with open_document(path, path.name) as document:
        return np.asarray(document.render(1, 644).pixels, np.int16)


def test_the_script_draws_the_pages_that_are_there(script, drawn):
    assert {path.name for path in drawn.iterdir()} == {path.name for path in HARD.iterdir()}
    for page in script.hard_pages():
        here, there = drawn / f"{page.name}.pdf", HARD / f"{page.name}.pdf"
        assert here.with_suffix(".md").read_bytes() == there.with_suffix(".md").read_bytes()
        if page.damage is None:
            assert here.read_bytes() == there.read_bytes(), page.name
        else:  # as another version of PDFium or of libjpeg would make it
            assert np.abs(pixels_of(here) - pixels_of(there)).mean() < 2, page.name


def test_what_is_drawn_is_the_true_text(script):
    truths = {page.path.stem: page.truth for page in PAGES}
    for page in script.hard_pages():
        assert truths[page.name] == page.truth
        with open_document(HARD / f"{page.name}.pdf", page.name) as document:
            text = document.text(1)
            if page.damage is None and not page.is_table:
                assert text.split() == page.truth.split(), page.name
            elif page.damage:
                assert text is None, page.name


def test_they_are_small_enough_for_a_repository():
    assert sum(path.stat().st_size for path in HARD.iterdir()) < 1_000_000
