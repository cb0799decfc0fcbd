"""Inputs -> token ids, one at a time, and why they ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
from mlx_vlm.models.cache import KVCache

from olmocr.inference.model import LoadedModel
from olmocr.inference.prompt import PageInputs
from olmocr.page import FinishReason


class CancelledError(Exception):
    """The caller does not want the answer any more."""


@dataclass(frozen=True)
class Decoded:
    """The answer's token ids, without the stop token."""

    tokens: list[int]
    finish_reason: FinishReason


def decode(
    loaded: LoadedModel,
    inputs: PageInputs,
    *,
    temperature: float,
    seed: int,
    max_tokens: int,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Decoded:
    """Write the answer, greedily at temperature 0, else sampled: the same *seed* gives the same answer.

    Raises:
        CancelledError: *is_cancelled* said so; it is asked before each token.
    """
    row = _Row(loaded, inputs)
    sample = _Sampler(temperature, seed)
    token = sample(row.prefill(inputs))
    tokens: list[int] = []
    while len(tokens) < max_tokens:
        if is_cancelled():
            raise CancelledError
        # Queue the next step before looking at this token, so that the device never waits for Python.
        upcoming = sample(row.step(token))
        mx.async_eval(upcoming)  # type: ignore[no-untyped-call]
        value = cast(int, token.item())
        if value in loaded.stop_tokens:
            return Decoded(tokens, "stop")
        tokens.append(value)
        token = upcoming
    return Decoded(tokens, "length")


class _Sampler:
    """Chooses one token from logits (1, vocabulary)."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._key = mx.random.key(seed)

    def __call__(self, logits: mx.array) -> mx.array:
        if self._temperature == 0:
            return mx.argmax(logits, axis=-1)
        self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logits.astype(mx.float32) / self._temperature, key=key)


class _Row:
    """One answer in the making: its cache and its position.

    Positions are handed to the model at every step, so that it keeps no state of its own between answers.
    """

    def __init__(self, loaded: LoadedModel, inputs: PageInputs) -> None:
        model = self._model = loaded.model
        features = model.get_input_embeddings(
            inputs.input_ids,
            inputs.pixel_values,
            image_grid_thw=inputs.image_grid_thw,
            cached_image_features=(
                loaded.vision(inputs.pixel_values, inputs.image_grid_thw) if loaded.vision else None
            ),
        )
        self._embeddings = features.inputs_embeds
        self._position_ids = features.position_ids
        self._next_position = int(features.rope_deltas.item()) + inputs.input_ids.shape[1]
        self._cache = [KVCache() for _ in model.language_model.layers]

    def prefill(self, inputs: PageInputs) -> mx.array:
        """Read the prompt and return the first token's logits (1, vocabulary).

        The last position goes alone: logits of the others, at 152,064 values each, would be computed for nothing.
        """
        last = inputs.input_ids.shape[1] - 1
        self._forward(inputs.input_ids[:, :last], self._position_ids[..., :last], self._embeddings[:, :last])
        mx.eval([cache.state for cache in self._cache])
        logits = self._forward(inputs.input_ids[:, last:], self._position_ids[..., last:], self._embeddings[:, last:])
        del self._embeddings
        return logits

    def step(self, token: mx.array) -> mx.array:
        """Append *token* (1,) and return the next one's logits (1, vocabulary)."""
        position_ids = mx.full((3, 1, 1), self._next_position, dtype=mx.int32)
        self._next_position += 1
        return self._forward(token[None], position_ids)

    def _forward(self, ids: mx.array, position_ids: mx.array, embeddings: mx.array | None = None) -> mx.array:
        out = self._model.language_model(ids, embeddings, cache=self._cache, position_ids=position_ids)
        logits: mx.array = out.logits[:, -1]
        return logits
