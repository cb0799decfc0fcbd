"""A model server in a process of its own, which can be killed, stopped and started again, and is told what to do.

It reads the number on a page, and answers with it. ``hold N``: it answers N questions more, and no other before it is
told ``go``. ``fail``: it answers 503 from now on, also to what it holds. What it does is printed: ``asked 7``,
``held 7``, ``answered 7``.
"""

import base64
import io
import os
import signal
import subprocess
import sys
import threading

from PIL import Image

from tests.backends.model_server import ModelServer, chat_body, send
from tests.pipeline.doubles import answer, number_of


class ServerProcess:
    """Such a process, at *port* or any that is free; a context manager. *lines* are what it printed."""

    def __init__(self, port=0):
        self._port = port
        self.lines = []

    def __enter__(self):
        command = [sys.executable, "-m", "tests.backends.server_process", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.url = self._process.stdout.readline().strip()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self.kill()
        self._process.stdin.close()
        self._process.stdout.close()

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def _listen(self):
        for line in self._process.stdout:
            self.lines.append(line.strip())

    def numbers(self, what):
        """Return the pages to which it did that, in order."""
        return [int(line.split()[1]) for line in list(self.lines) if line.startswith(what)]

    def tell(self, what):
        self._process.stdin.write(f"{what}\n")

    def send(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        if self._process.poll() is None:
            self.send(signal.SIGKILL)
        self._process.wait()


class _Told:
    def __init__(self):
        self.left = 1 << 30
        self.fails = False
        self.changed = threading.Condition()

    def listen(self):
        for line in sys.stdin:
            with self.changed:
                what, _, count = line.strip().partition(" ")
                self.fails = what == "fail"
                self.left = int(count) if what == "hold" else 1 << 30
                self.changed.notify_all()

    def step(self, handler, number):
        _say("asked", number)
        with self.changed:
            if self.left <= 0:
                _say("held", number)
                self.changed.wait_for(lambda: self.left > 0)
            self.left -= 1
        if self.fails:
            send(handler, 503, {"error": {"message": "overloaded"}})
            return
        send(handler, 200, chat_body(answer(f"page {number}").text))
        _say("answered", number)


def _say(what, number):
    # One string: print writes each of its arguments by itself, and pages are answered in several threads.
    print(f"{what} {number}\n", end="", flush=True)


def _number_in(body):
    (message,) = body["messages"]
    data = message["content"][1]["image_url"]["url"].partition(",")[2]
    return number_of(Image.open(io.BytesIO(base64.b64decode(data))))


def main():
    told = _Told()
    server = ModelServer(lambda handler: told.step(handler, handler.number), port=int(sys.argv[1]))
    server.heard = lambda handler, body: setattr(handler, "number", _number_in(body))
    with server:
        print(server.url, flush=True)
        told.listen()


if __name__ == "__main__":
    main()
