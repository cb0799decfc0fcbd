"""The command, as a shell runs it."""

import os
import subprocess
import sys


def olmocr(*arguments, **environment):
    command = [sys.executable, "-m", "olmocr.pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
