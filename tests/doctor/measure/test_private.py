"""No name of a person, of a machine or of a folder is in a sentence that is sent."""

from pathlib import Path

import pytest

from olmocr.doctor.measure.private import person_and_machine, private_names, without_names


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("/mnt/x/olmOCR-8bit/config.json is damaged", "olmOCR-8bit/config.json is damaged"),
        ("/mnt/x/olmOCR-8bit-old is another folder", "/mnt/x/olmOCR-8bit-old is another folder"),
        ("mona@studio.local: no room", "…@…: no room"),
        ("no monastery is studious", "no monastery is studious"),
        ("cannot open /Users/somebody/Library/x", "cannot open ~/Library/x"),
        ("cannot open '/home/else'", "cannot open '~'"),
    ],
)
def test_names_are_left_out_and_what_only_looks_like_one_stays(sentence, told):
    paths = {"/mnt/x/olmOCR-8bit": "olmOCR-8bit"}
    assert without_names(sentence, paths, ("mona", "studio.local", "studio")) == told


def test_folders_are_told_by_what_may_be_said_of_them(tmp_path):
    told = private_names({"demo": tmp_path})
    assert without_names(f"{tmp_path}/pages/a.pdf", told, ()) == "demo/pages/a.pdf"
    assert without_names(f"{Path.home()}/.cache is full", told, ()) == "~/.cache is full"


def test_short_names_are_not_looked_for():
    assert all(len(name) >= 3 for name in person_and_machine())
