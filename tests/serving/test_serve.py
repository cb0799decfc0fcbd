"""The command ``olmocr serve`` as a process, with the demo checkpoint, asked as other programs ask it."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import openai
import pytest

from olmocr.backends.client import connected
from olmocr.page import FRONT_MATTER_REGEX, PAGE_PROMPT, PageRequest, parse_page_response
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline_sync
from olmocr.rendering.render import open_document
from tests.conftest import PAGES
from tests.serving.servers import CHAT, OCR, data_uri
from tests.waiting import until

OLMOCR = [sys.executable, "-m", "olmocr"]
NAME = "8bit"


class Process:
    """The command; *url* is where it answers."""

    def __init__(self, folder, *options):
        command = [*OLMOCR, "serve", "--model", str(folder), "--port", "0", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OLMOCR_")}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        line = self.process.stdout.readline()
        assert " answers at http://127.0.0.1:" in line, self.process.stderr.read()
        self.url = line.split()[3].removesuffix("/v1")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.communicate(timeout=30)

    def metric(self, name):
        text = httpx.get(f"{self.url}/metrics", timeout=30, trust_env=False).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def stop(self, number):
        self.process.send_signal(number)
        _out, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


@pytest.fixture(scope="module")
def server(converted):
    with Process(converted(NAME)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def page_png(name="sparse_14.pdf", side=644):
    buffer = io.BytesIO()
    with open_document(PAGES / name, name) as pages:
        pages.render(1, side).pixels.save(buffer, format="PNG")
    return buffer.getvalue()


def chat_messages(content=b"", url=None):
    image = {"type": "image_url", "image_url": {"url": url or data_uri(content)}}
    return [{"role": "user", "content": [{"type": "text", "text": PAGE_PROMPT}, image]}]


@pytest.fixture(scope="module")
def read(client):
    """Return what the openai package makes of a page, answered whole."""
    return client.chat.completions.create(
        model="olmocr", messages=chat_messages(page_png()), max_tokens=400, temperature=0
    )


def test_the_openai_package_gets_a_page(read, truth):
    choice = read.choices[0]
    assert choice.finish_reason == "stop"
    page = parse_page_response(choice.message.content, "strict")
    assert page.natural_text == truth["sparse_14.pdf", 1]["natural_text"]
    assert read.usage.prompt_tokens > 500
    assert read.usage.completion_tokens > 20


def test_the_openai_package_streams_the_same_text_in_pieces(client, read):
    stream = client.chat.completions.create(
        model=NAME,
        messages=chat_messages(page_png()),
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"guided_regex": FRONT_MATTER_REGEX},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == read.choices[0].message.content
    assert len(pieces) > 5
    assert chunks[-1].usage.prompt_tokens == read.usage.prompt_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def responses_input(content):
    parts = [{"type": "input_text", "text": PAGE_PROMPT}, {"type": "input_image", "image_url": data_uri(content)}]
    return [{"role": "user", "content": parts}]


def test_the_openai_package_speaks_responses(client, read):
    whole = client.responses.create(model="olmocr", input=responses_input(page_png()))
    assert whole.output_text == read.choices[0].message.content
    assert whole.status == "completed"
    cut = client.responses.create(model="olmocr", input=responses_input(page_png()), max_output_tokens=20)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.usage.output_tokens == 20


def test_the_openai_package_streams_responses(client, read):
    with client.responses.stream(model="olmocr", input=responses_input(page_png())) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == read.choices[0].message.content


def test_the_openai_package_recognises_errors(client):
    with pytest.raises(openai.NotFoundError, match="by the names"):
        client.chat.completions.create(model="gpt-4o", messages=chat_messages(page_png()))
    with pytest.raises(openai.BadRequestError, match="opens no files") as caught:
        client.chat.completions.create(model="olmocr", messages=chat_messages(url="http://127.0.0.1/secret.png"))
    assert caught.value.code == "invalid_image_url"
    assert [each.id for each in client.models.list()] == [NAME]


def test_letters_of_several_bytes_arrive_whole(client):
    """Asked hotly about nothing, the model writes nonsense of all scripts."""
    noise = chat_messages(page_png(side=112))
    for seed in (1, 2):
        options = {"model": "olmocr", "messages": noise, "temperature": 2, "max_tokens": 60, "seed": seed}
        whole = client.chat.completions.create(**options).choices[0].message.content
        pieces = [
            each.choices[0].delta.content or "" for each in client.chat.completions.create(**options, stream=True)
        ]
        assert "".join(pieces) == whole


def test_our_own_client_reads_through_it_what_the_model_reads_here(server, converted, tmp_path, truth):
    options = {"pdfs": (str(PAGES / "sparse_14.pdf"),), "target_longest_image_dim": 644}
    for name, answers in (("there", {"server": server.url}), ("here", {"model": str(converted(NAME))})):
        summary = run_pipeline_sync(PipelineConfig(workspace=tmp_path / name, **options, **answers))
        assert summary.done == 1
    there, here = (
        json.loads(next((tmp_path / name / "results").iterdir()).read_text())["text"] for name in ("there", "here")
    )
    assert there == here == truth["sparse_14.pdf", 1]["natural_text"]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_our_own_client_knows_what_it_is_and_forces_front_matter(server, api):
    async def ask():
        with open_document(PAGES / "sparse_14.pdf", "a page") as pages:
            image = pages.render(1, 112)
        async with connected(server.url, api=api) as (ask, info):
            return info, await ask(PageRequest(image, guided=True, temperature=2.0, max_tokens=60, seed=5))

    info, answer = asyncio.run(ask())
    assert (info.kind, info.model, info.guide) == ("olmocr serve", NAME, "vllm")
    assert answer.text.startswith("---\nprimary_language: ")
    assert "\nis_diagram: " in answer.text


def test_a_pdf_is_read(server, truth):
    content = (PAGES / "sparse_14.pdf").read_bytes()
    reply = httpx.post(
        f"{server.url}{OCR}?longest_side=644", files={"file": ("sparse_14.pdf", content)}, timeout=60, trust_env=False
    )
    first, page, last = map(json.loads, reply.text.splitlines())
    assert first["name"] == "sparse_14.pdf"
    assert page["text"] == last["markdown"] == truth["sparse_14.pdf", 1]["natural_text"]
    assert page["text_coverage"] == 1.0


ASK = """
import httpx, pathlib, sys
content = pathlib.Path(sys.argv[2]).read_bytes()
with httpx.stream("POST", sys.argv[1], content=content, timeout=60, trust_env=False) as reply:
    for line in reply.iter_lines():
        print(line, flush=True)
"""

LONG = 290
"""Tokens of the answer to the page that is asked about here."""


@contextlib.contextmanager
def asking(server, folder):
    """Yield a process that asks for a long answer, when it has got the first of it."""
    body = folder / "question.json"
    messages = chat_messages(page_png("dense_12.pdf"))
    body.write_text(json.dumps({"model": "olmocr", "messages": messages, "stream": True}))
    command = [sys.executable, "-c", ASK, f"{server.url}{CHAT}", str(body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            for _ in range(4):
                process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_client_that_is_killed_in_a_stream_costs_no_more_tokens(server, client, tmp_path):
    def tokens_after_a_short_answer():
        """The engine takes its steps one after the other: with this answer those in hand have ended, too."""
        client.chat.completions.create(model="olmocr", messages=chat_messages(page_png(side=112)), max_tokens=3)
        return server.metric("olmocr_engine_tokens")

    first, before = tokens_after_a_short_answer(), tokens_after_a_short_answer()
    with asking(server, tmp_path) as process:
        process.kill()
    until(lambda: server.metric("olmocr_requests_in_hand") == 0)
    until(lambda: server.metric("olmocr_questions_in_hand") == 0)
    tokens = tokens_after_a_short_answer()
    short = before - first
    assert 0 < tokens - short - before < LONG - 50
    assert tokens_after_a_short_answer() - tokens == short


def test_ctrl_c_ends_it_while_it_answers(converted, tmp_path):
    with Process(converted(NAME), "--grace", "0") as server, asking(server, tmp_path) as process:
        code, log = server.stop(signal.SIGINT)
        rest = process.stdout.read().decode()
    assert code == 130
    assert "Traceback" not in log
    assert log.strip().splitlines()[-1].startswith("stopped: ")
    assert "this server is closing" in rest
    assert rest.strip().endswith("[DONE]")


def run(*arguments, **environment):
    return subprocess.run([*OLMOCR, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--model", "no/such", "--port", taken.getsockname()[1])
    assert done.returncode == 8
    assert done.stderr.strip().endswith("is taken; choose another with --port")


def test_other_machines_are_not_served_without_a_key(tmp_path):
    done = run("serve", "--model", tmp_path, "--host", "0.0.0.0", "--port", 0)
    assert done.returncode == 2
    assert "OLMOCR_API_KEY" in done.stderr


def test_lines_of_the_log_have_the_time(converted):
    with Process(converted(NAME)) as server:
        httpx.get(f"{server.url}/version", trust_env=False)
        _code, log = server.stop(signal.SIGINT)
    line = next(line for line in log.splitlines() if "GET /version: 200" in line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} GET /version: 200 in \d\.\d\d s", line)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("*", "OLMOCR_API_KEY"),
        ("null", "OLMOCR_API_KEY"),
        ("tool.example", "is not an origin"),
        ("https://a/b", "is not an origin"),
    ],
)
def test_web_pages_that_nobody_could_mean_are_not_allowed(tmp_path, origin, words):
    done = run("serve", "--model", tmp_path, "--allow-origin", origin)
    assert done.returncode == 2
    assert words in done.stderr


def test_the_openai_package_is_refused_what_would_change_an_answer_by_name(client):
    for name, value in {"stop": ["x"], "n": 2, "logprobs": True, "tools": [{"type": "function"}]}.items():
        with pytest.raises(openai.BadRequestError, match=name) as caught:
            client.chat.completions.create(model="current", messages=chat_messages(page_png(side=112)), **{name: value})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name)


def test_a_text_of_any_characters_reaches_the_model(client):
    image = chat_messages(page_png(side=112))[0]["content"][1]
    for text in ("a\0b", "\ufffe\U0010ffff", "\x1b[31m", "\u202e" * 50, "🏴‍☠️" * 20):
        messages = [{"role": "user", "content": [{"type": "text", "text": text}, image]}]
        answer = client.chat.completions.create(model="olmocr", messages=messages, max_tokens=2)
        assert answer.usage.completion_tokens == 2


def test_the_command_reads_documents_as_before(tmp_path):
    shown = run("--help").stdout
    assert "read any number into a folder of results" in shown
    assert "serve it to other programs" in shown
    assert "--kv-budget" in run("serve", "--help").stdout
    alone = subprocess.run([sys.executable, "-m", "olmocr.serving", "--help"], capture_output=True, text=True)
    assert "--kv-budget" in alone.stdout
    done = run("./serve", "--pdfs", tmp_path / "none.pdf", "--model", tmp_path)
    assert done.returncode == 7, done.stderr
