"""A command as it looks on a terminal of some width: every screen that it showed."""

import fcntl
import os
import struct
import subprocess
import termios

import pyte

_LINES = 30
_WIPE = b"\r\x1b[2K"


def screens(command, width, **options):
    """Run *command* on a terminal; return each screen that it showed as lines, and its exit code."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, width, 0, 0))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, **options)
    os.close(slave)
    screen = pyte.Screen(width, _LINES)
    stream = pyte.ByteStream(screen)
    shown = []
    while piece := _read(master):
        for step in piece.replace(_WIPE, b"\0" + _WIPE).split(b"\0"):  # before what is drawn is wiped out
            lines = [line.rstrip() for line in screen.display]
            if any(lines) and (not shown or shown[-1] != lines):
                shown.append(lines)
            stream.feed(step)
    shown.append([line.rstrip() for line in screen.display])
    os.close(master)
    return shown, process.wait(60)


def _read(master):
    try:
        return os.read(master, 1 << 16)
    except OSError:  # Linux says so when the other end is closed
        return b""
