"""The pages that are drawn on the spot: the same bytes whenever that is."""

import re

from olmocr.validate.known_pages.built_in_pages import draw_built_in_pages


def test_no_page_tells_when_it_was_drawn(tmp_path):
    written = b"".join(page.path.read_bytes() for page in draw_built_in_pages(tmp_path, 644))
    assert set(re.findall(rb"D:\d{4,}", written)) == {b"D:19700101000000"}


def test_two_drawings_are_the_same_bytes(tmp_path):
    pages = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        pages.append([page.path.read_bytes() for page in draw_built_in_pages(tmp_path / name, 644)])
    assert pages[0] == pages[1]
