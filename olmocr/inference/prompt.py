"""PageRequest -> token ids (text first) and pixel values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from olmocr.errors import InputError
from olmocr.page import PageRequest, chat_prompt


@dataclass(frozen=True)
class PageInputs:
    """What the model is given for one page.

    ``input_ids`` (1, n) int32; ``pixel_values`` (patches, values of one patch) float32, each patch one row;
    ``image_grid_thw`` (1, 3) int32: frames, rows and columns of patches. Two pages with the same ``image_key`` have
    the same pixels, two with the same ``prompt_key`` the same text.
    """

    input_ids: mx.array
    pixel_values: mx.array
    image_grid_thw: mx.array
    image_key: bytes
    prompt_key: bytes


def make_inputs(processor: Any, request: PageRequest) -> PageInputs:
    """Tokenize the prompt as it was trained and cut the image into patches.

    The folder's chat template is not asked: other clients may need it, we know the order.

    Raises:
        InputError: the processor refuses the image, by its proportions for one.
    """
    try:
        fields = processor(text=[chat_prompt(request.prompt)], images=[request.image.pixels], add_special_tokens=False)
    except ValueError as error:
        raise InputError(f"the model cannot take this page's image: {error}") from error
    pixels = request.image.pixels
    return PageInputs(
        input_ids=mx.array(fields["input_ids"]),
        pixel_values=mx.array(fields["pixel_values"]),
        image_grid_thw=mx.array(fields["image_grid_thw"]),
        image_key=hashlib.sha256(f"{pixels.mode} {pixels.size} ".encode() + pixels.tobytes()).digest(),
        prompt_key=hashlib.sha256(request.prompt.encode()).digest(),
    )
