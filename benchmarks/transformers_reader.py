"""A checkpoint with transformers on torch: pages -> answers, several together. It needs nothing of olmocr's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

if TYPE_CHECKING:
    from PIL.Image import Image

_PAD = "<|image_pad|>"


@dataclass(frozen=True)
class Answers:
    """The texts of pages that were read together, and the number of their tokens, those that end them included."""

    texts: list[str]
    tokens: int


class TransformersReader:
    """A model on the GPU if torch has one, otherwise on the CPU; *dtype* is the name of torch's type."""

    def __init__(self, folder: Path | str, dtype: str) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model = model.eval().to(self._device)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        # AutoProcessor would need torchvision, but only for videos
        self._image_processor = transformers.AutoImageProcessor.from_pretrained(folder)
        self._dtype = dtype

    def __str__(self) -> str:
        threads = f", {torch.get_num_threads()} threads" if self._device == "cpu" else ""
        versions = f"transformers {transformers.__version__} on torch {torch.__version__}"
        return f"{versions}, {self._device}{threads}, {self._dtype}"

    def peak(self) -> str:
        """Return the most bytes of torch's arrays on the GPU so far, in GB; empty on a CPU."""
        return f"{torch.cuda.max_memory_allocated() / 1e9:.2f}" if self._device == "cuda" else ""

    def answers(self, prompt: str, images: Sequence[Image], max_tokens: int) -> Answers:
        """Read *images* together; they must have the same size, so that no prompt needs padding."""
        seen = self._image_processor(images=list(images), return_tensors="pt")
        places = int(seen["image_grid_thw"][0].prod()) // self._image_processor.merge_size**2
        text = self._tokenizer([prompt.replace(_PAD, _PAD * places)] * len(images), return_tensors="pt")
        is_image = (text["input_ids"] == self._tokenizer.convert_tokens_to_ids(_PAD)).int()
        given = {**text, **seen, "mm_token_type_ids": is_image}
        given = {name: value.to(self._device) for name, value in given.items()}
        with torch.inference_mode():
            tokens = self._model.generate(**given, do_sample=False, max_new_tokens=max_tokens)
        written = tokens[:, text["input_ids"].shape[1] :]
        counted = int((written != self._tokenizer.pad_token_id).sum())
        return Answers(self._tokenizer.batch_decode(written, skip_special_tokens=True), counted)
