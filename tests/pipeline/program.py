"""A program that acts as ``vllm serve``: it answers, crashes, grows or hangs as its option ``--mode`` says."""

import sys

SOURCE = r"""
import json, os, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

assert sys.argv[1] == "serve"
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
mode, folder = options["--mode"], options["--folder"]
with open(f"{folder}/lives", "a") as file:
    print(os.getpid(), file=file)
life = len(open(f"{folder}/lives").readlines())
first = life == 1

if mode == "fails":
    for number in range(30):
        print("line", number, "\033[31m", file=sys.stderr)
    sys.exit(3)
if mode == "killed at its start" and life < 3:
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "chatty":
    sys.stdout.write("talk " * 200_000)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(600)"])
    with open(f"{folder}/lives", "a") as file:
        print(child.pid, file=file)
if mode == "grows" and first:
    ballast = bytearray(os.urandom(1 << 20)) * 150

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        entry = {"id": options["--served-model-name"], "owned_by": "vllm"}
        is_loaded = mode != "never" and (mode != "loads slowly" or first or os.path.exists(f"{folder}/loaded"))
        self.answer({"data": [entry] if is_loaded else []})
        # The last that is looked at before the server counts as ready.
        if self.path == "/health" and mode == "crashes":
            threading.Timer(0.05, os._exit, [9]).start()

    def do_POST(self):
        question = self.rfile.read(int(self.headers["content-length"]))
        if mode == "crashes" or (mode == "poisoned" and b"poison" in question):
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "grows" and first:
            time.sleep(0.3)
        choice = {"message": {"content": f"life {life}"}, "finish_reason": "stop"}
        self.answer({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})

    def answer(self, body):
        known = self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass

ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


def write_program(path):
    """Write the program to *path*, executable."""
    path.write_text(f"#!{sys.executable} -IS\n{SOURCE}")
    path.chmod(0o755)
    return str(path)
