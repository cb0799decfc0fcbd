"""A real browser, and a server that notices whether it asks for something."""

import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Trap:
    """A server that remembers what it was asked for."""

    def __init__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def running_trap():
    trap = Trap()
    thread = threading.Thread(target=trap.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield trap
    trap.server.shutdown()
    thread.join()
    trap.server.server_close()


def browse(path, profile, fragment="", width=1200):
    """Return what :func:`browse_url` does of a file."""
    return browse_url(f"{path.as_uri()}{fragment}", profile, width)


def browse_url(url, profile, width=1200):
    """Return a page's whole document after its scripts have run, and what the browser's console said."""
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}",
        "--enable-logging=stderr", f"--window-size={width},900", "--virtual-time-budget=1500", "--dump-dom",
        url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, re.findall(r"CONSOLE[^\n]*", done.stderr)


def opened(path, profile, fragment=""):
    """Return a page's root element and its whole document, after its scripts have run."""
    dump, _ = browse(path, profile, fragment)
    return re.search("<html[^>]*>", dump)[0], dump
