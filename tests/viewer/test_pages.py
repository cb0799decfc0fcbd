"""The index has as many pages as its documents need, each with a name of its own."""

from types import SimpleNamespace

import pytest

from olmocr.viewer.pages import Look, count_of_index_pages, index_name


@pytest.mark.parametrize(("documents", "pages"), [(0, 1), (1, 1), (10, 1), (11, 2), (95, 10)])
def test_the_index_has_a_page_for_each_so_many_documents_and_at_least_one(documents, pages):
    assert count_of_index_pages(SimpleNamespace(documents=documents), Look("title", at_once=10)) == pages


def test_each_page_of_the_index_has_a_name_and_the_first_is_where_a_browser_looks():
    names = [index_name(at) for at in range(1, 6)]
    assert names[0] == "index.html"
    assert len(set(names)) == len(names)


def test_a_look_of_another_title_or_choice_makes_other_pages():
    looks = [Look("one"), Look("two"), Look("one", chosen="failed"), Look("one", is_served=True)]
    assert len({look.made_of for look in looks}) == len(looks)
    assert Look("one").made_of == Look("one").made_of
