"""Answers that a source gave in earlier measurements are found again by its weights, and by what a page holds."""

from olmocr.files import sha256_of
from olmocr.validate.fidelity.distributions import KeptDistributions
from olmocr.validate.fidelity.earlier import earlier_answers, is_anything_kept, write_asked
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.fidelity.work import PageMeasurement, Work
from olmocr.validate.known_pages.page_set import KnownPage

WEIGHTS = {"model.safetensors": "ab" * 32}


def measured(folder, documents, answers, weights=WEIGHTS):
    """Write what a measurement leaves in *folder*: of *documents*, the first so many with *answers*."""
    write_asked(folder, weights, [KnownPage(path, 1) for path in documents], 644)
    for number, tokens in enumerate(answers):
        answer = PageAnswer(tokens, "text", "stop", 0, False, 1.0)
        reading = PageReading(answer, True, "stop", True, 1, (), False, 1.0)
        Work(folder / "source").keep(number, PageMeasurement(reading, 10, 1.0), KeptDistributions(*[[]] * 5))


def documents(folder):
    paths = [folder / f"{name}.pdf" for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_answers_are_found_by_what_their_document_holds_wherever_it_lies(tmp_path):
    one, other = documents(tmp_path)
    measured(tmp_path / "work" / "key", [one, other], [(1, 2), (3,)])
    found = earlier_answers(tmp_path / "work", WEIGHTS, 644)
    assert {key: answer.tokens for key, answer in found.items()} == {
        (sha256_of(one), 1): (1, 2),
        (sha256_of(other), 1): (3,),
    }


def test_a_page_that_a_stopped_measurement_did_not_read_has_no_answer(tmp_path):
    one, other = documents(tmp_path)
    measured(tmp_path / "key", [one, other], [(1, 2)])
    assert list(earlier_answers(tmp_path, WEIGHTS, 644)) == [(sha256_of(one), 1)]


def test_answers_of_other_weights_and_to_pages_of_another_size_are_not_taken(tmp_path):
    measured(tmp_path / "key", documents(tmp_path), [(1,), (2,)])
    assert earlier_answers(tmp_path, {"model.safetensors": "cd" * 32}, 644) == {}
    assert earlier_answers(tmp_path, WEIGHTS, 1288) == {}


def test_what_cannot_be_read_is_passed_over(tmp_path):
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "asked.json").write_text("{")
    assert earlier_answers(tmp_path, WEIGHTS, 644) == {}


def test_it_is_told_whether_anything_is_kept(tmp_path):
    assert not is_anything_kept(tmp_path / "nothing")
    measured(tmp_path / "key", documents(tmp_path), [])
    assert is_anything_kept(tmp_path)
