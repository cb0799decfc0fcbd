"""The command, as a shell runs it."""

import os
import signal
import subprocess
import sys

from typer.testing import CliRunner

from olmocr.pipeline.__main__ import app


def olmocr(*arguments, **environment):
    command = [sys.executable, "-m", "olmocr.pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def refused(*arguments, **environment):
    """Return the same of a command that refuses before it begins: in this process, which is much sooner done."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        result = CliRunner().invoke(app, list(map(str, arguments)), env=environment)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)
