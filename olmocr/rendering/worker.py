"""Requests on standard input -> answers on standard output: one process of a RenderPool, which may crash alone.

Requests and answers are JSON after four bytes with its length. A page's pixels do not pass through the pipe: they are
written into a file that the parent has opened and handed down.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import signal
import struct
import sys
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from olmocr.errors import InputError
from olmocr.rendering.blank import is_blank
from olmocr.rendering.render import Pages, open_document
from olmocr.runtime.memory import peak_memory

LENGTH = struct.Struct(">I")
"""The length of the JSON that follows, in bytes."""

_KEPT_OPEN = 4


class OpenDocument(Protocol):
    """What opens a document."""

    def __call__(self, path: Path, name: str, *, with_form: bool = True) -> AbstractContextManager[Pages]:
        """Open the document at *path*, called *name*, with its form or without."""


def main(open_document: OpenDocument = open_document) -> None:
    """Answer until standard input ends; the two arguments are the pixels' file descriptor and a memory limit in bytes.

    A page that is still being rendered when the parent ends is dropped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the group, and the parent decides
    pixels, memory_limit = (int(argument) for argument in sys.argv[1:3])
    _limit(memory_limit)
    answers = _own_stdout()
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    documents = _OpenDocuments(open_document)
    _send(answers, {"is_ready": True})
    while True:
        _send(answers, _answer(requests.get(), documents, pixels))


def _limit(memory: int) -> None:
    """Limit the address space, where the system can (a Mac cannot), and leave no core file after a crash."""
    for kind, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _own_stdout() -> BinaryIO:
    """Return standard output for our use alone: what a library prints goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _read_requests(stdin: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass requests on; once there can be no more, end the process, even in the middle of a page."""
    while len(start := stdin.read(LENGTH.size)) == LENGTH.size:
        requests.put(json.loads(stdin.read(LENGTH.unpack(start)[0])))
    os._exit(0)


def frame(message: dict[str, Any]) -> bytes:
    """Return *message* in the form that goes through a pipe."""
    content = json.dumps(message).encode("ascii")
    return LENGTH.pack(len(content)) + content


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(frame(answer))
    answers.flush()


def _answer(request: dict[str, Any], documents: _OpenDocuments, pixels: int) -> dict[str, Any]:
    name, page_number = request["name"], request.get("page_number")
    what = name if page_number is None else f"page {page_number} of {name}"
    try:
        pages = documents.get(Path(request["path"]), name, request.get("with_form", True))
        if page_number is None:
            facts = {"page_count": pages.page_count, "lacks_form": pages.lacks_form}
            return facts | ({"has_form": pages.has_form} if "asks_form" in request else {})
        if "asks_edges" in request:
            return {"edges": pages.edges(page_number)}
        return _rendered(pages, page_number, request["longest_side"], pixels)
    except InputError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": f"{what} needs more memory to be rendered than it may have"}
    except Exception as error:  # whatever a library fails at, only this page is affected, and the next may be good
        return {"refused": f"{what} could not be rendered: {type(error).__name__}: {error}"}


def _rendered(pages: Pages, page_number: int, longest_side: int, pixels: int) -> dict[str, Any]:
    image = pages.render(page_number, longest_side).pixels
    try:
        text = pages.text(page_number)
    except InputError:  # a page that can be seen is worth reading, whatever its own text is
        text = None
    try:
        _write(pixels, image.tobytes())
    except OSError as error:
        return {"unwritten": error.errno}
    return {
        "size": image.size,
        "text": text,
        "is_blank": is_blank(image, text),
        "lacks_form": pages.lacks_form,
        "peak_memory": peak_memory(),
    }


def _write(file: int, content: bytes) -> None:
    """Write all of *data* at the file's start; a disk that is filling up may silently take only a part."""
    done = 0
    while done < len(content):
        done += os.pwrite(file, memoryview(content)[done:], done)


class _OpenDocuments:
    """The last few documents, kept open: pages of one document mostly come one after the other."""

    def __init__(self, open_document: OpenDocument) -> None:
        self._open_document = open_document
        self._open: OrderedDict[tuple[Any, ...], tuple[Pages, ExitStack]] = OrderedDict()

    def get(self, path: Path, name: str, with_form: bool) -> Pages:
        """Return the document, opened again if the file has changed.

        Raises:
            InputError: it cannot be opened.
        """
        key = (path, name, with_form, *_version(path))
        if key not in self._open:
            with ExitStack() as stack:
                pages = stack.enter_context(self._open_document(path, name, with_form=with_form))
                self._open[key] = pages, stack.pop_all()
            if len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)[1][1].close()
        self._open.move_to_end(key)
        return self._open[key][0]


def _version(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:  # opening it will say why
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


if __name__ == "__main__":
    main()
