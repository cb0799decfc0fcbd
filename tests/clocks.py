"""A loop whose clock can be put forward, so that no test waits for a time limit, and none is over by chance."""

import asyncio


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop with a clock that is put forward: a long limit is over when a test says so.

    All limits that run just then see it: what is skipped is less than those that are not meant.
    """

    def __init__(self):
        super().__init__()
        self.skipped = 0.0

    def time(self):
        return super().time() + self.skipped

    def skip(self, seconds):
        """Let so many seconds be over; for other threads there is call_soon_threadsafe."""
        self.skipped += seconds


def run_skipping(coroutine):
    """Do what asyncio.run does, in such a loop."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(coroutine)


async def skip_when(holds, seconds):
    """Put the running loop's clock forward as soon as *holds()*."""
    while not holds():
        await asyncio.sleep(0.005)
    asyncio.get_running_loop().skip(seconds)


async def skip_until(task, seconds, steps=100):
    """Put the running loop's clock forward in *steps* of so many seconds, each seen by all, until *task* is done."""
    for _ in range(steps):
        asyncio.get_running_loop().skip(seconds)
        for _ in range(20):
            await asyncio.sleep(0)
        if task.done():
            return
