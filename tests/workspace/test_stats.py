import dataclasses
from dataclasses import replace

import pytest

from olmocr.errors import InputError
from olmocr.workspace.document import Failure
from olmocr.workspace.records import KnownDocument, Records
from olmocr.workspace.stats import Stats, read_stats, stats_lines
from tests.four_pages import FOUR, SHA, VALID


def keep(folder, states, pages=FOUR):
    """Keep documents of these states with one content, and its pages."""
    with Records(folder) as records:
        for page in pages:
            records.add_page(SHA, page)
        for at, state in enumerate(states):
            why = "broken" if state == "failed" else None
            sha256 = None if state == "failed" else SHA
            records.add_document(KnownDocument(str(at), f"{at}.pdf", "", sha256, "", 4, state, why))


def test_stats_count_each_kind_and_what_lies_there_twice_once(tmp_path):
    keep(tmp_path, ["done", "failed", "done", "filtered"])
    assert read_stats(tmp_path) == Stats(
        documents={"done": 2, "failed": 1, "filtered": 1},
        pages={"blank": 1, "fallback": 1, "valid": 2},
        poor_pages=1,
        askew_pages=0,
        attempts={1: 1, 3: 1},
        ends={"stop": 2, "loop": 1, "failed": 1, "length": 1, "cancelled": 1},
        languages={"en": 1, "de": 1},
        input_tokens=2100,
        output_tokens=500,
        wasted_output_tokens=670,  # 600 of the retried page, 70 of that which fell back
        passes_a_token=0.682,  # 750 for the 1100 tokens of the two pages that passes are told of
        long_documents=0,
        failures=(Failure("1.pdf", "broken"),),
        servers={"http://mac:8000/v1": {"pages": 1, "output_tokens": 200, "seconds": 4.0}},
    )


def test_stats_are_told_in_lines(tmp_path):
    keep(tmp_path, ["done", "failed"])
    assert stats_lines(read_stats(tmp_path)) == [
        "documents: 1 done, 1 failed; 0 with more than 32768 tokens",
        "pages:     1 blank, 1 fallback, 2 valid; 1 perhaps incomplete",
        "attempts:  1 pages after 1, 1 pages after 3; ended by: 2 stop, 1 loop, 1 failed, 1 length, 1 cancelled",
        "languages: 1 en, 1 de",
        "tokens:    2100 read, 500 written, 670 written in answers that were not accepted, 0.68 passes a token",
        "servers:   http://mac:8000/v1 1 pages, 4.0 s each",
        "failed:    1.pdf: broken",
    ]


def test_an_empty_workspace_has_none_of_anything(tmp_path):
    keep(tmp_path, [], pages=())
    assert stats_lines(read_stats(tmp_path)) == [
        "documents: none; 0 with more than 32768 tokens",
        "pages:     none; 0 perhaps incomplete",
        "attempts:  none; ended by: none",
        "languages: none",
        "tokens:    0 read, 0 written, 0 written in answers that were not accepted",
    ]


@pytest.mark.parametrize(("tokens", "long"), [(32768, 0), (32769, 1)])
def test_a_document_is_long_from_the_first_token_over_the_line_on(tokens, long, tmp_path):
    keep(tmp_path, ["done"], [dataclasses.replace(VALID, output_tokens=tokens, total_output_tokens=tokens)])
    assert read_stats(tmp_path).long_documents == long


def test_a_folder_without_records_is_not_a_workspace(tmp_path):
    with pytest.raises(InputError, match=r"has no workspace\.sqlite; run olmocr with it first"):
        read_stats(tmp_path)


def test_stats_of_a_workspace_that_may_not_be_written_are_read_from_a_copy_with_its_log(tmp_path, monkeypatch):
    with Records(tmp_path) as records:
        records.add_page(SHA, FOUR[0])
        records.add_document(KnownDocument("k", "a.pdf", "", SHA, "", 1, "done"))
        before = sorted(path.name for path in tmp_path.iterdir())
        monkeypatch.setattr("olmocr.workspace.records.os.access", lambda path, mode: False)
        assert read_stats(tmp_path).documents == {"done": 1}, "it stands in the log only"
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_pages_that_every_answer_calls_turned_are_told_where_there_are_any(tmp_path):
    askew = replace(FOUR[0], response=replace(FOUR[0].response, is_rotation_valid=False))
    keep(tmp_path, ["done"], pages=[askew])
    assert stats_lines(read_stats(tmp_path))[1] == "pages:     1 valid; 0 perhaps incomplete, 1 never found upright"


@pytest.mark.parametrize("name", ["gone", "d" * 300])
def test_what_no_disk_has_is_not_a_workspace(name, tmp_path):
    with pytest.raises(InputError, match="is not a workspace"):
        read_stats(tmp_path / name)
