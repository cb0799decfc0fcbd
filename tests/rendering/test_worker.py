"""A worker reads framed requests, answers each, and opens a file again only when it has changed."""

import json
import os
import subprocess
import sys

import pytest

from olmocr.rendering.worker import LENGTH, frame
from tests.pipeline.doubles import write_numbered_pdf


class Worker:
    """A worker as the pool starts it, asked by hand."""

    def __init__(self, pixels):
        arguments = [sys.executable, "-m", "olmocr.rendering.worker", str(pixels.fileno()), str(4 << 30)]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[pixels.fileno()]
        )
        self.pixels = pixels
        assert self.answer() == {"is_ready": True}

    def ask(self, **request):
        self.process.stdin.write(frame(request))
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        (length,) = LENGTH.unpack(self.process.stdout.read(LENGTH.size))
        return json.loads(self.process.stdout.read(length))


@pytest.fixture
def worker(tmp_path):
    with (tmp_path / "pixels").open("w+b") as pixels:
        worker = Worker(pixels)
        with worker.process:
            yield worker
            worker.process.stdin.close()
        assert worker.process.returncode == 0


def test_a_frame_is_its_length_and_json_in_ascii():
    made = frame({"name": "päge\udc80"})
    (length,) = LENGTH.unpack(made[: LENGTH.size])
    assert len(made) == LENGTH.size + length
    assert json.loads(made[LENGTH.size :].decode("ascii")) == {"name": "päge\udc80"}


def test_a_document_is_counted_and_its_pages_pixels_are_left_in_the_file(worker, tmp_path):
    pdf = str(write_numbered_pdf(tmp_path / "a.pdf", [1, 2]))
    assert worker.ask(path=pdf, name="a.pdf")["page_count"] == 2
    page = worker.ask(path=pdf, name="a.pdf", page_number=2, longest_side=40)
    width, height = page["size"]
    assert max(width, height) == 40
    assert not page["is_blank"]
    assert len(os.pread(worker.pixels.fileno(), 1 << 20, 0)) == width * height * 3


def test_what_cannot_be_read_is_refused_with_its_name_and_the_next_page_is_read(worker, tmp_path):
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 but nothing else")
    assert "bad.pdf" in worker.ask(path=str(bad), name="bad.pdf")["refused"]
    good = str(write_numbered_pdf(tmp_path / "good.pdf", [1]))
    assert "page 9 of good.pdf" in worker.ask(path=good, name="good.pdf", page_number=9, longest_side=40)["refused"]
    assert worker.ask(path=good, name="good.pdf", page_number=1, longest_side=40)["size"]


def test_a_file_that_was_replaced_is_read_anew(worker, tmp_path):
    path = write_numbered_pdf(tmp_path / "a.pdf", [1])
    assert worker.ask(path=str(path), name="a.pdf")["page_count"] == 1
    write_numbered_pdf(path, [1, 2, 3])
    assert worker.ask(path=str(path), name="a.pdf")["page_count"] == 3
