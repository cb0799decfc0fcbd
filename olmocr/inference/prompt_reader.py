"""PageInputs -> a cache with image and prompt, in steps; nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from olmocr.inference.byte_cache import Kept
from olmocr.inference.model import LoadedModel
from olmocr.inference.passes.cache import Layers, PromptCache
from olmocr.inference.passes.forward import embed, read
from olmocr.inference.prompt import PageInputs, mrope_positions

_FEATURE_BYTES = 128 << 20
"""How many bytes of image features to keep: about ten pages of the 7B model at 1288 pixels."""

_PLANNED = 64
"""A piece of a prompt has a multiple of this many tokens if attention is planned anew for each new number."""

_SIDES = 4
"""How many ways a page may be turned. Features of pages that finished long ago are useless, however small."""


@dataclass(frozen=True)
class _ReadPrompt:
    """A prompt, or its beginning, that was read: the keys and values of each layer, and where positions continue."""

    layers: Layers
    rope_delta: int


class Prefill:
    """One prompt being read. Its last token is left for the step that writes the first token of the answer.

    ``ids`` are the prompt's ``prompt_length`` tokens, then the answer's tokens that were written before the page had to
    wait again. A token of text at place n, after the image, has the position n + ``rope_delta``. ``image`` are the
    remaining pieces of vision work, or None if the image's features are there.
    """

    def __init__(
        self, key: tuple[bytes, bytes], ids: list[int], written: Sequence[int], cache: PromptCache, rope_delta: int
    ) -> None:
        self.key = key
        self.ids = [*ids, *written]
        self.prompt_length = len(ids)
        self.cache = cache
        self.rope_delta = rope_delta
        self.inputs: PageInputs | None = None
        self.image: Iterator[mx.array | None] | None = None
        self.embeddings: mx.array | None = None
        self.position_ids: mx.array | None = None

    @property
    def is_done(self) -> bool:
        """Whether all but the last token have been read."""
        return self.cache.length >= len(self.ids) - 1


class PromptReader:
    """Reads prompts of one model, *step* tokens at a time; keeps up to *most* prompts in up to *most_bytes*."""

    def __init__(self, loaded: LoadedModel, *, step: int, most_bytes: int, most: int) -> None:
        self._loaded = loaded
        self._step = step
        self._is_on_cuda = loaded.device.kind == "cuda"
        self._queued: Sequence[mx.array] = ()  # what the last piece computes
        self._features: Kept[mx.array] = Kept(_FEATURE_BYTES, _SIDES * most)
        self.read: Kept[_ReadPrompt] = Kept(most_bytes, most)

    def begin(self, inputs: PageInputs, written: Sequence[int] = ()) -> Prefill:
        """Return the remaining work for a prompt and for the *written* tokens of its answer.

        Parts of the prompt that were read before are not read again.
        """
        ids: list[int] = inputs.input_ids[0].tolist()
        key = (inputs.image_key, inputs.prompt_key)
        whole = self.read.get(key)
        if whole:
            return Prefill(key, ids, written, self._cache(whole), whole.rope_delta)
        text = self.read.get((b"", self._text_key(ids)))
        prefill = Prefill(key, ids, written, self._cache(text), 0)
        features = self._features.get(inputs.image_key)
        if features is None:
            prefill.inputs = inputs
            prefill.image = self._loaded.vision.begin(inputs.pixel_values, inputs.image_grid_thw)
        else:
            self._embed(prefill, inputs, features)
        return prefill

    def _cache(self, read: _ReadPrompt | None) -> PromptCache:
        """Return a cache with what was *read*, or an empty one."""
        return self._loaded.language.row_cache(read.layers if read else None)

    def advance(self, prefill: Prefill) -> int:
        """Process a piece of the image, or afterwards of the prompt; return how many tokens of the prompt it read.

        A step ends where the image begins, and at the end of the prompt, so that all prompts are read in the same way.
        """
        if prefill.image:
            self._look(prefill)
            return 0
        start, text = prefill.cache.length, self._text_length(prefill.ids)
        ends = (each for each in (text, prefill.prompt_length) if each > start)
        end = min(start + self._step, len(prefill.ids) - 1, *ends)
        if end > start:
            self._pass(*self._given(prefill, start, end), prefill.cache, end - start)
        if start < text == end:
            self._keep((b"", self._text_key(prefill.ids)), prefill.cache.beginning(end), 0)
        if prefill.is_done:
            prefill.embeddings = prefill.position_ids = None
        return prefill.cache.length - start

    def _given(self, prefill: Prefill, start: int, end: int) -> tuple[mx.array, mx.array]:
        """Return the embeddings and positions of the tokens from *start* to *end*."""
        if prefill.embeddings is not None and prefill.position_ids is not None and end <= prefill.prompt_length:
            return prefill.embeddings[:, start:end], prefill.position_ids[..., start:end]
        embeddings = embed(self._loaded.language, mx.array(prefill.ids[start:end], dtype=mx.int32))
        return embeddings, mx.arange(start + prefill.rope_delta, end + prefill.rope_delta, dtype=mx.int32)

    def _pass(self, embeddings: mx.array, positions: mx.array, cache: PromptCache, count: int) -> None:
        """Append *count* tokens to *cache*, in a pass that may be padded at its end; the padding is removed again."""
        more = -count % (_PLANNED if self._is_on_cuda else 1)
        if more:
            embeddings = mx.pad(embeddings, [(0, 0), (0, more), (0, 0)])
            positions = mx.pad(positions, [*[(0, 0)] * (positions.ndim - 1), (0, more)])
        self._queue(read(self._loaded.language, embeddings, positions, cache))
        cache.drop_last(more)

    def _queue(self, arrays: Sequence[mx.array]) -> None:
        """Compute the *arrays* of a piece.

        CUDA computes them while Python prepares what follows. Only one piece may wait behind another, since each takes
        memory from when it is queued.
        """
        if not self._is_on_cuda:
            mx.eval(arrays)
            return
        mx.async_eval(arrays)  # type: ignore[no-untyped-call]
        before, self._queued = self._queued, arrays
        mx.eval(before)

    def let_go(self) -> None:
        """Keep nothing of the last piece alive."""
        self._queued = ()

    def keep(self, key: tuple[bytes, bytes], beginning: Callable[[], Layers], rope_delta: int) -> None:
        """Keep a prompt without its last token, in case the same page is requested again.

        On CUDA it is not kept: a copy takes a tenth of the time of reading it again, and fewer pages than one in ten
        are requested again.
        """
        if not self._is_on_cuda and self.read.get(key) is None:
            self._keep(key, beginning(), rope_delta)

    def _keep(self, key: tuple[bytes, bytes], layers: Layers, rope_delta: int) -> None:
        nbytes = sum(keys.nbytes + values.nbytes for keys, values in layers)
        self.read.put(key, _ReadPrompt(layers, rope_delta), nbytes)

    def _text_length(self, ids: list[int]) -> int:
        """Return how many tokens precede the image; these are the same for all pages with the same prompt."""
        return ids.index(self._loaded.model.config.image_token_id)

    def _text_key(self, ids: list[int]) -> bytes:
        return b",".join(b"%d" % token for token in ids[: self._text_length(ids)])

    def _look(self, prefill: Prefill) -> None:
        """Do one piece of vision work; after the last piece, the prompt can be read."""
        if not (prefill.image and prefill.inputs):
            return
        features = next(prefill.image)
        if features is None:
            return
        self._embed(prefill, prefill.inputs, features)
        self._queue([features])
        self._features.put(prefill.inputs.image_key, features, features.nbytes)
        prefill.image = prefill.inputs = None

    def _embed(self, prefill: Prefill, inputs: PageInputs, features: mx.array) -> None:
        """Insert the image's features into the embeddings of the prompt, and compute its positions.

        Raises:
            ValueError: the prompt has another number of tokens for the image than there are features.
        """
        config, ids = self._loaded.model.config, inputs.input_ids[0]
        image_token, merge_size = config.image_token_id, config.vision_config.spatial_merge_size
        places = np.flatnonzero(ids == image_token)
        if len(places) != len(features):
            raise ValueError(f"its prompt has {len(places)} tokens for an image that has {len(features)}")
        start, end = int(places[0]), int(places[-1]) + 1
        text = embed(self._loaded.language, mx.array(ids))
        prefill.embeddings = mx.concatenate([text[:, :start], features[None], text[:, end:]], axis=1)
        positions = mrope_positions(ids, image_token, inputs.image_grid_thw[0], merge_size)
        prefill.position_ids = mx.array(positions[:, None])
        prefill.rope_delta = int(positions.max()) + 1 - len(ids)
