"""PageRequest -> ModelResponse with a model in this process, many pages at once."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import mlx.core as mx
from PIL import Image

from olmocr.errors import CheckpointError, ServerError, reason_of
from olmocr.inference.costs import measure_costs
from olmocr.inference.decode import BatchLimits, Counts, Scheduler, decode, token_bytes
from olmocr.inference.draft import Costs
from olmocr.inference.model import LoadedModel, load_model
from olmocr.inference.row import Asked, Generation
from olmocr.model_folder import ModelFolder
from olmocr.page import ModelResponse, PageImage, PageRequest
from olmocr.runtime.device import CUDA_STEP_BYTES, STEP_BYTES, Device, gpu_limit, memory_limits
from olmocr.runtime.memory import physical_memory
from olmocr.runtime.threads import in_a_lasting_thread

_FEWEST_PAGES, _MOST_PAGES = 8, 32
"""The default limits of pages at once: a CPU reads the fewest, a GPU as many as pay there."""

_USUAL_TOKENS = 3072
"""The tokens of a page at 1288 pixels and its answer, for which there should be memory."""

PROMPT_STEPS = {"cpu": 512, "metal": 512, "cuda": 2048}
"""How many tokens of a new page's prompt to read between two steps of the others, by the kind of device.

On an H200, 2048 tokens take 44 ms in bfloat16, and 512 take 13 ms (benchmarks/README.md).
"""

_LEAST_KV_BYTES = 1 << 29
"""Enough for a page of the 7B model and its answer; less would be useless."""


class Engine:
    """A loaded model and the one thread that owns it, since MLX's streams belong to the thread that made them.

    Use it as a context manager; leaving it stops unfinished answers.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: Device,
        *,
        is_looping: Callable[[str], bool] | None = None,
        kv_budget: int | None = None,
        most_pages: int | None = None,
        drafted_pages: int | None = None,
        prompt_step: int | None = None,
        longest_side: int | None = None,
        costs: Costs | None = None,
        stock_vision: bool = False,
    ) -> None:
        """Load the model.

        Args:
            folder: the converted folder.
            device: the device to compute on.
            is_looping: returns whether an answer so far repeats itself endlessly, which ends the answer. So do 4096
                tokens that repeat a block of at most 64. With None, no repetition ends an answer.
            kv_budget: the most bytes of keys and values; by default what the device has besides the weights.
            most_pages: how many answers to write at once; None: as many as pay on this device and have room.
            drafted_pages: the most answers at once with which there are drafts; None: wherever they pay; 0: never.
            prompt_step: how many tokens of a new page to read between two steps of the others; None: what suits the
                device.
            costs: limit the length of drafts; by default they are measured.
            longest_side: the longest side, in pixels, of the pages that will come.
            stock_vision: whether images go through mlx-vlm's own vision tower.

        Raises:
            CheckpointError: *folder* does not contain a model that can be loaded.
            UsageError: *kv_budget* has no room for a page of *longest_side*.
        """
        self._longest_side = longest_side
        self._inbox: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False

        def limits(loaded: LoadedModel) -> BatchLimits:
            kv_bytes = kv_budget or spare_bytes(device)
            known = costs
            if most_pages is None and device.kind != "cpu":
                known = costs or measure_costs(loaded)
            most = most_pages or pages_that_pay(known, kv_bytes // token_bytes(loaded))
            drafted = most if drafted_pages is None else drafted_pages
            return BatchLimits(most, kv_bytes, prompt_step or PROMPT_STEPS[device.kind], drafted, known)

        self._make_scheduler: Callable[[LoadedModel], Scheduler] = lambda loaded: Scheduler(
            loaded, limits(loaded), is_looping
        )
        load = partial(_load, folder, device, stock_vision=stock_vision)
        loading: Future[str] = Future()
        self._running = in_a_lasting_thread(partial(self._run, device, load, loading))
        try:
            self._description = loading.result()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __str__(self) -> str:
        return self._description

    @property
    def counts(self) -> Counts:
        """The counters so far."""
        return replace(self._counts)

    @property
    def most_pages(self) -> int:
        """How many pages are read at once; more wait."""
        return self._most_pages

    @property
    def peak_memory(self) -> int:
        """The peak of MLX's arrays in bytes; on a Mac, not all of them count as the process's own.

        On a CPU with float32 weights, keys and values are numpy's, and not in it.
        """
        return mx.get_peak_memory()

    async def ask(self, request: PageRequest, on_text: Callable[[str], None] | None = None) -> ModelResponse:
        """Answer *request*, together with others. Cancelling this call ends the page's answer and frees its memory.

        *on_text* is called in this event loop with all text so far, each time there may be more. The text grows only by
        complete characters.

        Raises:
            InputError: the model cannot read this page.
            AnswerError: the model failed; another attempt may help.
            ServerError: the engine is closed.
        """
        asked = Asked(request, Future(), on_text and _called_in(asyncio.get_running_loop(), on_text))
        with self._lock:
            if self._is_closed:
                raise _closed()
            asked.answer.add_done_callback(self._counts.count_end)
            self._inbox.put(asked)
        answer: Generation = await asyncio.wrap_future(asked.answer)
        return ModelResponse(
            text=answer.text,
            finish_reason=answer.finish_reason,
            input_tokens=answer.input_tokens,
            output_tokens=len(answer.tokens) + (answer.finish_reason == "stop"),
            passes=answer.passes,
        )

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._inbox.put(None)
        wait([self._running])

    def _run(self, device: Device, load: Callable[[], LoadedModel], loading: Future[str]) -> None:
        """Own MLX: load the model, then answer requests until closed."""
        try:
            set_limits(device)
            loaded = load()
            scheduler = self._make_scheduler(loaded)
            self._counts = scheduler.counts
            self._most_pages = scheduler.most_pages
            if self._longest_side:
                scheduler.require_room(_blank_page(self._longest_side))
        except BaseException as error:
            loading.set_exception(error)
            del error  # with its frames, and their arrays
        else:
            loading.set_result(str(loaded))
            try:
                self._answer(scheduler)
            finally:
                del loaded, scheduler

    def _answer(self, scheduler: Scheduler) -> None:
        while not self._is_closed:
            self._hand_in(scheduler)
            if not self._is_closed:
                scheduler.advance()
        self._hand_in(scheduler)
        scheduler.refuse_all(_closed())

    def _hand_in(self, scheduler: Scheduler) -> None:
        """Pass on new requests; if there is nothing to do, wait for one."""
        while not self._inbox.empty() or (scheduler.is_idle and not self._is_closed):
            asked = self._inbox.get()
            if asked:
                scheduler.add(asked)


def pages_that_pay(costs: Costs | None, tokens: int) -> int:
    """Return how many pages to read at once with these *costs* (None on a CPU) and memory for *tokens* tokens.

    Twice as many pay if their step takes less than 1.5 times as long, and if there is room for them and for what is
    kept of earlier pages.
    """
    pages = _FEWEST_PAGES
    while costs and 2 * pages <= _MOST_PAGES and costs.of(2 * pages) < 1.5 * costs.of(pages):
        if 2 * pages * _USUAL_TOKENS > tokens // 2:
            break
        pages *= 2
    return pages


def _called_in(loop: asyncio.AbstractEventLoop, on_text: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that any thread may call, and that calls *on_text* in *loop*."""

    def call(text: str) -> None:
        loop.call_soon_threadsafe(on_text, text)

    return call


def _blank_page(longest_side: int) -> PageRequest:
    """Return a request for an empty page with the proportions of A4."""
    return PageRequest(PageImage(Image.new("RGB", (max(28, longest_side * 210 // 297), longest_side), "white")))


def _load(folder: ModelFolder, device: Device, *, stock_vision: bool) -> LoadedModel:
    """Load the model and begin one answer with it, so that a damaged model is noticed now and not at every page."""
    loaded = load_model(folder, device, stock_vision=stock_vision)
    blank = PageRequest(PageImage(Image.new("RGB", (56, 56), "white")), max_tokens=1)
    try:
        decode(loaded, blank)
    except Exception as error:  # whatever error a wrong size or setting causes in the arithmetic
        raise CheckpointError(
            f"{folder.path} can be loaded, but does not answer: {reason_of(error)}; convert it again"
        ) from error
    return loaded


def set_limits(device: Device, mlx: Any = mx) -> None:
    """Make macOS keep the weights in memory, and make MLX stay within memory and return most of what it frees."""
    limits = memory_limits(mlx.device_info()) if device.kind == "metal" else None
    if limits:
        mlx.set_wired_limit(limits.wired)
        mlx.set_memory_limit(limits.memory)
        mlx.set_cache_limit(limits.cache)


def spare_bytes(device: Device) -> int:
    """Return the bytes that *device* has for keys and values, now that the weights are in its memory."""
    most = gpu_limit() or physical_memory() // 2
    return max(_LEAST_KV_BYTES, most - mx.get_active_memory() - step_bytes(device))


def step_bytes(device: Device) -> int:
    """Return the bytes that a step needs besides weights, keys and values."""
    return CUDA_STEP_BYTES if device.kind == "cuda" else STEP_BYTES


def _closed() -> ServerError:
    return ServerError("the model was closed before this page was answered; open it again to continue")
