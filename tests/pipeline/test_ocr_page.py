import asyncio
from dataclasses import replace

import pytest
from PIL import Image

from olmocr.errors import AnswerError, InputError
from olmocr.page import MAX_TOTAL_TOKENS, PAGE_PROMPT, ModelResponse, PageImage, PageRequest
from olmocr.pipeline.ocr_page import Terms, ocr_page
from tests.clocks import run_skipping
from tests.pipeline.doubles import Model, answer

IMAGE = PageImage(Image.new("RGB", (20, 10), "white"))


def read(*script, **terms):
    model = Model(*script)
    return asyncio.run(ocr_page(IMAGE, model.ask, Terms(**terms))), model.requests


async def until_the_time_is_over():
    """Let 1000 seconds pass at once, and never come to an end."""
    asyncio.get_running_loop().skip(1000)
    await asyncio.Event().wait()


def test_a_good_answer_is_taken_at_once_and_greedily():
    result, requests = read(answer())
    assert result.page.natural_text == "Hello"
    assert [request.temperature for request in requests] == [0.0]
    assert (result.attempts, result.rejected) == (1, ())


def test_a_bad_answer_is_asked_again_at_the_temperatures_of_upstreams_ladder():
    result, requests = read(answer(finish_reason="length"))
    assert [request.temperature for request in requests] == [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 1.0]
    assert result.page is None
    assert result.attempts == 8


def test_every_attempt_has_another_seed():
    _, requests = read(answer(finish_reason="length"))
    assert len({request.seed for request in requests}) == 8


def test_an_answer_that_was_cut_is_not_accepted_though_it_parses():
    result, _ = read(answer(finish_reason="length", output_tokens=8000), answer("Whole"))
    assert result.page.natural_text == "Whole"
    assert result.rejected == ("finish_reason is 'length' after 8000 tokens",)


def test_an_answer_that_does_not_parse_says_why():
    result, _ = read(answer(turn=45), answer())
    assert "rotation_correction is '45'" in result.rejected[0]


def test_an_exchange_beyond_the_context_is_not_accepted():
    result, _ = read(answer(input_tokens=16000, output_tokens=400), answer())
    assert result.rejected == ("16400 tokens exceed the limit of 16384",)


def test_an_exchange_that_fills_the_context_is_accepted():
    result, _ = read(answer(input_tokens=16000, output_tokens=384), answer())
    assert (result.rejected, result.attempts) == ((), 1)


def test_a_page_that_is_upside_down_is_turned_and_asked_again():
    result, requests = read(answer(valid=False, turn=180), answer("Right way up"))
    assert [request.image.rotation for request in requests] == [0, 180]
    assert (result.page.natural_text, result.rotation) == ("Right way up", 180)


def test_a_page_that_was_turned_is_a_new_question_asked_greedily():
    _, requests = read(answer(valid=False, turn=90), answer())
    assert [request.temperature for request in requests] == [0.0, 0.0]


def test_corrections_add_up_from_the_page_as_it_was_rendered():
    _, requests = read(answer(valid=False, turn=270), answer(valid=False, turn=180), answer())
    assert [request.image.rotation for request in requests] == [0, 270, 90]
    assert requests[2].image.pixels.size == (10, 20)


def test_a_page_that_is_turned_to_and_fro_is_not_asked_the_same_for_ever():
    result, requests = read(answer(valid=False, turn=180))
    assert [request.temperature for request in requests] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert result.attempts == 8


def test_a_page_that_every_answer_calls_turned_keeps_the_last_whole_one():
    script = [answer(f"Try {number}", valid=False, turn=90) for number in range(3)]
    result, _ = read(*script, answer("Cut", valid=False, turn=90, finish_reason="length"), max_attempts=4)
    assert (result.page.natural_text, result.page.is_rotation_valid) == ("Try 2", False)
    assert (result.rotation, result.attempts, len(result.rejected)) == (180, 4, 4)
    assert result.answer == script[2]


def test_of_a_page_called_turned_an_answer_with_text_is_kept_before_one_without():
    result, _ = read(answer("Text", valid=False, turn=90), answer("", valid=False, turn=90), max_attempts=4)
    assert result.page.natural_text == "Text"
    result, _ = read(answer("", valid=False, turn=90))
    assert (result.page.natural_text, result.page.is_rotation_valid) == (None, False)


def test_the_files_own_text_is_not_given_up_for_an_answer_without_any():
    model = Model(answer("", valid=False, turn=90))
    assert asyncio.run(ocr_page(IMAGE, model.ask, text_layer="Typed")).page is None
    assert asyncio.run(ocr_page(IMAGE, model.ask, text_layer=" \n")).page is not None


def test_an_answer_that_calls_the_page_turned_is_kept_where_the_time_is_over_later():
    async def ask(request):
        if request.image.rotation:
            await until_the_time_is_over()
        return answer("Sideways", valid=False, turn=90)

    result = run_skipping(ocr_page(IMAGE, ask, Terms(timeout=500)))
    assert (result.page.natural_text, result.rotation) == ("Sideways", 0)
    assert result.rejected[-1] == "the page took more than 500 s"


@pytest.mark.parametrize("reason", ["length", "loop", "time"])
def test_an_answer_that_is_not_whole_and_calls_the_page_turned_turns_it(reason):
    result, requests = read(answer(valid=False, turn=180, finish_reason=reason), answer("Right way up"))
    assert [request.image.rotation for request in requests] == [0, 180]
    assert [request.temperature for request in requests] == [0.0, 0.0]
    assert (result.page.natural_text, result.rotation) == ("Right way up", 180)
    assert result.rejected[0].endswith("; the page is turned: correction 180")


@pytest.mark.parametrize(
    "broken",
    [
        replace(answer(valid=False, turn=90), input_tokens=MAX_TOTAL_TOKENS),
        ModelResponse(answer(valid=False, turn=90).text.replace("is_table: False", "is_table: maybe"), "stop", 1, 1),
        ModelResponse(answer(valid=False, turn=90).text.partition("is_table")[0], "length", 1, 1),
    ],
)
def test_an_answer_that_is_otherwise_bad_turns_the_page_all_the_same(broken):
    _, requests = read(broken, answer())
    assert [request.image.rotation for request in requests] == [0, 90]


def test_a_cut_answer_that_calls_the_page_upright_does_not_turn_it_whatever_the_correction():
    _, requests = read(answer(valid=True, turn=180, finish_reason="length"), answer())
    assert [request.image.rotation for request in requests] == [0, 0]
    assert [request.temperature for request in requests] == [0.0, 0.1]


def test_an_answer_that_went_round_in_circles_turns_the_page_though_it_ended_by_itself():
    result, requests = read(answer(valid=False, turn=90), answer(), is_looping=lambda text: "False" in text[:60])
    assert requests[1].image.rotation == 90
    assert "in circles" in result.rejected[0]


def test_no_more_attempts_are_made_than_allowed():
    result, requests = read(answer(finish_reason="length"), max_attempts=3)
    assert len(requests) == result.attempts == 3


def test_an_image_that_the_model_refuses_is_not_asked_again():
    result, requests = read(InputError("too narrow"), answer())
    assert len(requests) == 1
    assert result.rejected == ("too narrow",)


def test_an_answer_that_took_too_long_is_a_failed_attempt_and_asked_again():
    result, requests = read(answer(finish_reason="time", output_tokens=700), answer("Whole"), time_limit=60.0)
    assert [request.time_limit for request in requests] == [60.0, 60.0]
    assert result.page.natural_text == "Whole"
    assert result.rejected == ("the answer ran out of time after 700 tokens",)


def test_how_each_attempt_ended_is_recorded_in_order():
    reasons = ["length", "loop", "time", "stop"]
    script = [answer(turn=45), AnswerError("no text"), *(answer(finish_reason=reason) for reason in reasons)]
    result, _ = read(*script)
    assert result.ends == ("stop", "failed", *reasons)
    assert len(result.rejected) == 5
    assert read(InputError("too narrow"))[0].ends == ("failed",)


def test_an_attempt_that_was_cut_short_by_the_pages_own_time_is_cancelled():
    async def ask(request):
        await until_the_time_is_over()

    result = run_skipping(ocr_page(IMAGE, ask, Terms(timeout=500)))
    assert result.ends == ("cancelled",)
    assert result.rejected == ("the page took more than 500 s",)


def test_passes_of_all_attempts_are_added_up():
    script = [replace(answer(turn=45), passes=30), replace(answer(), passes=12)]
    assert read(*script)[0].passes == 42


def test_a_page_tells_every_number_of_all_its_attempts():
    script = (
        replace(answer(finish_reason="length", output_tokens=300), passes=40),
        AnswerError("the server sent nothing"),
        replace(answer(output_tokens=20), passes=7),
    )
    result, _ = read(*script)
    assert result.output_tokens == 320
    assert result.passes == 47
    assert result.ends == ("length", "failed", "stop")
    assert (result.attempts, result.temperature, result.rotation) == (3, 0.2, 0)
    assert result.rejected == ("finish_reason is 'length' after 300 tokens", "the server sent nothing")


def test_a_model_is_told_all_that_the_terms_and_the_file_say():
    model = Model(answer(finish_reason="length"), answer())
    terms = Terms(prompt="Read.", max_tokens=123, guided="retries", time_limit=4.5)
    asyncio.run(ocr_page(IMAGE, model.ask, terms, text_layer="as in the file"))
    first, second = model.requests
    assert first == PageRequest(IMAGE, "Read.", 0.0, 123, 1, False, "as in the file", 4.5)
    assert second == replace(first, temperature=0.1, seed=2, guided=True)


def test_an_answer_may_have_8000_tokens_where_nothing_else_is_said():
    _, (request,) = read(answer())
    assert request == PageRequest(IMAGE, PAGE_PROMPT, 0.0, 8000, 1, False, None, None)


def test_seconds_are_told_to_the_millisecond():
    seconds = [read(answer())[0].seconds for _ in range(20)]
    assert seconds == [round(each, 3) for each in seconds]
