"""PageRequest -> ModelResponse by a model in this process, many pages at once."""

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
"""Pages that are written at once, unless the caller says otherwise: on a CPU the fewest, on a GPU what pays there."""

_USUAL_TOKENS = 3072
"""Tokens of a page at 1288 pixels and its answer, for which there should be memory."""

PROMPT_STEPS = {"cpu": 512, "metal": 512, "cuda": 2048}
"""Tokens of a new page's prompt that are read between two steps of the others, by the kind of device.

On an H200 2048 take 44 ms in bfloat16, and 512 13 (benchmarks/README.md).
"""

_LEAST_KV_BYTES = 1 << 29
"""A page of the 7B model, and its answer: less would be of no use."""


class Engine:
    """A loaded model and the one thread that owns it: MLX's streams belong to the thread that made them.

    Use it as a context manager; leaving it stops the answers in the making.
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

        *is_looping* says of an answer so far whether it goes round in circles, which ends it; so do 4096 tokens of one
        block of at most 64. None: nothing does. *kv_budget* is how many bytes keys and values may take, by default what
        the device has beside the weights; *most_pages* are written at once (None: as many as pay on this device and
        have room), with drafts where they are no more than *drafted_pages* (None: wherever they pay; 0: never), and
        *prompt_step* tokens of a new page are read between two steps of the others (None: what suits the device).
        *costs* say how long drafts may be; by default they are measured. *longest_side* is that of the pages that will
        come, in pixels. With *stock_vision*, images go through mlx-vlm's own vision tower.

        Raises:
            CheckpointError: *folder* holds no model that can be loaded.
            UsageError: there is no room for a page of *longest_side* in *kv_budget*.
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
        """What has been done so far."""
        return replace(self._counts)

    @property
    def most_pages(self) -> int:
        """How many pages are written at once; more wait."""
        return self._most_pages

    @property
    def peak_memory(self) -> int:
        """The most bytes that MLX's arrays have taken; on a Mac not all of them count as the process's own."""
        return mx.get_peak_memory()

    async def ask(self, request: PageRequest, on_text: Callable[[str], None] | None = None) -> ModelResponse:
        """Answer *request*, beside others. Cancelling this ends the page's answer and frees its memory.

        *on_text* is called, in this event loop, with all that is written so far, each time that there may be more. It
        grows by whole letters.

        Raises:
            InputError: the model cannot read this page.
            AnswerError: the model failed; asking again may help.
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
        """Own MLX: load the model, then answer until closed."""
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
            del error  # with the frames that it came from, and their arrays
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
        """Hand on what was asked meanwhile; where there is nothing to do, wait until something is."""
        while not self._inbox.empty() or (scheduler.is_idle and not self._is_closed):
            asked = self._inbox.get()
            if asked:
                scheduler.add(asked)


def pages_that_pay(costs: Costs | None, tokens: int) -> int:
    """Return how many pages to write at once on a GPU with such *costs* and memory for so many *tokens*; None: a CPU.

    Twice as many pay if a step of them takes less than half as long again, and if they and what is kept of earlier ones
    have room.
    """
    pages = _FEWEST_PAGES
    while costs and 2 * pages <= _MOST_PAGES and costs.of(2 * pages) < 1.5 * costs.of(pages):
        if 2 * pages * _USUAL_TOKENS > tokens // 2:
            break
        pages *= 2
    return pages


def _called_in(loop: asyncio.AbstractEventLoop, on_text: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function for any thread, which has *on_text* called in *loop*."""

    def call(text: str) -> None:
        loop.call_soon_threadsafe(on_text, text)

    return call


def _blank_page(longest_side: int) -> PageRequest:
    """Return the question about an empty page as high and as wide as A4."""
    return PageRequest(PageImage(Image.new("RGB", (max(28, longest_side * 210 // 297), longest_side), "white")))


def _load(folder: ModelFolder, device: Device, *, stock_vision: bool) -> LoadedModel:
    """Load the model and have it begin one answer, so that a damaged one is noticed now and not at every page."""
    loaded = load_model(folder, device, stock_vision=stock_vision)
    blank = PageRequest(PageImage(Image.new("RGB", (56, 56), "white")), max_tokens=1)
    try:
        decode(loaded, blank)
    except Exception as error:  # whatever a wrong size or setting makes of the arithmetic
        raise CheckpointError(
            f"{folder.path} can be loaded but not asked: {reason_of(error)}; convert it again"
        ) from error
    return loaded


def set_limits(device: Device, mlx: Any = mx) -> None:
    """Have macOS keep the weights in memory, and MLX take no more than there is and give back most of what it freed."""
    limits = memory_limits(mlx.device_info()) if device.kind == "metal" else None
    if limits:
        mlx.set_wired_limit(limits.wired)
        mlx.set_memory_limit(limits.memory)
        mlx.set_cache_limit(limits.cache)


def spare_bytes(device: Device) -> int:
    """Return what *device* has for keys and values, now that the weights lie in its memory."""
    most = gpu_limit() or physical_memory() // 2
    return max(_LEAST_KV_BYTES, most - mx.get_active_memory() - step_bytes(device))


def step_bytes(device: Device) -> int:
    """Return what a step takes beside weights, keys and values."""
    return CUDA_STEP_BYTES if device.kind == "cuda" else STEP_BYTES


def _closed() -> ServerError:
    return ServerError("the model was closed before this page was answered; open it again to go on")
