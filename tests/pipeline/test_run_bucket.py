"""Runs whose workspace is in a store, or in a folder that several machines see."""

import asyncio
import csv
import io
import json
import subprocess
import sys

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import OutputError, ServerUnavailableError, UsageError
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.store import open_store
from olmocr.workspace.opening import opened_workspace
from olmocr.workspace.stats import read_stats
from tests.conftest import ROOT
from tests.pipeline.doubles import Reader, answer, number_of, write_numbered_pdf
from tests.rendered_here import PoolHere
from tests.workspace.stores import FaultyObjects, expired, memory_place, objects_at, slow_down


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
    return memory_place() if request.param == "memory" else StorePlace((tmp_path / "ws").as_uri())


@pytest.fixture
def pdfs(tmp_path):
    return [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 4)) for at in range(3)]


PAGES = [1, 2, 3, 11, 12, 13, 21, 22, 23]


def running(place, pdfs, reader, objects=None, **options):
    options = {"target_longest_image_dim": 64, "model": "m", **options}
    config = PipelineConfig(workspace=place, pdfs=pdfs, **options)
    more = {"open_workspace": lambda place, _: opened_workspace(place, objects=objects)} if objects else {}
    return run_pipeline(config, ask=reader.ask, open_pool=PoolHere, **more)


def run(place, pdfs, reader=None, objects=None, **options):
    reader = reader or Reader()
    return asyncio.run(running(place, pdfs, reader, objects, **options)), reader


def texts(place):
    """Return the text of each document's result by its name."""
    with opened_workspace(place) as (results, _):
        store = results._store
        lines = [json.loads(data) for data in store.get_all(store.names("results")).values()]
    return {line["metadata"]["Source-File"]: line["text"] for line in lines}


def whole(pdfs):
    return {str(pdf): "\n".join(f"page {10 * at + n}" for n in (1, 2, 3)) for at, pdf in enumerate(pdfs)}


def test_documents_are_read_once_and_the_results_are_those_of_a_folder(place, pdfs, tmp_path):
    summary, reader = run(place, pdfs, markdown=True)
    assert (summary.done, sorted(reader.asked)) == (3, PAGES)
    run(tmp_path / "folder", pdfs, markdown=True)
    assert texts(place) == whole(pdfs)
    with opened_workspace(place) as (results, _):
        store, folder = results._store, tmp_path / "folder"
        for kind in ("results", "markdown"):
            names = [path.relative_to(folder).as_posix() for path in (folder / kind).rglob("*") if path.is_file()]
            assert store.names(kind) == sorted(names)
            assert {name: store.get(name) for name in names} == {name: (folder / name).read_bytes() for name in names}
    summary, reader = run(place, pdfs, markdown=True)
    assert (summary.done, summary.skipped, reader.asked) == (0, 3, [])


def test_a_run_that_finds_all_done_asks_the_store_a_few_times_and_not_for_each_document(pdfs):
    place = memory_place()
    run(place, pdfs, markdown=True)
    objects = FaultyObjects(objects_at(place))
    summary, _ = run(place, pdfs, objects=objects, markdown=True)
    assert summary.skipped == 3
    shards = 3
    assert sum(objects.counts.values()) <= 10 + shards


class StoppedAtThe(Reader):
    """Is stopped at a page as soon as the workspace at a place holds one that was answered before."""

    def __init__(self, number, place):
        super().__init__({number: [asyncio.CancelledError()]})
        self.number, self.place = number, place

    async def ask(self, request):
        if number_of(request.image.pixels) == self.number:
            while not any("/p0" in name for name in open_store(self.place, to_read=True).names("state/pages")):
                await asyncio.sleep(0.001)
        return await super().ask(request)


def test_a_run_that_was_stopped_resumes_inside_a_document(place, pdfs):
    reader = StoppedAtThe(12, place)
    with pytest.raises(asyncio.CancelledError):
        run(place, pdfs, reader, max_concurrent_pages=1, workers=1)
    summary, again = run(place, pdfs)
    assert summary.done + summary.skipped == 3
    assert min(again.asked) == 12, "what was kept of a document is not read again"
    assert texts(place) == whole(pdfs)


class Killed(BaseException):
    """No code of ours runs any more."""


@pytest.mark.parametrize("after", range(1, 40, 3))
def test_a_writer_that_is_killed_at_any_request_loses_no_page_that_was_kept(after, pdfs, monkeypatch):
    place = memory_place()
    objects = FaultyObjects(objects_at(place), before=[None] * after)
    objects.always = Killed
    reader = Reader()
    with pytest.raises((Killed, BaseExceptionGroup)):
        run(place, pdfs, reader, objects, markdown=True, max_concurrent_pages=1)
    kept = sum("/p0" in name for name in objects_at(place).names("state/pages"))
    # As though it had been on this machine, so that nobody waits a minute for it.
    for name in objects_at(place).names("state/claims"):
        claim = json.loads(objects_at(place).get(name))
        objects_at(place).put(name, json.dumps({**claim, "pid": 2**22 + 1}).encode())
    summary, again = run(place, pdfs, markdown=True)
    assert not summary.failures
    assert texts(place) == whole(pdfs)
    assert len(again.asked) <= len(PAGES) - kept


def test_a_store_that_is_slow_and_loses_answers_changes_nothing(pdfs):
    place = memory_place()
    plan = [None, slow_down, None, TimeoutError(), None, None, slow_down] * 30
    objects = FaultyObjects(objects_at(place), before=plan, after=[None, ConnectionResetError(), None] * 40)

    def open_patiently(place, _):
        opened = opened_workspace(place, objects=objects)
        results, memory = opened.__enter__()
        results._store._wait = lambda seconds: False
        opened_workspace_of.append(opened)
        return _Opened(opened, (results, memory))

    opened_workspace_of = []
    config = PipelineConfig(workspace=place, pdfs=pdfs, target_longest_image_dim=64, model="m", markdown=True)
    reader = Reader()
    summary = asyncio.run(run_pipeline(config, ask=reader.ask, open_pool=PoolHere, open_workspace=open_patiently))
    assert (summary.done, sorted(reader.asked)) == (3, PAGES)
    assert texts(place) == whole(pdfs)
    assert objects_at(place).names("state/claims") == []


class _Opened:
    def __init__(self, opened, value):
        self.opened, self.value = opened, value

    def __enter__(self):
        return self.value

    def __exit__(self, *exception):
        return self.opened.__exit__(*exception)


def test_credentials_that_expire_end_the_run_in_one_sentence_and_a_later_one_resumes(pdfs):
    place = memory_place()
    objects = FaultyObjects(objects_at(place), before=[None] * 25)
    objects.always = expired
    with pytest.raises(OutputError, match=r"ExpiredToken \(the credentials have expired\)") as error:
        run(place, pdfs, objects=objects, max_concurrent_pages=1)
    assert "hunter2" not in str(error.value)
    for name in objects_at(place).names("state/claims"):
        objects_at(place).remove(name)
    run(place, pdfs)
    assert texts(place) == whole(pdfs)


def test_two_machines_share_the_documents_and_read_none_twice(place, pdfs):
    one, two = Reader(seconds=0.01), Reader(seconds=0.01)

    async def both():
        return await asyncio.gather(
            running(place, pdfs, one, markdown=True, workers=1), running(place, pdfs, two, markdown=True, workers=1)
        )

    summaries = asyncio.run(both())
    assert sorted(one.asked + two.asked) == PAGES
    assert one.asked
    assert two.asked
    assert [each.done + each.skipped for each in summaries] == [3, 3]
    assert texts(place) == whole(pdfs)


def test_what_a_list_does_not_have_yet_is_read_twice_at_worst(pdfs):
    place = memory_place()
    run(place, pdfs)
    late = FaultyObjects(objects_at(place))
    late.unlisted = {"state/"}
    summary, _ = run(place, pdfs, objects=late)
    assert summary.done == 3
    assert texts(place) == whole(pdfs)
    summary, reader = run(place, pdfs)
    assert (summary.skipped, reader.asked) == (3, [])


def test_what_failed_is_tried_again_on_demand(place, pdfs):
    away = ServerUnavailableError("the server is away")
    summary, _ = run(place, pdfs, Reader({2: [away], 11: [answer("", finish_reason="length")]}), max_page_retries=1)
    assert len(summary.failures) == 2
    stats = read_stats(place)
    assert stats.documents == {"done": 1, "failed": 2}
    assert [each.source for each in stats.failures] == [str(pdfs[0]), str(pdfs[1])]
    summary, reader = run(place, (), retry_failed=True)
    assert (summary.done, sorted(reader.asked)) == (2, [2, 11])
    assert texts(place) == whole(pdfs)
    assert read_stats(place).documents == {"done": 3}


def test_stats_are_those_of_a_folder_and_read_no_page(pdfs, tmp_path):
    place = memory_place()
    run(place, pdfs)
    run(tmp_path / "ws", pdfs)
    assert read_stats(place) == read_stats(tmp_path / "ws")


def test_all_is_read_anew_where_that_is_asked_for(place, pdfs):
    run(place, pdfs)
    summary, reader = run(place, pdfs, Reader({1: [answer("better")]}), force=True)
    assert (summary.done, sorted(reader.asked)) == (3, PAGES)
    assert texts(place)[str(pdfs[0])].startswith("better")


def test_a_document_in_the_workspace_is_not_a_document_of_the_run(tmp_path):
    folder = tmp_path / "in"
    pdf = write_numbered_pdf(folder / "a.pdf", [1]) if folder.mkdir() is None else None
    write_numbered_pdf(folder / "b.pdf", [2]).rename(tmp_path / "b.pdf")
    place = StorePlace((folder / "ws").as_uri())
    run(place, [folder])
    (folder / "ws/markdown").mkdir()
    (tmp_path / "b.pdf").rename(folder / "ws/markdown/b.pdf")
    summary, reader = run(place, [folder])
    assert (summary.done, summary.skipped, reader.asked) == (0, 1, [])
    assert texts(place) == {str(pdf): "page 1"}


def test_a_folder_for_markdown_besides_is_refused():
    with pytest.raises(UsageError, match="leave out `output_dir`"):
        PipelineConfig(workspace="s3://bucket/ws", pdfs="a.pdf", model="m", output_dir="out")


# Upstream's workspace.


def upstream_workspace(place, groups, done):
    zstandard = pytest.importorskip("zstandard")
    text = io.StringIO()
    csv.writer(text).writerows([[name, *paths] for name, paths in groups.items()])
    objects = objects_at(place)
    objects.put("work_index_list.csv.zstd", zstandard.compress(text.getvalue().encode()))
    for name in done:
        objects.put(f"done_flags/done_{name}.flag", b"")
        line = {"id": "1", "text": "theirs", "metadata": {"Source-File": groups[name][0]}}
        objects.put(f"results/output_{name}.jsonl", json.dumps(line).encode())


def test_what_upstreams_program_has_done_is_not_done_again(pdfs):
    place = memory_place()
    groups = {"aa": [str(pdfs[0]), "s3://bucket/with, comma.pdf"], "bb": [str(pdfs[1])]}
    upstream_workspace(place, groups, done=["aa"])
    assert read_stats(place).documents == {"done by upstream's olmOCR": 2}
    summary, reader = run(place, pdfs)
    assert (summary.done, summary.skipped) == (2, 1)
    assert sorted(reader.asked) == [11, 12, 13, 21, 22, 23]
    assert texts(place)[str(pdfs[0])] == "theirs"
    assert read_stats(place).documents == {"done": 2, "done by upstream's olmOCR": 2}


def test_what_is_not_a_list_of_upstreams_is_one_sentence(pdfs):
    pytest.importorskip("zstandard")
    place = memory_place()
    objects_at(place).put("work_index_list.csv.zstd", b"no list")
    with pytest.raises(OutputError, match="is not a list of upstream's olmOCR; move it, or name another place"):
        run(place, pdfs)


# Processes, as machines are.

MACHINE = """
import asyncio, sys
from olmocr import PipelineConfig, run_pipeline
from tests.pipeline.doubles import Reader, number_of
from tests.rendered_here import PoolHere

class Told(Reader):
    async def ask(self, request):
        found = await super().ask(request)
        print(number_of(request.image.pixels), flush=True)
        return found

config = PipelineConfig(workspace=sys.argv[1], pdfs=sys.argv[2:], target_longest_image_dim=64, model="m", workers=1)
summary = asyncio.run(run_pipeline(config, ask=Told(seconds=0.02).ask, open_pool=PoolHere))
print("failed", len(summary.failures))
"""


def machine(place, pdfs):
    command = [sys.executable, "-c", MACHINE, place.url, *map(str, pdfs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("answers", range(1, 11))
def test_a_machine_that_is_killed_at_any_page_leaves_its_documents_to_the_others(answers, pdfs, tmp_path):
    place = StorePlace((tmp_path / "shared").as_uri())
    killed, other = machine(place, pdfs), machine(place, pdfs)
    begun = [line for _, line in zip(range(answers), killed.stdout, strict=False)]
    killed.kill()
    more, errors = other.communicate(timeout=120)
    begun += killed.communicate()[0].splitlines()
    assert (other.returncode, errors, more.splitlines()[-1]) == (0, "", "failed 0")
    assert texts(place) == whole(pdfs)
    asked = [int(line) for line in (*begun, *more.splitlines()[:-1]) if line.strip().isdigit()]
    assert set(asked) == set(PAGES)
    assert len(asked) <= len(PAGES) + 4, "no more is read twice than was in hand"
