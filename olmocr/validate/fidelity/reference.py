"""A checkpoint in transformers on a CPU, in float32, to compare MLX's port with. The only module that uses torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.errors import CheckpointError, MissingDependencyError, reason_of
from olmocr.page import PageImage, chat_prompt
from olmocr.runtime.extras import install_command
from olmocr.validate.fidelity.reading import PageAnswer

Floats = npt.NDArray[np.float32]

_PAD = "<|image_pad|>"
_BLOCK = 128


class Reference:
    """A checkpoint loaded by transformers."""

    def __init__(self, folder: Path) -> None:
        """Load the checkpoint in *folder*.

        Raises:
            CheckpointError: it cannot be loaded.
            MissingDependencyError: torch is not installed.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingDependencyError(
                f"torch is not installed ({error}); install it with: {install_command('torch')}"
            ) from error
        self._torch: Any = torch
        started = time.monotonic()
        try:
            loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
            self._model = loaded.eval()
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
            self._image_processor: Any = transformers.AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} cannot be loaded by transformers: {reason_of(error)}") from error
        self.load_seconds = time.monotonic() - started
        self.name = f"transformers {transformers.__version__} on torch {torch.__version__}, cpu, float32"

    def answer(self, image: PageImage, max_tokens: int) -> PageAnswer:
        """Return the greedy answer."""
        started = time.monotonic()
        inputs = self._inputs(image, ())
        with self._torch.inference_mode():
            found = self._model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        tokens = found[0, inputs["input_ids"].shape[1] :].tolist()
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        finish_reason: Any = "length" if len(tokens) >= max_tokens else "stop"
        return PageAnswer(tuple(tokens), text, finish_reason, image.rotation, False, time.monotonic() - started)

    def blocks(self, image: PageImage, tokens: Sequence[int]) -> Iterator[Floats]:
        """Yield the logarithms of each token's probability at *tokens*, an answer, and after its last.

        Each block is (positions, vocabulary).
        """
        with self._torch.inference_mode():
            out = self._model(**self._inputs(image, tokens), logits_to_keep=len(tokens) + 1)
            for logits in out.logits[0].split(_BLOCK):
                yield self._torch.log_softmax(logits.float(), dim=-1).numpy()

    def _inputs(self, image: PageImage, tokens: Sequence[int]) -> dict[str, Any]:
        """Return the model's inputs. AutoProcessor would need torchvision, which only its video half uses."""
        pixels = self._image_processor(images=[image.pixels], return_tensors="pt")
        places = int(pixels["image_grid_thw"].prod()) // self._image_processor.merge_size**2
        text = self._tokenizer([chat_prompt().replace(_PAD, _PAD * places)], return_tensors="pt")
        answer = self._torch.tensor([list(tokens)], dtype=self._torch.long)
        ids = self._torch.cat([text["input_ids"], answer], dim=1)
        return {
            "input_ids": ids,
            "attention_mask": self._torch.ones_like(ids),
            "mm_token_type_ids": (ids == self._tokenizer.convert_tokens_to_ids(_PAD)).int(),
            **pixels,
        }
