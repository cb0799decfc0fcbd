"""What every kind of workspace promises, and keeps, in a folder with SQLite as in a store."""

import json
from pathlib import PurePath

import pytest

from olmocr.inputs.sources import Source
from olmocr.workspace.document import Failure
from tests.workspace.stores import SHA, Kind, document, page


@pytest.fixture(params=["folder", "memory", "file"])
def kind(request, tmp_path):
    return Kind(request.param, tmp_path / "ws")


@pytest.fixture
def source(tmp_path):
    return Source("scans/a.pdf", tmp_path / "scans/a.pdf")


def line(source, text="Hello", sha256=SHA):
    metadata = {"Source-File": source.name, "source-sha256": sha256}
    return {"id": "id of " + text, "text": text, "metadata": metadata}


# Pages.


def test_pages_come_in_order_and_the_last_of_a_number_counts(kind):
    with kind.memory() as memory:
        for each in (page(3), page(1, "old"), page(10), page(1, "new")):
            memory.add_page(SHA, each)
        memory.add_page("cd" * 32, page(2))
    with kind.memory() as memory:
        assert list(memory.pages(SHA)) == [1, 3, 10]
        assert memory.pages(SHA)[1].text == memory.page(SHA, 1).text == "new"
        assert memory.page(SHA, 2) is None


def test_every_field_of_a_page_is_kept_whatever_its_text(kind):
    record = page(2, "\ud800 \0 é", status="fallback", rejected=("why",), model="m", seconds=1.5, coverage=0.25)
    with kind.memory() as memory:
        memory.add_page(SHA, record)
    with kind.memory() as memory:
        assert memory.pages(SHA) == {2: record}


def test_a_page_is_there_for_others_before_anything_is_closed(kind):
    with kind.memory() as memory, kind.memory() as others:
        memory.add_page(SHA, page())
        assert list(others.pages(SHA)) == [1]


def test_a_page_that_fell_back_never_replaces_one_that_was_read(kind):
    with kind.memory() as memory:
        memory.add_page(SHA, page(1, "good"))
        memory.read_anew(SHA, [1])
        memory.add_page(SHA, page(1, "the file's own", status="fallback"))
        assert memory.pages(SHA)[1].text == "good"
        assert memory.numbers_to_replace(SHA) == {1}, "it was not read anew"


def test_a_fallback_is_finished_or_not_as_it_is_asked_for(kind):
    with kind.memory() as memory:
        memory.add_page(SHA, page(1))
        memory.add_page(SHA, page(2, status="fallback"))
        memory.add_page(SHA, page(3, status="blank"))
        assert memory.finished_numbers(SHA, with_fallback=True) == {1, 2, 3}
        assert memory.finished_numbers(SHA, with_fallback=False) == {1, 3}


def test_pages_that_are_to_be_read_anew_stay_until_they_are_and_later_runs_know_of_them(kind):
    with kind.memory() as memory:
        for number in (1, 2, 3):
            memory.add_page(SHA, page(number, "old"))
        memory.read_anew(SHA, [1, 2])
        memory.read_anew(SHA, [2])
        memory.add_page(SHA, page(1, "new"))
        memory.read_anew("cd" * 32, [1])
    with kind.memory() as memory:
        assert [each.text for each in memory.pages(SHA).values()] == ["new", "old", "old"]
        assert memory.numbers_to_replace(SHA) == {2}
        assert memory.finished_numbers(SHA, with_fallback=True) == {1, 3}
        memory.replaced(SHA)
        assert memory.finished_numbers(SHA, with_fallback=True) == {1, 2, 3}
        assert memory.numbers_to_replace("cd" * 32) == {1}


def test_a_document_that_is_to_be_read_anew_is_known_as_such_though_it_was_done(kind):
    with kind.memory() as memory:
        assert memory.lock(SHA)
        memory.add_page(SHA, page(1, "old"))
        memory.add_document(document())
        memory.read_anew(SHA, [1])
    with kind.memory() as memory:
        assert memory.document("ab12") == document()
        assert memory.numbers_to_replace(SHA) == {1}


def test_a_finished_documents_pages_are_as_they_were(kind):
    with kind.memory() as memory:
        assert memory.lock(SHA)
        for number in (2, 1, 3):
            memory.add_page(SHA, page(number, f"page {number}", model="m"))
        memory.add_document(document(page_count=3))
        memory.release(SHA)
        assert [each.text for each in memory.pages(SHA).values()] == ["page 1", "page 2", "page 3"]
    with kind.memory() as memory:
        assert list(memory.pages(SHA)) == [1, 2, 3]
        memory.add_page(SHA, page(2, "better"))
        assert memory.pages(SHA)[2].text == "better"


def test_by_which_models_and_how_pages_were_read_is_told_of_those_that_have_an_answer(kind):
    pages = (page(1, model="a", asked="x"), page(2, model="a", asked="x"), page(3, model="b"), page(4))
    with kind.memory() as memory:
        for each in (*pages, page(5, model="c", status="fallback")):
            memory.add_page(SHA, each)
        assert memory.readings(SHA) == {("a", "x"), ("b", "")}
        memory.add_document(document())
        assert memory.readings(SHA) == {("a", "x"), ("b", "")}


def test_the_model_of_a_workspace_is_known_where_it_is_one(kind):
    with kind.memory() as memory:
        assert memory.only_model() is None
        memory.add_page(SHA, page(1, model="org/one"))
        memory.add_document(document())
    with kind.memory() as memory:
        assert memory.only_model() == "org/one"
        memory.add_page("cd" * 32, page(1, model="org/two"))
        assert memory.only_model() is None


def test_a_tally_is_the_same_before_and_after_a_document_is_finished(kind):
    pages = (page(1, attempts=2, ends=("loop", "stop"), output_tokens=7), page(2, status="fallback"), page(3, None))
    with kind.memory() as memory:
        for each in pages:
            memory.add_page(SHA, each)
        before = memory.tally(SHA)
        memory.add_document(document())
    with kind.memory() as memory:
        assert list(memory.documents())
        assert memory.tally(SHA) == before
        assert before["flagged"] == before["pages.fallback"] == before["attempts.2"] == 1


# Documents.


def test_a_document_comes_back_as_it_was_and_the_last_word_on_it_counts(kind):
    failed = document(state="failed", why="it is \x1b[31m broken", sha256=None, page_count=None)
    with kind.memory() as memory:
        memory.add_document(document())
        memory.add_document(failed)
        assert memory.document("ab12") == failed
    with kind.memory() as memory:
        assert list(memory.documents()) == [failed]
        assert list(memory.failures()) == [Failure("a.pdf", "it is \x1b[31m broken")]
        assert memory.document("cd34") is None
        memory.forget_document("ab12")
        assert memory.document("ab12") is None
    with kind.memory() as memory:
        assert list(memory.documents()) == []


def test_documents_come_by_name_and_a_name_may_be_no_unicode(kind):
    with kind.memory() as memory:
        for key, name in (("01", "b"), ("02", "a\udcff"), ("00", "b")):
            memory.add_document(document(key, name))
    with kind.memory() as memory:
        assert [(each.name, each.key) for each in memory.documents()] == [("a\udcff", "02"), ("b", "00"), ("b", "01")]


def test_a_document_whose_last_name_leads_to_another_has_none_any_more(kind):
    one, two, link = "01", "02", "ff"
    with kind.memory() as memory:
        assert memory.led_elsewhere(one, [link, one]) == {link}, "what earlier versions called it"
        assert memory.led_elsewhere(two, [link]) == set(), "it has its own name still"
    with kind.memory() as memory:
        assert memory.led_elsewhere(two, [one]) == {one}


def test_others_see_what_came_of_a_document_as_soon_as_they_look_again(kind):
    with kind.memory() as memory, kind.memory() as others:
        assert others.document("ab12") is None
        memory.add_document(document())
        others.look_again()
        assert others.document("ab12") == document()


# Locks.


def test_a_lock_keeps_another_out_until_it_is_given_back(kind):
    with kind.memory() as ours, kind.memory() as theirs:
        assert ours.lock("a")
        assert ours.lock("a"), "ours can be taken again"
        assert not theirs.lock("a")
        theirs.release("a")
        assert not theirs.lock("a"), "nobody can give back what is another's"
        assert theirs.lock("b")
        ours.release("a")
        assert theirs.lock("a")


def test_whoever_closes_gives_all_its_locks_back(kind):
    with kind.memory() as theirs:
        with kind.memory() as ours:
            assert ours.lock("a")
            assert ours.lock("b")
            ours.beat()
        assert theirs.lock("a")
        assert theirs.lock("b")


# Results.


def test_a_result_is_kept_with_what_its_text_is_known_by(kind, source):
    with kind.open() as (results, memory):
        results.write_failure(source, "broken", line(source, "half"))
        memory.add_document(document(source.key, state="failed"))
        assert results.failed_result(source)["text"] == "half"
        results.write_result(source, line(source))
        memory.add_document(document(source.key))
    with kind.open() as (results, memory):
        assert results.result_id(source, SHA) == "id of Hello"
        assert results.result_id(source, "cd" * 32) is None
        assert results.failed_result(source) is None
        assert json.loads(kind.read(f"results/output_{source.key}.jsonl")) == line(source)


@pytest.mark.parametrize("keep", [True, False])
def test_a_failure_takes_the_place_of_what_was_read_or_lies_beside_it(keep, kind, source):
    with kind.open() as (results, memory):
        results.write_result(source, line(source))
        results.write_markdown(source, "Hello", "id of Hello")
        memory.add_document(document(source.key))
        results.write_failure(source, "broken", keep=keep)
        memory.add_document(document(source.key, state="failed", why="broken"))
    with kind.open() as (results, memory):
        assert (results.result_id(source, SHA) is not None) is keep
        assert (kind.read(f"results/output_{source.key}.jsonl") is not None) is keep
        assert (results.markdown_made_of(source) == "id of Hello") is keep
        assert json.loads(kind.read(f"failed/{source.key}.json"))["error"] == "broken"


def test_markdown_has_the_sources_path_and_two_sources_never_share_one(kind, tmp_path):
    pdf, png = (Source(f"scans/a.{ending}", tmp_path / f"scans/a.{ending}") for ending in ("pdf", "png"))
    with kind.open() as (results, memory):
        for source in (pdf, png):
            results.write_markdown(source, source.name, "made")
            memory.add_document(document(source.key, source.name))
    assert kind.read("markdown/scans/a.md") == "scans/a.pdf"
    assert kind.read(f"markdown/scans/a-{png.key[:12]}.md") == "scans/a.png"
    with kind.open() as (results, _):
        assert results.markdown_made_of(pdf) == results.markdown_made_of(png) == "made"
        assert PurePath(results.markdown_path(png)).name == f"a-{png.key[:12]}.md"


def test_what_a_person_has_put_there_stays(kind, source):
    kind.write("markdown/scans/a.md", "mine")
    with kind.open() as (results, memory):
        results.write_markdown(source, "Hello", "made")
        memory.add_document(document(source.key))
    assert kind.read("markdown/scans/a.md") == "mine"
    assert kind.read(f"markdown/scans/a-{source.key[:12]}.md") == "Hello"


def test_pages_and_attached_files_of_an_earlier_reading_go(kind, source):
    with kind.open() as (results, memory):
        results.write_pages(source, {1: "one", 2: "two"}, "made")
        results.write_attached(source, {"f-1.png": "1", "f-2.png": "2"}, "made")
        memory.add_document(document(source.key))
    with kind.open() as (results, memory):
        results.write_pages(source, {2: "TWO"}, "made again")
        results.write_attached(source, {"f-2.png": "2"}, "made again")
        memory.add_document(document(source.key))
    assert [kind.read(f"pages/scans/a.md/{number:04}.md") for number in (1, 2)] == [None, "TWO"]
    assert [kind.read(f"markdown/scans/a.files/f-{number}.png") for number in (1, 2)] == [None, "2"]
    with kind.open() as (results, _):
        assert results.pages_made_of(source) == "made again"
        assert results.has_all_attached(source)
        results.write_attached(source, {})
    assert kind.read("markdown/scans/a.files/f-2.png") is None


def test_what_was_made_of_another_text_is_removed(kind, source):
    with kind.open() as (results, memory):
        results.write_markdown(source, "old", "old text")
        results.write_page_records(source, {"new": 1}, "new text")
        memory.add_document(document(source.key))
        results.remove_stale(source, "new")
        memory.add_document(document(source.key))
    assert kind.read("markdown/scans/a.md") is None
    assert json.loads(kind.read("page_records/scans/a.json")) == {"new": 1}


def test_all_of_a_document_can_be_forgotten_and_its_path_is_anothers(kind, source, tmp_path):
    with kind.open() as (results, memory):
        results.write_result(source, line(source))
        results.write_markdown(source, "Hello", "made")
        memory.add_document(document(source.key))
        results.forget(source.key)
        memory.forget_document(source.key)
        assert kind.read(f"results/output_{source.key}.jsonl") is None
        other = Source("scans/a.png", tmp_path / "scans/a.png")
        results.write_markdown(other, "another", "made")
    assert kind.read("markdown/scans/a.md") == "another"


def test_the_numbers_of_each_run_are_kept(kind):
    for pages in (3, 5):
        with kind.open() as (_, memory):
            memory.add_run({"pages": pages, "seconds": 1.5, "servers": {}, "failures": []})
    with kind.open() as (_, memory):
        found = list(memory.runs())
    assert sorted(run["pages"] for run in found) == [3, 5]
    assert {run["seconds"] for run in found} == {1.5}


def test_failures_and_metrics_are_files_of_their_own(kind):
    with kind.open() as (results, _):
        results.write_failures([Failure("a.pdf", "broken")])
        results.write_metrics({"pages_per_minute": 1, "attempts_ended": {}})
        assert json.loads(kind.read("failures.jsonl"))["why"] == "broken"
        results.write_failures([])
        assert kind.read("failures.jsonl") is None
    assert json.loads(kind.read("metrics.json"))["pages_per_minute"] == 1
