import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.pipeline.coverage import coverage
from olmocr.rendering.render import open_document
from olmocr.workspace.document import LOW_COVERAGE
from tests.conftest import PAGES

LAYER = "The harbour library opens its reading room at nine and closes at five on every day of the week except Sunday."


def layer_of(pdf, page_number):
    with open_document(PAGES / pdf, pdf) as pages:
        return pages.text(page_number)


def test_the_demos_true_texts_cover_their_pages(truth):
    shares = [coverage(layer_of(*page), entry["natural_text"]) for page, entry in truth.items()]
    known = [share for share in shares if share is not None]
    assert len(known) > 12
    assert min(known) > 0.9


def test_an_answer_without_half_of_the_page_is_low(truth):
    for (pdf, number), entry in truth.items():
        answer = entry["natural_text"] or ""
        whole = coverage(layer_of(pdf, number), answer)
        half = coverage(layer_of(pdf, number), answer[: len(answer) // 2])
        assert whole is None or half < LOW_COVERAGE < whole


def test_an_answer_to_another_page_is_low():
    assert coverage(LAYER, "A recipe: boil twelve eggs, peel them, and serve with salt.") < 0.3


def test_no_answer_covers_nothing():
    assert coverage(LAYER, None) == 0
    assert coverage(LAYER, "") == 0


@pytest.mark.parametrize("layer", [None, "", "Page 7 of 12", "word " * 19])
def test_a_layer_of_few_words_is_not_a_measure(layer):
    assert coverage(layer, "whatever") is None


@pytest.mark.parametrize(
    "layer",
    ["\ue001\ue002\ue003 " * 40, "\ufffd\ufffd word " * 40, "T h i s i s a l a y e r " * 10, "\x01\x02\x03ab " * 40],
)
def test_a_layer_that_is_garbage_is_not_a_measure(layer):
    assert coverage(layer + LAYER[:40], "whatever") is None


def test_a_word_that_is_there_twice_must_be_found_twice():
    words = " ".join(f"word{n}" for n in range(20))
    assert coverage(f"{words} {words}", words) == 0.5


@pytest.mark.parametrize(
    ("layer", "answer"),
    [
        ("inter-\nnational co-\r\noperation is well-known", "international cooperation is well-known"),
        ("inter\ufffe\nnational", "international"),
        ("the eﬃcient ﬁsh", "the efficient fish"),
        ("Café Zoë", "Cafe\u0301 Zoe\u0308"),
        ("HEADING in capitals", "# Heading in *capitals*"),
        ("Total 1,479.68 & more", "<tr><td>Total</td><td>1,479.68</td></tr> &amp; more"),
        ("water is H2O and E = mc2", "water is H<sub>2</sub>O and \\(E = mc^{2}\\)"),
        ("snake_case", "`snake_case` or snake\\_case"),
        ("don\u2019t \u201cquote\u201d this", 'don\'t "quote" this'),
        ("pages 5\u201390", "pages 5-90"),
        ("東京都の図書館は毎日\n九時に開館します", "東京都の\n図書館は毎日九時に開館します"),
        ("ห้องสมุดเปิด ทุกวัน", "ห้องสมุดเปิดทุกวัน"),
        ("Библиотека открыта", "библиотека **открыта**"),
        ("مكتبة المدينة", "مكتبة المدينة"),
    ],
)
def test_what_is_written_otherwise_is_the_same_word(layer, answer):
    assert coverage(f"{LAYER} {layer}", f"{answer} {LAYER}") == 1


@given(st.text(), st.text())
def test_it_is_a_share_or_nothing(layer, answer):
    share = coverage(layer, answer)
    assert share is None or 0 <= share <= 1


@given(st.text(min_size=20))
def test_a_page_covers_itself_unless_it_is_not_a_measure(text):
    assert coverage(f"{LAYER}\n{text}", f"{LAYER}\n{text.replace('<', '').replace('&', '').replace(chr(92), '')}") != 0
