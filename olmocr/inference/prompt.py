"""PageRequest -> token ids (text first) and pixel values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from olmocr.errors import InputError
from olmocr.page import IMAGE_TOKEN, PageRequest, chat_prompt


@dataclass(frozen=True)
class CutImage:
    """An image cut into patches: ``pixel_values`` and ``grid`` as in PageInputs, but not MLX's yet, and its ``key``."""

    pixel_values: npt.NDArray[np.float32]
    grid: npt.NDArray[np.int32]
    key: bytes


@dataclass(frozen=True)
class PageInputs:
    """The model's input for one page.

    ``input_ids`` (1, n) is int32; ``pixel_values`` (patches, values of one patch) is float32, with one row per patch;
    ``image_grid_thw`` (1, 3) is int32: frames, rows and columns of patches. Two pages with the same ``image_key`` have
    the same pixels, and two with the same ``prompt_key`` have the same text.
    """

    input_ids: mx.array
    pixel_values: mx.array
    image_grid_thw: mx.array
    image_key: bytes
    prompt_key: bytes


def cut_image(processor: Any, request: PageRequest) -> CutImage:
    """Cut the image of *request* into patches. Any thread may call this: it uses neither MLX nor the tokenizer.

    Raises:
        InputError: the processor refuses the image, for example because of its proportions.
    """
    pixels = request.image.pixels
    try:
        fields = processor.image_processor(images=[pixels])
    except ValueError as error:
        raise InputError(f"the model cannot take this page's image: {error}") from error
    key = hashlib.sha256(f"{pixels.mode} {pixels.size} ".encode() + pixels.tobytes()).digest()
    values = np.asarray(fields["pixel_values"], np.float32)
    return CutImage(values, np.asarray(fields["image_grid_thw"], np.int32), key)


def make_inputs(processor: Any, request: PageRequest, cut: CutImage | None = None) -> PageInputs:
    """Tokenize the prompt as in training; *cut* is the image, if it is already cut into patches.

    This does not use the folder's chat template. Other clients may need it, but here the order is known.

    Raises:
        InputError: the processor refuses the image, for example because of its proportions.
    """
    image = cut or cut_image(processor, request)
    tokens = int(image.grid.prod()) // processor.image_processor.merge_size**2
    text = chat_prompt(request.prompt).replace(IMAGE_TOKEN, IMAGE_TOKEN * tokens)
    ids = processor.tokenizer([text], add_special_tokens=False)["input_ids"]
    return PageInputs(
        input_ids=mx.array(ids),
        pixel_values=mx.array(image.pixel_values),
        image_grid_thw=mx.array(image.grid),
        image_key=image.key,
        prompt_key=hashlib.sha256(request.prompt.encode()).digest(),
    )
