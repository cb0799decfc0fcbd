"""What model servers do wrong, through the whole pipeline: pages or typed failures, the right exit code, promptly."""

import asyncio
import json
import socket
import threading

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import ExitCode, ServerError
from tests.backends.model_server import (
    TEXT,
    ModelServer,
    chat_body,
    chat_pieces,
    chat_stream,
    cut,
    events,
    fault,
    late,
    reset,
    responses_stream,
    whole,
)
from tests.clocks import run_skipping, skip_when
from tests.pipeline.doubles import write_numbered_pdf

GOOD = whole(chat_body())
GARBAGE = whole(b"<html>\x1b[31mit works\x00</html>", content_type="text/html")
KILLED_IN_THE_MIDDLE = events(*chat_pieces()[:3], end="reset")
SILENT_END = events(*chat_pieces()[:3])


class Clock:
    """Waits for nothing, and remembers for how long."""

    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)


def read(folder, server, *, pages=4, clock=None, on_page=lambda source, page: None, **options):
    pdf = folder / "a.pdf"
    if not pdf.exists():
        write_numbered_pdf(pdf, range(1, pages + 1))
    options = {"target_longest_image_dim": 64, "max_concurrent_pages": 1, "server": server, **options}
    config = PipelineConfig(workspace=folder / "ws", pdfs=pdf, **options)
    return run_skipping(run_pipeline(config, sleep=(clock or Clock()).sleep, on_page=on_page))


def texts(folder):
    (path,) = (folder / "ws/results").iterdir()
    record = json.loads(path.read_text())
    return [record["text"][start:end].strip() for start, end, _ in record["attributes"]["pdf_page_numbers"]]


@pytest.mark.parametrize(
    ("step", "asks"),
    [
        pytest.param(reset, 5, id="reset"),
        pytest.param(fault(500), 5, id="500"),
        pytest.param(fault(503), 5, id="503"),
        pytest.param(whole(b"", code=502), 5, id="502 without a word"),
        pytest.param(cut(chat_body()), 5, id="cut in the middle"),
        pytest.param(KILLED_IN_THE_MIDDLE, 5, id="reset within a stream"),
        pytest.param(SILENT_END, 5, id="a stream that ends too early"),
        pytest.param(GARBAGE, 5, id="garbage"),
        pytest.param(whole(b'{"choices": [{"message": {"conte'), 5, id="truncated JSON"),
        pytest.param(whole([]), 5, id="JSON that is no answer"),
        pytest.param(whole(chat_body("")), 5, id="an answer without text"),
        pytest.param(whole(chat_body(finish_reason="length")), 5, id="a cut answer"),
        pytest.param(events(b"not JSON"), 5, id="a stream of garbage"),
    ],
)
def test_a_fault_that_passes_costs_one_question_more_and_no_page(step, asks, tmp_path):
    with ModelServer(step, GOOD) as server:
        summary = read(tmp_path, server.url)
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, 4, 0)
    assert len(server.requests) == asks
    assert texts(tmp_path) == ["Hello"] * 4


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(reset, id="reset"),
        pytest.param(fault(500), id="500"),
        pytest.param(fault(429), id="429"),
        pytest.param(cut(chat_body()), id="cut in the middle"),
        pytest.param(KILLED_IN_THE_MIDDLE, id="reset within a stream"),
    ],
)
def test_a_server_that_never_answers_ends_the_run_after_three_pages_with_exit_code_8(step, tmp_path):
    clock = Clock()
    with ModelServer(step) as server, pytest.raises(ServerError, match="after 3 pages in a row without") as end:
        read(tmp_path, server.url, pages=9, clock=clock)
    assert end.value.exit_code == ExitCode.SERVER
    assert len(server.requests) == 3 * 8
    assert 60 < sum(clock.waits) / 3 < 200, "each page waits for about two minutes"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        pytest.param(GARBAGE, "not complete JSON", id="garbage"),
        pytest.param(whole(b'{"choices": [{"message": {"conte'), "not complete JSON", id="truncated JSON"),
        pytest.param(whole(chat_body("no front matter")), "opener", id="another format"),
        pytest.param(whole(chat_body(finish_reason="length")), "finish_reason is 'length'", id="always cut"),
    ],
)
def test_a_server_that_only_talks_nonsense_fails_the_document_with_exit_code_9(step, why, tmp_path):
    with ModelServer(step) as server:
        summary = read(tmp_path, server.url, pages=2, max_page_retries=3)
    assert (summary.exit_code, summary.fallback_pages) == (ExitCode.SOME_DOCUMENTS_FAILED, 2)
    assert len(server.requests) == 2 * 3
    assert why in summary.failures[0].why
    assert summary.failures[0].why.isprintable()


def test_a_server_that_is_overloaded_is_left_alone_as_long_as_it_asks(tmp_path):
    clock = Clock()
    busy = fault(429, "too many requests", headers=[("Retry-After", "17")])
    with ModelServer(busy, busy, GOOD) as server:
        summary = read(tmp_path, server.url, clock=clock)
    assert summary.exit_code == ExitCode.OK
    assert len(clock.waits) == 2
    assert all(17 <= wait <= 18 for wait in clock.waits)


def test_a_server_that_asks_for_a_week_is_asked_again_after_minutes(tmp_path):
    clock = Clock()
    with ModelServer(fault(503, headers=[("Retry-After", "604800")]), GOOD) as server:
        assert read(tmp_path, server.url, clock=clock).exit_code == ExitCode.OK
    assert clock.waits[0] <= 301


def test_a_server_that_is_not_there_ends_the_run_at_once_with_exit_code_8(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        clock = Clock()
        with pytest.raises(ServerError, match=r"cannot be reached .* is the server running") as end:
            read(tmp_path, url, pages=1, clock=clock)
    assert end.value.exit_code == ExitCode.SERVER
    assert clock.waits == []
    assert not (tmp_path / "ws/failed").exists(), "no document is to blame"


def test_a_server_that_refuses_the_key_ends_the_run_at_once(tmp_path):
    with ModelServer(GOOD, api_key="right") as server, pytest.raises(ServerError, match="refuses the API key"):
        read(tmp_path, server.url, api_key="wrong")
    assert server.requests == []


def test_a_server_that_loses_its_model_in_the_middle_ends_the_run_at_once(tmp_path):
    with (
        ModelServer(GOOD, fault(404, "model olmocr not found")) as server,
        pytest.raises(ServerError, match="does not have the model"),
    ):
        read(tmp_path, server.url)
    assert len(server.requests) == 2


def test_a_page_that_the_server_refuses_falls_back_alone(tmp_path):
    with ModelServer(GOOD, fault(400, "cannot identify image"), GOOD) as server:
        summary = read(tmp_path, server.url, max_page_error_rate=0.5)
    assert (summary.exit_code, summary.fallback_pages, len(server.requests)) == (ExitCode.OK, 1, 4)


def test_a_slow_server_is_waited_for(tmp_path):
    all_are_asked = threading.Barrier(8)
    with ModelServer(late(all_are_asked)) as server:
        summary = read(tmp_path, server.url, pages=8, max_concurrent_pages=8)
    assert (summary.exit_code, summary.pages) == (ExitCode.OK, 8)


def test_a_server_that_hangs_costs_a_page_its_time_and_no_more(tmp_path):
    with ModelServer(events(*chat_pieces()[:2], end="hang"), GOOD) as server:
        pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 5))
        config = PipelineConfig(
            workspace=tmp_path / "ws", pdfs=pdf, server=server.url, max_concurrent_pages=1,
            target_longest_image_dim=64, page_timeout=50, max_page_error_rate=0.5,
        )  # fmt: skip

        async def run():
            running = asyncio.create_task(run_pipeline(config))
            await skip_when(lambda: server.requests, 50)
            return await running

        summary = run_skipping(run())
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, 4, 1)
    assert server.hung_up.wait(60), "nobody writes on for one who does not listen"


def test_pages_whose_time_runs_out_while_the_server_is_away_do_not_fall_back(tmp_path):
    class Slow(Clock):
        async def sleep(self, seconds):
            asyncio.get_running_loop().skip(15)
            await asyncio.Event().wait()

    with ModelServer(GOOD, GOOD, reset) as server, pytest.raises(ServerError, match="run it again later"):
        read(tmp_path, server.url, pages=9, page_timeout=15, clock=Slow())
    with ModelServer(GOOD) as back:
        summary = read(tmp_path, back.url)
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, 7, 0)


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_a_server_that_dies_in_the_middle_of_a_run_is_gone_on_with_when_it_is_back(seconds, tmp_path):
    """It answers four pages and is gone: the run ends with exit code 8; once it is back the others are asked."""

    def die(source, page):
        if page.page_number == 4:
            server.script = [reset]  # connections that are open yet
            server.__exit__()

    answers = chat_stream(pause=seconds / 10)
    server = ModelServer(answers)
    server.__enter__()
    port = server.url.rpartition(":")[2]
    with pytest.raises(ServerError, match=r"run it again later"):
        read(tmp_path, server.url, pages=9, on_page=die)
    asked_in_vain = len(server.requests) - 4
    assert asked_in_vain <= 1
    with ModelServer(answers, port=int(port)) as back:
        summary = read(tmp_path, back.url)
    assert (summary.exit_code, summary.pages, len(back.requests)) == (ExitCode.OK, 5, 5)
    assert texts(tmp_path) == ["Hello"] * 9


def test_a_server_that_is_back_before_patience_ends_costs_nothing(tmp_path):
    with ModelServer(GOOD, *[reset] * 7, GOOD) as server:
        summary = read(tmp_path, server.url)
    assert (summary.exit_code, summary.retried_pages, len(server.requests)) == (ExitCode.OK, 0, 11)


@pytest.mark.parametrize(("api", "step"), [("chat", chat_stream()), ("responses", responses_stream())])
def test_both_formats_are_read_through_to_the_document(api, step, tmp_path):
    with ModelServer(step) as server:
        summary = read(tmp_path, server.url, api=api, markdown=True)
    assert (summary.exit_code, summary.input_tokens, summary.output_tokens) == (ExitCode.OK, 400, 80)
    assert texts(tmp_path) == ["Hello"] * 4
    assert TEXT.endswith("Hello")
