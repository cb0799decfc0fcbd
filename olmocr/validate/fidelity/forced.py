"""A loaded model, a page and an answer to it -> the probability of each next token. Import after ``start_mlx``.

The only module that uses MLX and mlx-vlm to measure how models answer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_vlm.models.cache import KVCache

from olmocr.inference.model import LoadedModel
from olmocr.inference.prompt import PageInputs

Floats = npt.NDArray[np.float32]

BLOCK = 128
"""Positions at once: with a vocabulary of 152,064, their logarithms take 78 MB."""


class ForcedAnswer:
    """A model that has read a page's prompt and will be given an answer."""

    def __init__(self, loaded: LoadedModel, inputs: PageInputs, tokens: Sequence[int]) -> None:
        """Read the prompt except its last token; *prefill_seconds* is the time taken."""
        started = time.monotonic()
        self._model = loaded.model
        self._ids = mx.array([[*inputs.input_ids[0].tolist(), *tokens]], mx.int32)
        features = self._model.get_input_embeddings(
            self._ids,
            mx.array(inputs.pixel_values),
            image_grid_thw=mx.array(inputs.image_grid_thw),
            cached_image_features=loaded.vision(inputs.pixel_values, inputs.image_grid_thw),
        )
        self._embeddings, self._position_ids = features.inputs_embeds, features.position_ids
        self._cache = [KVCache() for _ in self._model.language_model.layers]
        self._first = inputs.input_ids.shape[1] - 1
        self._forward(0, self._first)
        mx.eval([cache.state for cache in self._cache])
        self.prefill_seconds = time.monotonic() - started

    def blocks(self, size: int = BLOCK) -> Iterator[Floats]:
        """Yield the logarithms of each token's probability, (positions, vocabulary), *size* positions at once.

        The positions are those of the answer's tokens, and the one after its last.
        """
        end: int = self._ids.shape[1]
        for start in range(self._first, end, size):
            logits = self._forward(start, min(start + size, end)).astype(mx.float32)
            found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            yield np.array(found)

    def _forward(self, start: int, end: int) -> mx.array:
        """Return the logits (positions, vocabulary) at positions *start* to *end*."""
        out = self._model.language_model(
            self._ids[:, start:end],
            self._embeddings[:, start:end],
            cache=self._cache,
            position_ids=self._position_ids[..., start:end],
        )
        logits: mx.array = out.logits[0]
        return logits


def forget_peak() -> None:
    """Free what is no longer used, and restart the measurement of MLX's peak memory."""
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()


def peak_memory() -> int:
    """Return the most bytes that MLX had allocated since :func:`forget_peak`."""
    return mx.get_peak_memory()
