"""Two texts, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.fidelity.word_diff import MOST_WORDS, Stretch, word_diff


def differing(before, after):
    return [(each.before, each.after) for each in word_diff(before, after) if not each.is_same]


def test_words_that_are_others_are_told():
    assert differing("The cat sat here", "The dog sat here now") == [("cat", "dog"), ("", " now")]


def test_two_words_beside_two_others_are_one_change():
    assert differing("a cat sat down", "a dog ran down") == [("cat sat", "dog ran")]


def test_a_tables_cells_are_compared_one_by_one():
    before = "<tr><td>Oak</td><td>1,479.68</td></tr>"
    after = "<tr><td>Oak</td><td>1,479.88</td></tr>"
    assert differing(before, after) == [("1,479.68", "1,479.88")]
    (change,) = [each for each in word_diff(before, after) if not each.is_same]
    assert change.numbers == ("1,479.68", "1,479.88")


def test_a_change_of_words_alone_is_none_of_numbers():
    (change,) = [each for each in word_diff("7 men", "7 women") if not each.is_same]
    assert change.numbers is None


def test_scripts_without_spaces_are_compared_character_by_character():
    assert differing("東京都の人口", "東京府の人口") == [("都", "府")]


def test_a_line_end_that_is_missing_is_a_change():
    assert differing("one\ntwo", "one two") == [("\n", " ")]


def test_the_same_text_is_one_stretch_and_no_text_none():
    assert word_diff("a b", "a b") == (Stretch("a b", "a b"),)
    assert word_diff("", "") == ()
    assert word_diff("", "a") == (Stretch("", "a"),)


@given(st.text("ab <>\n1京", max_size=40), st.text("ab <>\n1京", max_size=40))
def test_nothing_of_either_text_is_lost(before, after):
    stretches = word_diff(before, after)
    assert "".join(each.before for each in stretches) == before
    assert "".join(each.after for each in stretches) == after


def test_of_texts_that_went_round_in_circles_no_more_is_compared_than_a_bound_and_nothing_is_lost():
    before, after = "the same words over " * MOST_WORDS, "and again words of the " * MOST_WORDS
    stretches = word_diff(before, after)
    assert len(stretches[-1].after) > 0.85 * len(after), "of ten times the bound"
    assert "".join(each.after for each in stretches) == after
