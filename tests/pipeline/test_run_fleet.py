"""Three model servers, each a process of its own on the loopback interface, and what happens to one in a run."""

import asyncio
import contextlib
import json
import signal

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.backends.choice import answering
from olmocr.backends.config import BackendConfig
from olmocr.errors import ExitCode, ServerError
from olmocr.workspace.stats import read_stats
from tests.backends.asked import REQUEST
from tests.backends.model_server import ModelServer, chat_body, chat_stream, fault, whole
from tests.backends.server_process import ServerProcess
from tests.clocks import run_skipping
from tests.pipeline.doubles import write_numbered_pdf
from tests.rendered_here import PoolHere

PAGES = 30
GOOD = whole(chat_body())


@pytest.fixture(scope="module")
def free_ports():
    """Three processes that are there from test to test: the first is started anew where it was killed."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ServerProcess()) for _ in range(2)]


@pytest.fixture
def servers(free_ports):
    """Return three servers, the first of them for this test only, and forget what the others did before."""
    for server in free_ports:
        server.tell("go")
        server.lines.clear()
    with ServerProcess() as own:
        yield [own, *free_ports]


async def shortly(seconds):
    """Wait as long as it takes others to do something."""
    await asyncio.sleep(0.01)


async def until(holds):
    while not holds():
        await asyncio.sleep(0.005)


def read(folder, servers, meanwhile, **options):
    """Read a document's pages, two at once for each server, while *meanwhile* runs."""
    pdf = write_numbered_pdf(folder / "a.pdf", range(1, PAGES + 1))
    settings = {"target_longest_image_dim": 64, "max_concurrent_pages": 2, **options}
    urls = tuple(server.url for server in servers)
    config = PipelineConfig(workspace=folder / "ws", pdfs=pdf, server=urls, **settings)

    async def run():
        beside = asyncio.create_task(meanwhile)
        summary = await run_pipeline(config, sleep=shortly, open_pool=PoolHere)
        await beside
        return summary

    return run_skipping(run())


def require_each_page_once(folder, summary):
    """See to it that no page is lost, and none is there twice; return which server answered each."""
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, PAGES, 0)
    (path,) = (folder / "ws/results").iterdir()
    record = json.loads(path.read_text())
    spans = record["attributes"]["pdf_page_numbers"]
    texts = [record["text"][start:end].strip() for start, end, _ in spans]
    assert texts == [f"page {number}" for number in range(1, PAGES + 1)]
    return record["attributes"]["server"]


def base(server):
    return f"{server.url}/v1"


def kill(server):
    server.kill()


def stop(server):
    server.send(signal.SIGSTOP)
    asyncio.get_running_loop().skip(100)


def slow_down(server):
    asyncio.get_running_loop().skip(100)


def fail(server):
    server.tell("fail")


@pytest.mark.parametrize("trouble", [kill, stop, slow_down, fail], ids=["killed", "stopped", "slow", "503"])
def test_a_server_with_two_pages_in_its_hands_has_trouble_and_no_page_is_lost_or_there_twice(
    trouble, servers, tmp_path
):
    first, *others = servers
    first.tell("hold 2")

    async def meanwhile():
        await until(lambda: len(first.numbers("held")) == 2)
        trouble(first)

    summary = read(tmp_path, servers, meanwhile())
    answered = require_each_page_once(tmp_path, summary)
    assert answered.count(base(first)) == 2, "what it answered before it had trouble"
    assert set(answered) == set(map(base, servers))
    kept = set(first.numbers("held"))
    # They are asked elsewhere. A server says so after it has sent its answer, which may be after the run's end.
    asked_elsewhere = until(lambda: kept <= {number for other in others for number in other.numbers("answered")})
    asyncio.run(asyncio.wait_for(asked_elsewhere, 60))


def test_a_server_that_is_started_again_is_used_again(servers, tmp_path):
    first, *others = servers
    first.tell("hold 2")
    with contextlib.ExitStack() as stack:
        again = []

        async def meanwhile():
            await until(lambda: len(first.numbers("held")) == 2)
            for other in others:
                other.tell("hold 0")
            first.kill()
            again.append(stack.enter_context(ServerProcess(first.port)))
            await until(lambda: len(again[0].numbers("answered")) >= 3)
            for other in others:
                other.tell("go")

        summary = read(tmp_path, servers, meanwhile())
    answered = require_each_page_once(tmp_path, summary)
    assert answered.count(base(first)) >= 5


def test_a_server_that_was_stopped_and_resumes_is_used_again(servers, tmp_path):
    first, *others = servers
    first.tell("hold 2")

    async def meanwhile():
        await until(lambda: len(first.numbers("held")) == 2)
        held = set(first.numbers("held"))
        stop(first)
        await until(lambda: held <= {number for other in others for number in other.numbers("answered")})
        for other in others:
            other.tell("hold 0")
        first.send(signal.SIGCONT)
        first.tell("go")
        before = len(first.numbers("answered"))
        await until(lambda: len(first.numbers("answered")) >= before + 3)
        for other in others:
            other.tell("go")

    answered = require_each_page_once(tmp_path, read(tmp_path, servers, meanwhile()))
    assert answered.count(base(first)) >= 3


def test_when_all_are_killed_the_run_ends_with_exit_code_8_and_the_next_one_reads_the_rest(servers, tmp_path):
    with contextlib.ExitStack() as stack:
        fresh = [stack.enter_context(ServerProcess()) for _ in range(2)]
        for server in fresh:
            server.tell("hold 4")

        async def meanwhile():
            await until(lambda: sum(len(server.numbers("held")) for server in fresh) == 4)
            for server in fresh:
                server.kill()

        with pytest.raises(ServerError, match="pages in a row without an answer; run it again later") as end:
            read(tmp_path, fresh, meanwhile())
    assert end.value.exit_code == ExitCode.SERVER

    async def nothing():
        pass

    before = sum(len(server.numbers("answered")) for server in fresh)
    pdf = tmp_path / "a.pdf"
    settings = {"target_longest_image_dim": 64, "server": tuple(server.url for server in servers)}
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=pdf, **settings)
    summary = asyncio.run(run_pipeline(config, open_pool=PoolHere))
    assert summary.exit_code == ExitCode.OK
    # A server that was killed may have given an answer that it had not noted yet.
    assert 0 <= PAGES - before - summary.pages <= len(fresh)


def test_summary_stats_and_numbers_tell_what_each_server_did(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, PAGES + 1))
    with ModelServer(GOOD) as one, ModelServer(GOOD) as two:
        urls = (base(one), base(two))
        config = PipelineConfig(workspace=tmp_path / "ws", pdfs=pdf, server=urls, target_longest_image_dim=64)
        summary = asyncio.run(run_pipeline(config, open_pool=PoolHere))
    metrics = json.loads((tmp_path / "ws/metrics.json").read_text())["servers"]
    assert set(summary.servers) == set(metrics) == set(urls)
    assert sum(counts["pages"] for counts in summary.servers.values()) == PAGES
    for url in urls:
        assert metrics[url]["answered"] == metrics[url]["pages"] == summary.servers[url]["pages"] > 0
        assert metrics[url]["output_tokens"] == 20 * metrics[url]["pages"]
        assert (metrics[url]["went_away"], metrics[url]["room"]) == (0, 8)
        assert read_stats(tmp_path / "ws").servers[url]["pages"] == metrics[url]["pages"]


def test_a_server_alone_is_named_in_what_it_answered_too(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    with ModelServer(chat_stream()) as server:
        config = PipelineConfig(workspace=tmp_path / "ws", pdfs=pdf, server=server.url, target_longest_image_dim=64)
        asyncio.run(run_pipeline(config, open_pool=PoolHere))
    assert read_stats(tmp_path / "ws").servers.keys() == {base(server)}


def test_servers_with_several_models_end_the_run_with_exit_code_8_before_a_page_is_asked(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1])
    with ModelServer(GOOD, models=["x"]) as one, ModelServer(GOOD, models=["y"]) as two:
        config = PipelineConfig(workspace=tmp_path / "ws", pdfs=pdf, server=(one.url, two.url))
        with pytest.raises(ServerError, match=f"x at {base(one)}; y at {base(two)}") as end:
            asyncio.run(run_pipeline(config, open_pool=PoolHere))
    assert end.value.exit_code == ExitCode.SERVER
    assert (one.requests, two.requests) == ([], [])


def keys_seen(server):
    return {headers.get("authorization") for _, headers, _ in server.requests}


def test_no_server_ever_sees_the_key_of_another(tmp_path):
    moved = whole(b"", 307, headers=[("Location", "http://127.0.0.1:9/v1/chat/completions")])
    with (
        ModelServer(GOOD, api_key="first") as one,
        ModelServer(fault(503), GOOD, api_key="second") as two,
        ModelServer(moved) as three,
    ):
        moved_to = whole(b"", 307, headers=[("Location", f"{two.url}/v1/chat/completions")])
        three.script = [moved_to]
        names = (one.url, f"{two.url} $SECOND", f"{three.url} -")
        config = BackendConfig(server=names, api_key="first", max_concurrent_pages=1)

        async def run():
            opened = answering(
                config,
                folder=tmp_path,
                longest_side=64,
                is_looping=lambda text: False,
                sleep=shortly,
                environment={"SECOND": "second"},
            )
            async with opened as found:
                return await asyncio.gather(*(found.ask(REQUEST) for _ in range(12)))

        answers = asyncio.run(run())
    assert {each.server for each in answers} == {base(one), base(two)}
    assert [keys_seen(each) for each in (one, two, three)] == [{"Bearer first"}, {"Bearer second"}, {None}]
