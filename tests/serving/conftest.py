"""What these tests share."""

import tempfile

import pytest

from tests.pipeline.doubles import write_numbered_pdf
from tests.serving.servers import Writer, running
from tests.serving.uploaded import reading


@pytest.fixture(scope="module")
def server():
    with running(Writer()) as server:
        yield server


@pytest.fixture(scope="module")
def reading_server(tmp_path_factory):
    """A server whose uploads lie in a folder of its own."""
    folder, before = tmp_path_factory.mktemp("uploads"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        with reading(pages=4, request_bytes=1_000_000) as reading_server:
            reading_server.folder = folder
            yield reading_server
    finally:
        tempfile.tempdir = before


@pytest.fixture
def pdf(tmp_path):
    return lambda *numbers: write_numbered_pdf(tmp_path / "a.pdf", numbers).read_bytes()
