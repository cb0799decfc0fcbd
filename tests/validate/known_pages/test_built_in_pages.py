"""The pages that are drawn on the spot: the same bytes whenever that is."""

import re

import pytest

from olmocr.rendering.render import open_document
from olmocr.validate.known_pages.built_in_pages import draw_built_in_pages
from olmocr.validate.known_pages.page_set import longest_side_for
from tests.conftest import CHECKPOINT


def test_no_page_tells_when_it_was_drawn(tmp_path):
    written = b"".join(page.path.read_bytes() for page in draw_built_in_pages(tmp_path, 644))
    assert set(re.findall(rb"D:\d{4,}", written)) == {b"D:19700101000000"}


def test_two_drawings_are_the_same_bytes(tmp_path):
    pages = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        pages.append([page.path.read_bytes() for page in draw_built_in_pages(tmp_path / name, 644)])
    assert pages[0] == pages[1]


def test_a_page_is_as_large_as_the_model_can_see(tmp_path):
    assert longest_side_for(CHECKPOINT) == 644
    assert longest_side_for(tmp_path) == 1288
    (tmp_path / "preprocessor_config.json").write_text('{"max_pixels": 12845056}')
    assert longest_side_for(tmp_path) == 1288


@pytest.mark.parametrize("side", [644, 1288])
def test_the_built_in_pages_hold_the_text_that_is_said_to_be_true(tmp_path, side):
    pages = {page.kind: page for page in draw_built_in_pages(tmp_path, side)}
    for kind in ("plain text", "small dense text", "numbers", "second of two"):
        known = pages[kind]
        with open_document(known.path, known.path.name) as document:
            assert document.text(known.page_number).split() == known.truth.split()
    with open_document(pages["scan"].path, "scan") as document:
        assert document.text(1) is None
