"""PageRequest -> ModelResponse by a model in this process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import mlx.core as mx
from PIL import Image

from olmocr.device import Device
from olmocr.errors import CheckpointError
from olmocr.inference.decode import CancelledError, decode
from olmocr.inference.model import LoadedModel, load_model
from olmocr.inference.prompt import make_inputs
from olmocr.model_folder import ModelFolder
from olmocr.page import ModelResponse, PageImage, PageRequest


def _load(folder: ModelFolder, device: Device) -> LoadedModel:
    """Load the model and have it begin one answer, so that a damaged one is noticed now and not at every page."""
    loaded = load_model(folder, device)
    blank = PageRequest(PageImage(Image.new("RGB", (56, 56), "white")))
    try:
        decode(loaded, make_inputs(loaded.processor, blank), temperature=0, seed=0, max_tokens=1)
    except Exception as error:  # whatever a wrong size or setting makes of the arithmetic
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{folder.path} can be loaded but not asked: {reason}; convert it again") from error
    return loaded


class Engine:
    """A loaded model and the one thread that owns it: MLX's streams belong to the thread that made them.

    Use it as a context manager; leaving it stops an answer in the making.
    """

    def __init__(self, folder: ModelFolder, device: Device) -> None:
        """Load the model.

        Raises:
            CheckpointError: *folder* holds no model that can be loaded.
        """
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="olmocr-mlx")
        try:
            self._loaded: LoadedModel = self._thread.submit(_load, folder, device).result()
        except BaseException:
            self._end_thread()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._end_thread()

    def __str__(self) -> str:
        return str(self._loaded)

    async def ask(self, request: PageRequest) -> ModelResponse:
        """Answer *request*; requests are answered one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, request)

    def _end_thread(self) -> None:
        self._thread.submit(self._release)
        self._thread.shutdown(wait=True)

    def _release(self) -> None:
        """Let go of all that the thread owns: one that ends with streams of its own takes the process with it."""
        vars(self).pop("_loaded", None)
        mx.clear_streams()

    def _answer(self, request: PageRequest) -> ModelResponse:
        if self._stopping.is_set():
            raise CancelledError
        inputs = make_inputs(self._loaded.processor, request)
        answer = decode(
            self._loaded,
            inputs,
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            is_cancelled=self._stopping.is_set,
        )
        text = self._loaded.processor.tokenizer.decode(
            answer.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return ModelResponse(
            text=text,
            finish_reason=answer.finish_reason,
            input_tokens=inputs.input_ids.shape[1],
            output_tokens=len(answer.tokens) + (answer.finish_reason == "stop"),
        )
