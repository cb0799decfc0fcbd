import asyncio
from pathlib import Path

import pytest

from olmocr.inputs.local_file import version_of
from olmocr.inputs.origins import WebFile
from olmocr.inputs.sources import Source, listed
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.unfinished import Unfinished, sources_to_retry
from olmocr.workspace.folder import open_workspace
from olmocr.workspace.outputs import write_json_line
from olmocr.workspace.records import KnownDocument, Records
from tests.four_pages import FOUR, SHA


@pytest.fixture
def records(tmp_path):
    with Records(tmp_path) as records:
        yield records


def make_sources(folder, *names):
    for name in names:
        (folder / name).write_text(name)
    return [Source(str(folder / name), folder / name) for name in names]


def make_unfinished(folder, records, sources, skipped=(), **options):
    """Return what is unfinished for a run that is asked so; *skipped* gets an entry for each that is skipped."""
    config = PipelineConfig(workspace=folder, pdfs="a.pdf", model="m", **options)
    skipped = skipped if isinstance(skipped, list) else []
    return Unfinished(config, open_workspace(folder), records, listed(sources), lambda: skipped.append(1))


def find(unfinished):
    """Return the documents that are to be read."""
    count = unfinished.find()
    found = list(unfinished.found())
    assert len(found) == count
    return found


def finish(folder, records, source, **changes):
    """Keep that a source was read, with a result that has four pages."""
    for page in FOUR:
        records.add_page(SHA, page)
    known = {"stat": version_of(source), "sha256": SHA, "selection": "", "page_count": 4, "state": "done", **changes}
    records.add_document(KnownDocument(source.key, source.name, **known))
    line = {"text": "One", "metadata": {"source-sha256": SHA}}
    write_json_line(open_workspace(folder).result_path(source), line)


@pytest.mark.parametrize(
    ("changes", "options", "is_left"),
    [
        ({}, {}, False),
        ({"state": "failed"}, {}, True),
        ({"stat": "1 2 3"}, {}, True),
        ({"stat": ""}, {}, True),
        ({"selection": "1-2"}, {}, True),
        ({"selection": "1-2"}, {"pages": "1-2"}, False),
        ({}, {"force": True}, True),
        ({}, {"retry_failed": True}, True),  # one of the four fell back
    ],
)
def test_a_document_is_left_to_read_unless_it_was_read_as_it_is_asked_for(changes, options, is_left, tmp_path, records):
    (source,) = make_sources(tmp_path, "a.pdf")
    finish(tmp_path, records, source, **changes)
    skipped = []
    found = find(make_unfinished(tmp_path, records, [source], skipped, **options))
    assert (found, skipped) == (([source], []) if is_left else ([], [1]))


def test_what_does_not_lie_on_this_disk_is_looked_at_again(tmp_path, records):
    source = Source("https://example.org/a.pdf", WebFile("https://example.org/a.pdf"))
    finish(tmp_path, records, source)
    assert find(make_unfinished(tmp_path, records, [source])) == [source]


def test_documents_come_in_their_order_and_those_that_wait_behind_one_are_counted_down(tmp_path, records):
    sources = make_sources(tmp_path, "b.pdf", "a.pdf", "c.pdf")
    unfinished = make_unfinished(tmp_path, records, sources)
    assert find(unfinished) == sources
    assert [unfinished.place(source, 7) for source in sources] == [(0, 7), (1, 7), (2, 7)]
    assert [unfinished.begin(source, f"{at}", [1, 2]) for at, source in enumerate(sources)] == [
        ([1, 2], 2),
        ([1, 2], 1),
        ([1, 2], 0),
    ]


@pytest.mark.parametrize(
    ("options", "missing"), [({}, [5]), ({"retry_failed": True}, [3, 5]), ({"force": True}, [1, 2, 3, 4, 5])]
)
def test_pages_that_were_read_before_are_not_missing_but_where_it_is_asked_for_and_once(
    options, missing, tmp_path, records
):
    sources = make_sources(tmp_path, "a.pdf", "copy.pdf")
    for page in FOUR:
        records.add_page(SHA, page)
    unfinished = make_unfinished(tmp_path, records, sources, **options)
    assert unfinished.begin(sources[0], SHA, range(1, 6))[0] == missing
    for page in FOUR:
        records.add_page(SHA, page)
    assert unfinished.begin(sources[1], SHA, range(1, 6))[0] == [5], "what lies there twice is read anew once"


def test_what_another_process_holds_is_left_to_it_and_comes_again(tmp_path, records):
    (source,) = make_sources(tmp_path, "a.pdf")
    unfinished = make_unfinished(tmp_path, records, [source])

    async def run():
        with Records(tmp_path) as others:
            assert others.lock(SHA)
            async with unfinished.held(source, SHA) as is_ours:
                assert not is_ours
        found = [each async for each in unfinished.left_to_others()]
        async with unfinished.held(source, SHA) as is_ours:
            assert is_ours
            with Records(tmp_path) as others:
                assert not others.lock(SHA)
        with Records(tmp_path) as others:
            assert others.lock(SHA), "it is given back"
        return found

    assert asyncio.run(run()) == [source]


def test_what_failed_or_fell_back_and_is_there_still_is_tried_again(tmp_path, records):
    fell_back, failed, gone = make_sources(tmp_path, "a.pdf", "b.pdf", "gone.pdf")
    finish(tmp_path, records, fell_back)
    for source in (failed, gone):
        records.add_document(KnownDocument(source.key, source.name, "", None, "", None, "failed", "broken"))
    Path(gone.name).unlink()
    assert tuple(sources_to_retry(records).values()) == (fell_back, failed)


def test_nothing_is_kept_in_memory_of_a_content_that_was_held(tmp_path, records):
    unfinished = make_unfinished(tmp_path, records, make_sources(tmp_path, "a.pdf", "b.pdf"))

    async def hold(source):
        async with unfinished.held(source, SHA) as is_ours:
            assert is_ours
            assert len(unfinished._turns._locks) == 1
            await asyncio.sleep(0)

    async def hold_both():
        await asyncio.gather(*map(hold, unfinished._sources.values()))

    asyncio.run(hold_both())
    assert (unfinished._turns._locks, unfinished._turns._users) == ({}, {})
