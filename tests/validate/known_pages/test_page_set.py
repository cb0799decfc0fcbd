"""Pages whose true text is known, from a folder or built in."""

import pytest

from olmocr.errors import InputError
from olmocr.validate.known_pages.page_set import read_page_set
from tests.conftest import PAGES


def test_pages_come_with_their_own_true_text(tmp_path):
    pages = read_page_set([PAGES / "report_22.pdf", PAGES / "digital_01.pdf"])
    assert [page.page_number for page in pages] == [1, 2, 3, 1]
    assert pages[2].truth == ""
    assert pages[3].truth.startswith("# Harbour Library Newsletter")
    with pytest.raises(InputError, match="contains no documentss"):
        read_page_set([tmp_path])
