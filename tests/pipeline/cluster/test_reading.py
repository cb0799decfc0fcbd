"""Runs whose pages other machines read: scripted here, each in a place that may drain or go."""

import asyncio
import functools
import http.server
import json
import threading

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.backends.sharing import USUAL_ROOM
from olmocr.errors import CheckpointError, ExitCode, OutputError, ServerError
from olmocr.pipeline.cluster.reading import LOOK_SECONDS, SHORT_PAGES
from tests.pipeline.cluster.cluster_here import ClusterHere
from tests.pipeline.doubles import Reader, answer, write_numbered_pdf
from tests.rendered_here import PoolHere


@pytest.fixture
def pdfs(tmp_path):
    return [write_numbered_pdf(tmp_path / f"{at}.pdf", range(10 * at + 1, 10 * at + 5)) for at in range(6)]


@pytest.fixture
def elsewhere(tmp_path):
    """Return the address of a web server, and its folder."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


async def shortly(seconds):
    await asyncio.sleep(0.005)


def running(cluster, place, pdfs, sleep=shortly, **options):
    options = {"target_longest_image_dim": 64, "model": "m", "ray": "local", "max_page_retries": 2, **options}
    config = PipelineConfig(workspace=place, pdfs=pdfs, **options)
    return run_pipeline(config, open_pool=PoolHere, open_cluster=cluster.opened, sleep=sleep)


def run(cluster, place, pdfs, **options):
    return asyncio.run(running(cluster, place, pdfs, **options))


def alone(place, pdfs, reader=None, **options):
    options = {"target_longest_image_dim": 64, "model": "m", "max_page_retries": 2, **options}
    config = PipelineConfig(workspace=place, pdfs=pdfs, **options)
    return asyncio.run(run_pipeline(config, ask=(reader or Reader()).ask, open_pool=PoolHere))


def files(folder):
    kinds = [folder / kind for kind in ("results", "markdown", "pages", "failed")]
    found = [path for kind in kinds if kind.exists() for path in kind.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_results_are_byte_for_byte_those_of_one_process(pdfs, tmp_path):
    blank = write_numbered_pdf(tmp_path / "blank.pdf", [0, 7, 0])
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 nothing")
    script = {12: [answer("twice", valid=False, turn=90), answer("page 12")], 23: [answer(finish_reason="length")]}
    options = {"markdown": True, "page_files": True, "max_page_error_rate": 0.5}
    everything = [*pdfs, blank, bad]
    one = alone(tmp_path / "one", everything, Reader(script), **options)
    cluster = ClusterHere("a/1", "b/1", models={name: Reader(script) for name in ("a/1", "b/1")})
    two = run(cluster, tmp_path / "two", everything, **options)
    assert one.exit_code == two.exit_code == ExitCode.SOME_DOCUMENTS_FAILED
    assert [each.why for each in one.failures] == [each.why for each in two.failures]
    assert (one.pages, one.blank_pages, one.fallback_pages) == (two.pages, two.blank_pages, two.fallback_pages)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert all(model.asked for model in cluster.models.values())


def first_readers(pdfs, pages, folder):
    """Read *pdfs*, of *pages* in all, with three readers; return for each document those first asked for its pages.

    Nothing is answered before all pages that there is room for have been asked, however slow the machine is, so that
    no reader takes a page of another one because it has nothing left to do.
    """
    model = Reader(together=min(pages, 3 * USUAL_ROOM))
    cluster = ClusterHere("a/1", "b/1", "c/1", models=dict.fromkeys(("a/1", "b/1", "c/1"), model))
    assert run(cluster, folder, pdfs).exit_code == ExitCode.OK
    first = {}
    for place, name, number in cluster.asked:
        first.setdefault((name, number), place)
    return [{place for (name, _), place in first.items() if name == str(pdf)} for pdf in pdfs]


def test_short_documents_for_which_there_is_room_stay_whole(pdfs, tmp_path):
    assert [len(readers) for readers in first_readers(pdfs[:2], 8, tmp_path / "ws")] == [1, 1]


def test_a_long_document_goes_to_several_readers(tmp_path):
    long = write_numbered_pdf(tmp_path / "long.pdf", range(100, 100 + 3 * SHORT_PAGES))
    (readers,) = first_readers([long], 3 * SHORT_PAGES, tmp_path / "ws")
    assert len(readers) > 1


def test_what_lies_here_is_sent_once_and_what_lies_elsewhere_is_fetched_where_it_is_read(pdfs, tmp_path, elsewhere):
    url, folder = elsewhere
    write_numbered_pdf(folder / "far.pdf", [50, 51])
    cluster = ClusterHere("a/1", "b/1")
    summary = run(cluster, tmp_path / "ws", [*pdfs, f"{url}/far.pdf"])
    assert (summary.done, summary.exit_code) == (7, ExitCode.OK)
    assert sorted(cluster.sent) == sorted(pdf.name for pdf in pdfs)


def test_what_a_dead_reader_had_in_hand_is_read_by_others_and_each_page_is_there_once(pdfs, tmp_path):
    gate = Reader(together=1000)
    cluster = ClusterHere("a/1", "b/1", models={"a/1": gate, "b/1": Reader()})

    async def kill():
        while not gate.asked:
            await asyncio.sleep(0.001)
        cluster.load_faults["a/1"] = ServerError("it does not come back")
        del cluster.states["a/1"]
        cluster.readers["a/1"].is_killed.set()

    async def both():
        beside = asyncio.create_task(kill())
        summary = await running(cluster, tmp_path / "ws", pdfs)
        await beside
        return summary

    summary = asyncio.run(both())
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, 24, 0)
    alone(tmp_path / "one", pdfs)
    assert files(tmp_path / "ws") == files(tmp_path / "one")


def test_a_reader_that_is_started_again_is_used_again(pdfs, tmp_path):
    model = Reader(seconds=0.002)
    cluster = ClusterHere("a/1", models={"a/1": model})

    async def kill():
        while len(model.asked) < 3:
            await asyncio.sleep(0.001)
        killed = cluster.readers["a/1"]
        killed.is_killed.set()
        await asyncio.sleep(0.01)
        killed.is_killed.clear()  # as Ray starts an actor again under the same handle

    async def both():
        beside = asyncio.create_task(kill())
        summary = await running(cluster, tmp_path / "ws", pdfs)
        await beside
        return summary

    assert asyncio.run(both()).exit_code == ExitCode.OK


def test_one_that_drains_finishes_its_pages_and_gets_no_more(pdfs, tmp_path):
    going = Reader(together=4)
    cluster = ClusterHere("a/1", models={"a/1": going})

    async def look(seconds):
        if seconds == LOOK_SECONDS and going.open == 0 and not going.asked:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)

    async def drain():
        while going.open < 3:
            await asyncio.sleep(0.001)
        cluster.states |= {"a/1": "draining", "b/1": "ready"}
        while "b/1" not in cluster.readers or not cluster.readers["b/1"].read_numbers:
            await asyncio.sleep(0.001)
        before = len(going.asked)
        going.are_together.set()
        return before

    async def both():
        beside = asyncio.create_task(drain())
        summary = await running(cluster, tmp_path / "ws", pdfs, sleep=look, max_concurrent_pages=3)
        return summary, await beside

    summary, before = asyncio.run(both())
    assert summary.exit_code == ExitCode.OK
    in_hand = set(cluster.readers["a/1"].read_numbers)
    assert len(going.asked) >= before
    assert not in_hand & set(cluster.readers["b/1"].read_numbers)


def test_machines_that_come_later_are_used(pdfs, tmp_path):
    first = Reader(together=2)
    cluster = ClusterHere("a/1", models={"a/1": first})

    async def come():
        while not first.asked:
            await asyncio.sleep(0.001)
        cluster.states["b/1"] = "ready"
        while "b/1" not in cluster.readers or not cluster.readers["b/1"].read_numbers:
            await asyncio.sleep(0.001)
        first.are_together.set()

    async def both():
        beside = asyncio.create_task(come())
        summary = await running(cluster, tmp_path / "ws", pdfs, max_concurrent_pages=1)
        await beside
        return summary

    assert asyncio.run(both()).exit_code == ExitCode.OK


def test_a_model_that_is_nowhere_ends_the_run_as_it_does_in_one_process(pdfs, tmp_path):
    fault = CheckpointError("there is no folder or repository m")
    cluster = ClusterHere("a/1", "b/1", load_faults={"a/1": fault, "b/1": fault})
    with pytest.raises(CheckpointError, match="a/1: there is no folder or repository m") as end:
        run(cluster, tmp_path / "ws", pdfs)
    assert end.value.exit_code == ExitCode.BAD_CHECKPOINT


def test_a_machine_without_the_model_is_left_out_and_the_others_read(pdfs, tmp_path, caplog):
    cluster = ClusterHere("a/1", "b/1", load_faults={"a/1": CheckpointError("there is no folder m")})
    assert run(cluster, tmp_path / "ws", pdfs).exit_code == ExitCode.OK
    assert "a/1: there is no folder m; a/1 is left out from now on" in caplog.text


def test_a_machine_whose_disk_is_full_is_left_out_for_a_while(pdfs, tmp_path):
    cluster = ClusterHere("a/1", "b/1", load_faults={"a/1": OutputError("the disk is full")})
    assert run(cluster, tmp_path / "ws", pdfs).exit_code == ExitCode.OK


def test_a_cluster_without_a_machine_ends_the_run(pdfs, tmp_path):
    with pytest.raises(ServerError, match="no machine of the cluster has a processor"):
        run(ClusterHere(), tmp_path / "ws", pdfs)


def test_when_all_machines_are_gone_the_run_ends_and_the_next_one_reads_the_rest(pdfs, tmp_path):
    model = Reader(together=1000, script={})
    model.are_together.set()
    cluster = ClusterHere("a/1", models={"a/1": model})

    async def kill():
        while len(model.asked) < 5:
            await asyncio.sleep(0.001)
        cluster.states.clear()
        cluster.states["elsewhere/1"] = "ready"
        cluster.load_faults["elsewhere/1"] = ServerError("it cannot be used")
        cluster.readers["a/1"].is_killed.set()

    async def both():
        beside = asyncio.create_task(kill())
        try:
            return await running(cluster, tmp_path / "ws", pdfs, workers=1, max_concurrent_pages=1)
        finally:
            await beside

    with pytest.raises(ServerError):
        asyncio.run(both())
    again = ClusterHere("c/1")
    summary = run(again, tmp_path / "ws", pdfs)
    assert summary.exit_code == ExitCode.OK
    assert summary.pages < 24
    alone(tmp_path / "one", pdfs)
    assert files(tmp_path / "ws") == files(tmp_path / "one")


def test_a_pile_that_is_read_starts_no_cluster_and_metrics_tell_what_each_reader_did(pdfs, tmp_path):
    cluster = ClusterHere("a/1", "b/1")
    run(cluster, tmp_path / "ws", pdfs)
    metrics = json.loads((tmp_path / "ws/metrics.json").read_text())["servers"]
    assert set(metrics) == {"a/1", "b/1"}
    assert sum(each["answered"] for each in metrics.values()) == 24
    again = ClusterHere("a/1")
    assert run(again, tmp_path / "ws", pdfs).skipped == 6
    assert again.address is None


def test_figures_and_filters_look_into_documents_wherever_these_lie(pdfs, tmp_path, elsewhere):
    url, folder = elsewhere
    write_numbered_pdf(folder / "fig.pdf", [60])
    text = "![A figure](page_0_0_32_32.png)"
    names = [*pdfs[:1], f"{url}/fig.pdf"]
    script = {60: [answer(text)]}
    alone(tmp_path / "one", names, Reader(script), figures=True, headers="drop")
    cluster = ClusterHere("a/1", models={"a/1": Reader(script)})
    assert run(cluster, tmp_path / "two", names, figures=True, headers="drop").exit_code == ExitCode.OK
    assert files(tmp_path / "one") == files(tmp_path / "two")
