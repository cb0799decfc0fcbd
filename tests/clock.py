"""Time that passes when a test says so."""

import asyncio


def pass_time(seconds):
    """Let so many seconds be over for all that waits in the running event loop."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds
