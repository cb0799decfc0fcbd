"""Strangers' text in a card is shown and never obeyed."""

import pytest

from olmocr.publish.markup import code_block, escaped
from tests.publish.cards import rendered


@pytest.mark.parametrize("text", ["*a*", "_a_", "<b>", "[a](b)", "a | b", "`a`", "~~a~~", "&amp;", "$a$", ":smile:"])
def test_escaped_text_is_shown_as_it_is(text):
    html = rendered(f"| x {escaped(text)} |\n|-|\n")
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<th>x {shown}</th>" in html


def test_what_turns_the_direction_of_text_is_spelled_out():
    assert escaped("a\u202eb") == "a\\\\u202eb"


def test_code_is_fenced_by_more_backticks_than_it_holds():
    assert code_block("````").startswith("`````\n")
