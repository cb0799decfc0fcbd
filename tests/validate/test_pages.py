import pytest

from olmocr.errors import InputError
from olmocr.validate.pages import check_answers
from olmocr.validate.score import character_error_rate
from tests.conftest import PAGES

GOOD = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\nHi"
)


def check(path, mode="lenient"):
    return {
        answer.path.name: [(each.line, each.rule) for each in answer.breaks] for answer in check_answers(path, mode)
    }


def test_every_raw_answer_in_a_folder_is_checked(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "good.md").write_text(GOOD)
    (tmp_path / "below/bad.txt").write_text(GOOD.replace("False", "maybe"))
    (tmp_path / "picture.png").write_text("not looked at")
    assert check(tmp_path) == {"bad.txt": [(5, "value"), (6, "value")], "good.md": []}


def test_one_file_is_one_answer_whatever_its_ending(tmp_path):
    (tmp_path / "answer.raw").write_text(GOOD)
    assert check(tmp_path / "answer.raw") == {"answer.raw": []}


def test_strict_finds_what_lenient_forgives(tmp_path):
    (tmp_path / "a.md").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert check(tmp_path) == {"a.md": []}
    assert check(tmp_path, "strict") == {"a.md": [(1, "line-ends")]}


def test_the_demo_pages_pass_except_the_two_files_that_are_not_answers():
    broken = {name for name, breaks in check(PAGES, "strict").items() if breaks}
    assert broken == {"README.md", "report_22.md"}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "there is no file or folder"),
        (lambda path: path.mkdir(), "does not hold answers"),
        (lambda path: path.write_bytes(b"---\n\xff"), "is not UTF-8 text: byte 4 is 0xff"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(make, sentence, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(InputError, match=sentence):
        check(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "truth", "rate"), [("abc", "abc", 0), ("abd", "abc", 1 / 3), ("", "abc", 1), ("ab", "", 2), ("", "", 0)]
)
def test_the_character_error_rate_is_edits_over_true_characters(text, truth, rate):
    assert character_error_rate(text, truth) == pytest.approx(rate)


@pytest.mark.parametrize("name", ["gone", "d" * 300])
def test_what_no_disk_has_holds_no_answers(name, tmp_path):
    with pytest.raises(InputError, match="there is no file or folder"):
        check(tmp_path / name)
