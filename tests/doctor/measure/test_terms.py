"""The demo is found in a clone, and nowhere is it pretended."""

import pytest

from olmocr.doctor.measure.terms import MeasureTerms, find_demo
from olmocr.errors import UsageError
from tests.conftest import CHECKPOINT, PAGES, ROOT


def test_the_demo_of_the_clone_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = find_demo()
    assert (demo.checkpoint, demo.pages) == (CHECKPOINT, PAGES)
    assert demo.known_conversions.is_file()


def test_a_folder_that_is_named_has_to_hold_it(tmp_path):
    assert find_demo(ROOT / "demo").checkpoint == CHECKPOINT
    with pytest.raises(UsageError, match=r"has no checkpoint/ and pages/; run this in the folder of a clone"):
        find_demo(tmp_path)


def test_pages_are_as_large_as_suits_the_model():
    assert MeasureTerms(find_demo()).longest_side == 644


def test_quick_terms_have_less_of_everything():
    full, quick = MeasureTerms(find_demo()), MeasureTerms(find_demo(), is_quick=True)
    for name in ("rounds", "stock_pages", "many_pages"):
        assert getattr(quick, name) < getattr(full, name)
