"""What docs/integrations.md and docs/serve.md say that other programs need runs as it stands, where that is installed.

docling and LangChain may be in an environment of their own: ``INTEGRATIONS_PYTHON`` names its interpreter.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.pipeline.doubles import answer
from tests.serving.servers import CHAT, Writer, picture, running

PYTHON = os.environ.get("INTEGRATIONS_PYTHON", sys.executable)

SNIPPETS = [
    snippet
    for document in ("integrations.md", "serve.md")
    for snippet in re.findall(r"^```(\w+) needs=(\w+)\n(.*?)^```", (ROOT / "docs" / document).read_text(), re.M | re.S)
]

PAGE = "# Yearly Report\n\nAll is well."


def snippets(*needs):
    found = [(need, code) for _, need, code in SNIPPETS if need in needs]
    return pytest.mark.parametrize(("need", "code"), found, ids=[f"{need}-{at}" for at, (need, _) in enumerate(found)])


@pytest.fixture
def writer():
    text = answer(PAGE).text
    return Writer(text[:50], text[50:-3], text[-3:])


@pytest.fixture
def server(writer):
    with running(writer) as server:
        yield server


def run(command, code, server, folder):
    """Run a snippet in a folder that looks like a clone, with the server's own port in the place of 8000."""
    (folder / "demo").symlink_to(ROOT / "demo")
    (folder / "page.png").write_bytes(picture())
    code = code.replace("http://127.0.0.1:8000", server.url)
    return subprocess.run([*command, code], cwd=folder, capture_output=True, text=True, timeout=300)


def is_installed(library):
    return not subprocess.run([PYTHON, "-c", f"import {library}"], capture_output=True).returncode


def test_there_are_examples_of_each_kind():
    assert [need for _, need, _ in SNIPPETS] == [
        "docling", "docling", "langchain_openai", "langchain_core", "curl", "curl", "openai"
    ]  # fmt: skip


@snippets("docling", "langchain_openai", "langchain_core")
def test_an_example_in_python_runs_as_it_stands(need, code, server, writer, tmp_path):
    if not is_installed(need):
        pytest.skip(f"no {need} here; INTEGRATIONS_PYTHON names an interpreter that has it")
    done = run([PYTHON, "-c"], code, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Yearly Report" in done.stdout
    assert "primary_language" not in done.stdout
    for request in writer.requests:
        assert request.prompt.startswith("Attached is one page")
        assert 1286 <= max(request.image.pixels.size) <= 1289


@snippets("curl")
def test_an_example_for_a_shell_runs_as_it_stands(need, code, server, tmp_path):
    if shutil.which(need) is None:
        pytest.skip("no curl here")
    done = run(["bash", "-c"], code, server, tmp_path)
    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout)["choices"][0]["message"]["content"] if done.stdout.startswith("{") else done.stdout
    assert PAGE in text
    assert "primary_language" not in text


CURLS = re.findall(r"^curl .*", (ROOT / "docs/serve.md").read_text(), re.M)


@snippets("openai")
def test_an_example_of_a_question_runs_as_it_stands(need, code, server, tmp_path):
    done = run([PYTHON, "-c"], code, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# Yearly Report" in done.stdout


@pytest.mark.parametrize("command", CURLS)
def test_what_the_docs_of_the_server_ask_with_curl_runs_as_it_stands(command, server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    done = run(["bash", "-c"], command, server, tmp_path)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "report_22.md"
    assert "# Yearly Report" in (written.read_text() if written.exists() else done.stdout)


def opaque_picture():
    """Return a page as docling sends it: with a channel for what is transparent."""
    buffer = io.BytesIO()
    Image.new("RGBA", (56, 56), "white").save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def image_part():
    return {"type": "image_url", "image_url": {"url": opaque_picture()}}


# docling 2.143 (docling/utils/api_image_request.py), with the settings of docs/integrations.md: the picture first.
DOCLING = {
    "messages": [{"role": "user", "content": [image_part(), {"type": "text", "text": ""}]}],
    "temperature": 0.0,
    "max_tokens": 8000,
    "model": "olmocr",
    "front_matter": False,
}


# langchain-openai 1.7, streaming, with the settings of docs/integrations.md.
LANGCHAIN = {
    "model": "olmocr",
    "stream": True,
    "temperature": 0.0,
    "messages": [{"content": [image_part()], "role": "user"}],
    "front_matter": False,
}


def test_what_langchain_sends_gets_what_it_reads(server, writer):
    lines = server.post(CHAT, json=LANGCHAIN).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == PAGE
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert writer.requests[0].prompt.startswith("Attached is one page")


def test_what_docling_sends_gets_what_it_reads(server, writer):
    reply = server.post(CHAT, json=DOCLING).json()
    assert reply["choices"][0]["message"]["content"] == PAGE
    assert isinstance(reply["usage"]["total_tokens"], int)
    assert writer.requests[0].prompt.startswith("Attached is one page")
