"""Pages that no image was drawn for: random pixels and tokens, in the places where a model has them."""

import hashlib

import numpy as np

from olmocr.conversion.calibrated.passes.samples import CalibrationPage


def random_page(config, name="page", *, rows=8, columns=12, prompt=9, answer=6, seed=0):
    """Return a page of *rows* x *columns* patches for the model of *config* (flat), with an answer of *answer* tokens.

    The image stands between the prompt's last token but two and those: as a turn's end does in the trained prompt.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    merge, image = config["vision_config"]["spatial_merge_size"], rows * columns // 4
    after = 3
    text = rng.integers(0, config["vocab_size"] - 40, prompt + after + answer + 1)
    ids = np.concatenate([text[:prompt], np.full(image, config["image_token_id"]), text[prompt:]])
    y, x = np.indices((rows // merge, columns // merge)).reshape(2, -1)
    image_end = prompt + max(rows, columns) // merge
    positions = [
        np.tile(np.arange(prompt), (3, 1)),
        np.stack([np.zeros_like(y), y, x]) + prompt,
        np.tile(np.arange(after + answer + 1), (3, 1)) + image_end,
    ]
    return CalibrationPage(
        name=name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        kind="random",
        whose_text="random",
        token_ids=ids.astype(np.int32),
        position_ids=np.concatenate(positions, axis=1).astype(np.int32),
        answer_start=prompt + image + after,
        pixel_values=rng.normal(size=(rows * columns, 3 * 2 * 14 * 14)).astype(np.float32),
        grid_thw=np.array([[1, rows, columns]], np.int32),
    )


def random_pages(config, count=4):
    """Return pages of different sizes: less than a window of the vision tower, whole ones, and some that are cut."""
    sizes = [(8, 12), (6, 4), (16, 16), (10, 22)]
    return [
        random_page(
            config, f"page {number}", rows=sizes[number % 4][0], columns=sizes[number % 4][1], answer=6 + number
        )
        for number in range(count)
    ]
