"""Whose text a page is calibrated on: answers that are whole, true texts, text layers, in the page format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from olmocr.calibration.drawn_pages import front_matter
from olmocr.calibration.texts import (
    PageText,
    asked_text,
    first_of,
    joined_lines,
    kept_text,
    layer_text,
    remembered,
    true_text,
)
from olmocr.errors import AnswerError
from olmocr.page import ModelResponse, PageImage, parse_page_response
from olmocr.validate.fidelity.reading import PageAnswer
from olmocr.validate.known_pages.drawing import Type, text_sheet, write_pdf
from olmocr.validate.known_pages.page_set import KnownPage, pages_of

IMAGE = PageImage(Image.new("RGB", (20, 30), "white"))
ANSWER = front_matter("en") + "Read me."
TURNED = ANSWER.replace("is_rotation_valid: True", "is_rotation_valid: False").replace(
    "correction: 0", "correction: 90"
)
PAGE = KnownPage(None, 1)


class Model:
    """Answers what it is given, in turn, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    async def ask(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def response(text, finish_reason="stop"):
    return ModelResponse(text, finish_reason, 10, 10)


def pdf(folder, text=None, paragraphs=("Nothing else.",)):
    path = write_pdf(folder / "page.pdf", [text_sheet(paragraphs, Type(18))])
    if text is not None:
        path.with_suffix(".md").write_text(text, encoding="utf-8")
    return pages_of(path)[0]


def test_a_whole_answer_is_taken_as_it_was_written():
    model = Model(response(ANSWER))
    assert asked_text(model.ask, "a conversion's answers")(PAGE, IMAGE) == PageText("a conversion's answers", ANSWER)
    assert [request.temperature for request in model.requests] == [0]


def test_a_page_that_is_turned_is_asked_again_upright():
    model = Model(response(TURNED), response(ANSWER))
    assert asked_text(model.ask, "")(PAGE, IMAGE) == PageText("", ANSWER, 90)
    assert [request.image.rotation for request in model.requests] == [0, 90]


def test_a_page_that_is_called_turned_however_it_lies_has_no_answer():
    model = Model(response(TURNED), response(TURNED))
    assert asked_text(model.ask, "")(PAGE, IMAGE) is None
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    "answer", [response(ANSWER, "length"), response(ANSWER, "loop"), response("Read me."), AnswerError("no answer")]
)
def test_an_answer_that_is_cut_or_breaks_the_format_is_none(answer):
    assert asked_text(Model(answer).ask, "")(PAGE, IMAGE) is None


def test_what_was_answered_is_not_asked_again(tmp_path):
    model = Model(response(ANSWER))
    way = remembered(tmp_path, asked_text(model.ask, "a conversion's answers"))
    assert way(PAGE, IMAGE) == way(PAGE, IMAGE)
    assert len(model.requests) == 1


def test_a_kept_answer_that_cannot_be_read_is_asked_for_again(tmp_path):
    model = Model(response(ANSWER), response(ANSWER))
    way = remembered(tmp_path, asked_text(model.ask, ""))
    way(PAGE, IMAGE)
    for path in tmp_path.iterdir():
        path.write_text("{")
    assert way(PAGE, IMAGE) == PageText("", ANSWER)
    assert len(model.requests) == 2


def kept(finish_reason="stop"):
    return {("hash", 1): PageAnswer((5, 6), ANSWER, finish_reason, 180, False, 1.0)}


def test_an_answer_that_the_source_gave_before_is_taken_token_by_token():
    found = kept_text(kept(), lambda page: "hash")(PAGE, IMAGE)
    assert (found.text, found.rotation, found.tokens) == (ANSWER, 180, (5, 6))


def test_an_answer_that_the_source_did_not_end_and_one_of_another_page_are_not_taken():
    assert kept_text(kept("length"), lambda page: "hash")(PAGE, IMAGE) is None
    assert kept_text(kept(), lambda page: "another")(PAGE, IMAGE) is None


def test_the_first_way_that_knows_a_text_is_taken():
    ways = [
        lambda page, image: None,
        lambda page, image: PageText("two", ""),
        lambda page, image: PageText("three", ""),
    ]
    assert first_of(tuple(ways))(PAGE, IMAGE).whose == "two"
    assert first_of(tuple(ways[:1]))(PAGE, IMAGE) is None


def test_a_true_text_without_a_front_matter_is_given_one(tmp_path):
    assert true_text(pdf(tmp_path, "Read me.\n"), IMAGE) == PageText("true text", ANSWER)


def test_a_true_text_with_a_front_matter_is_taken_as_the_model_writes_it(tmp_path):
    german = ANSWER.replace(": en", ": de")
    assert true_text(pdf(tmp_path, german + "\n"), IMAGE) == PageText("true text", german)
    empty = front_matter(None)
    assert true_text(pdf(tmp_path, empty), IMAGE).text == empty.rstrip()


def test_the_true_text_of_a_page_that_is_turned_is_that_of_the_page_upright(tmp_path):
    assert true_text(pdf(tmp_path, TURNED), IMAGE) == PageText("true text", ANSWER, 90)


def test_a_page_without_a_text_beside_it_has_no_true_text(tmp_path):
    assert true_text(pdf(tmp_path), IMAGE) is None


def test_a_text_layer_is_put_into_the_page_format(tmp_path):
    paragraphs = ("One paragraph is so long that it takes more than a line of the page.", "And this is another one.")
    text = layer_text(pdf(tmp_path, paragraphs=paragraphs), IMAGE)
    assert parse_page_response(text.text, "strict").natural_text == "\n\n".join(paragraphs)
    assert text.whose == "text layer"


def test_a_page_without_a_text_layer_has_none(tmp_path):
    assert layer_text(pdf(tmp_path, paragraphs=()), IMAGE) is None


def test_a_word_that_was_cut_at_the_end_of_a_line_is_made_whole():
    assert joined_lines("A line that was cut in the mid-\ndle of a word, and more") == (
        "A line that was cut in the middle of a word, and more"
    )


@given(st.text(alphabet="ab .\n"))
def test_joining_lines_keeps_every_letter(text):
    assert joined_lines(text).split() == text.split()
