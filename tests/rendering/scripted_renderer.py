"""A RenderPool's worker whose documents are scripts: line by line, what happens when that page is rendered."""

import contextlib
import ctypes
import os
import signal
import sys
import time

from PIL import Image

from olmocr.errors import InputError
from olmocr.page import PageImage
from olmocr.rendering.worker import main


class Script:
    def __init__(self, path, with_form):
        self.path = path
        self.lines = path.read_text().splitlines()
        self.page_count = len(self.lines)
        self.has_form = False
        self.lacks_form = not with_form and "form" in self.path.name
        self.with_form = with_form

    def render(self, page_number, longest_side):
        (self.path.parent / f"{page_number}.begun").touch()
        line = self.lines[page_number - 1]
        with (self.path.parent / "asked").open("a") as asked:
            asked.write(f"{page_number}{'' if self.with_form else ' without its form'}\n")
        if self.with_form or not line.startswith("form-"):
            act(line.removeprefix("form-"), self.path.parent)
        return PageImage(Image.new("RGB", (longest_side, page_number), "white"))

    def text(self, page_number):
        return str(os.getpid())


def act(line, folder):
    what, _, argument = line.partition(" ")
    ACTIONS[what](argument, folder)


def crash(argument, folder):
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_once(argument, folder):
    if not (folder / "crashed").exists():
        (folder / "crashed").touch()
        crash(argument, folder)


def kill(argument, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(argument, folder):
    ctypes.CDLL(None).sleep(1000)  # in C, as PDFium would


def wait_for(argument, folder):
    while not (folder / argument).exists():
        time.sleep(0.005)


def print_(argument, folder):
    print("Python says hello", flush=True)
    ctypes.CDLL(None).puts(b"and so does C")
    ctypes.CDLL(None).fflush(None)


def bug(argument, folder):
    raise KeyError(argument)


ACTIONS = {
    "good": lambda argument, folder: None,
    "crash": crash,
    "crash-once": crash_once,
    "kill": kill,
    "hang": hang,
    "wait-for": wait_for,
    "print": print_,
    "bug": bug,
    "allocate": lambda argument, folder: bytearray(int(argument)),
    "lose-pixels": lambda argument, folder: os.close(int(sys.argv[1])),
}


@contextlib.contextmanager
def open_script(path, name, *, with_form=True):
    if not path.is_file():
        raise InputError(f"{name} is not there")
    yield Script(path, with_form)


if __name__ == "__main__":
    main(open_script)
