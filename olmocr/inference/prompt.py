"""PageRequest -> token ids (text first) and pixel values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.errors import InputError
from olmocr.page import IMAGE_TOKEN, PageRequest, chat_prompt

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CutImage:
    """An image cut into patches: ``pixel_values`` and ``image_grid_thw`` as in PageInputs, and its ``key``."""

    pixel_values: npt.NDArray[np.float32]
    image_grid_thw: Integers
    key: bytes


@dataclass(frozen=True)
class PageInputs:
    """The model's input for one page.

    ``input_ids`` (1, n) is int32; ``pixel_values`` (patches, values of one patch) is float32, with one row per patch;
    ``image_grid_thw`` (1, 3) is int32: frames, rows and columns of patches. Two pages with the same ``image_key`` have
    the same pixels, and two with the same ``prompt_key`` have the same text.
    """

    input_ids: Integers
    pixel_values: npt.NDArray[np.float32]
    image_grid_thw: Integers
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
    tokens = int(image.image_grid_thw.prod()) // processor.image_processor.merge_size**2
    tokenizer = processor.tokenizer
    ids = np.array(tokenizer(chat_prompt(request.prompt), add_special_tokens=False)["input_ids"], np.int32)
    # One token stands for the image so far: the tokenizer would take milliseconds for some thousands.
    counts = np.where(ids == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tokens, 1)
    return PageInputs(
        input_ids=np.repeat(ids, counts)[None],
        pixel_values=image.pixel_values,
        image_grid_thw=image.image_grid_thw,
        image_key=image.key,
        prompt_key=hashlib.sha256(request.prompt.encode()).digest(),
    )


def mrope_positions(token_ids: Integers, image_token: int, grid_thw: Integers, merge_size: int) -> Integers:
    """Return the M-RoPE position of each token, int32 (3, tokens): its frame, row and column.

    *grid_thw* (3,) counts the image's patches; *merge_size* squared of them are one token. Text has three equal
    positions, one more than the largest before (Qwen2-VL, arXiv 2409.12191, section 2.1).
    """
    first = int(np.argmax(token_ids == image_token))
    frames, rows, columns = (int(each) for each in grid_thw // (1, merge_size, merge_size))
    image = np.indices((frames, rows, columns)).reshape(3, -1) + first
    rest = np.arange(token_ids.size - first - image.shape[1]) + image.max() + 1
    before = np.broadcast_to(np.arange(first), (3, first))
    found = np.concatenate([before, image, np.broadcast_to(rest, (3, rest.size))], axis=1)
    return found.astype(np.int32)
