"""Record what transformers' own processor makes of some demo pages, for test_prompt.py.

Run it from a clone, in an environment with torch, torchvision, transformers and pypdfium2; it writes ``processed/``:
the pages as PNG files, since another version of the renderer may draw other pixels, and the values as JSON.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

from olmocr.page import chat_prompt
from olmocr.rendering.render import open_document

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "demo" / "checkpoint"
FOLDER = Path(__file__).parent / "processed"

# The checkpoint's processor makes pages larger than 644 pixels smaller, so its limit is raised for the last one.
PAGES = [("sparse_14", 644, None), ("rotated_20", 644, None), ("table_15", 1288, 1 << 22)]

EVERY = 4801
"""Of the pixel values, one after another, this one is recorded: a prime, so that all places in a patch come."""


def main():
    pages = [record(*page) for page in PAGES]
    libraries = {name: version(name) for name in ("transformers", "torch", "torchvision", "pillow")}
    lines = ",\n".join(json.dumps(page) for page in pages)
    (FOLDER / "processed.json").write_text(f'{{"made_with": {json.dumps(libraries)}, "pages": [\n{lines}\n]}}\n')


def record(name, longest_side, most_pixels):
    with open_document(ROOT / "demo" / "pages" / f"{name}.pdf", name) as pages:
        pages.render(1, longest_side).pixels.convert("L").save(FOLDER / f"{name}.png", optimize=True)
    image = Image.open(FOLDER / f"{name}.png").convert("RGB")
    fields = process("pil", image, most_pixels)
    other = process("torchvision", image, most_pixels)
    assert np.array_equal(fields["input_ids"], other["input_ids"])
    return {
        "page": name,
        "most_pixels": most_pixels,
        "image_grid_thw": fields["image_grid_thw"].tolist(),
        "ids": run_lengths(fields["input_ids"][0].tolist()),
        "levels_sha256": hashlib.sha256(levels(fields["pixel_values"]).tobytes()).hexdigest(),
        "every": EVERY,
        "values": [float(str(value)) for value in fields["pixel_values"].reshape(-1)[::EVERY]],
        "torchvision_differs_by": float(np.abs(fields["pixel_values"] - other["pixel_values"]).max()),
    }


def process(backend, image, most_pixels):
    """Return what transformers' processor makes of a page; it resizes with Pillow or with torchvision."""
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    processor.image_processor = AutoImageProcessor.from_pretrained(CHECKPOINT, backend=backend)
    size = {"longest_edge": most_pixels, "shortest_edge": processor.image_processor.size["shortest_edge"]}
    options = {"images_kwargs": {"size": size}} if most_pixels else {}
    return processor(text=[chat_prompt()], images=[image], return_tensors="np", **options)


def run_lengths(ids):
    """Return *ids* as [id, how often it comes] in a row: a page has hundreds of image tokens."""
    runs = []
    for token in ids:
        if runs and runs[-1][0] == token:
            runs[-1][1] += 1
        else:
            runs.append([token, 1])
    return runs


def levels(pixel_values):
    """Return the levels of 0 to 255 that *pixel_values* (patches, channels and others of a patch) were made from."""
    channels = pixel_values.reshape(len(pixel_values), 3, -1)
    settings = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())
    mean, spread = (np.array(settings[key])[:, None] for key in ("image_mean", "image_std"))
    return np.rint((channels * spread + mean) * 255).astype(np.uint8)


if __name__ == "__main__":
    main()
