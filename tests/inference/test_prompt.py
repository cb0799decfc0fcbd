"""What the model is given against what transformers' own Qwen2.5-VL processor makes of the same page.

That processor needs torch, so its values were recorded, by record_processed.py.
"""

import hashlib
import json

import mlx.core as mx
import mlx_vlm
import numpy as np
import pytest
from PIL import Image

from olmocr.inference.prompt import make_inputs, mrope_positions
from olmocr.page import IMAGE_TOKEN, PageImage, PageRequest
from tests.inference.random_models import random_model
from tests.inference.record_processed import FOLDER, levels

RECORDED = json.loads((FOLDER / "processed.json").read_text())["pages"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(params=RECORDED, ids=lambda recorded: recorded["page"])
def recorded(request):
    return request.param


@pytest.fixture
def inputs(recorded, folder):
    processor = mlx_vlm.load(str(folder), lazy=True)[1]
    if recorded["most_pixels"]:
        processor.image_processor.max_pixels = recorded["most_pixels"]
    page = Image.open(FOLDER / f"{recorded['page']}.png").convert("RGB")
    return make_inputs(processor, PageRequest(PageImage(page)))


def test_a_page_is_given_the_token_ids_of_transformers_processor(recorded, inputs):
    expected = [token for token, count in recorded["ids"] for _ in range(count)]
    assert inputs.input_ids.tolist() == [expected]
    assert inputs.image_grid_thw.tolist() == recorded["image_grid_thw"]


def test_a_page_is_given_the_pixels_of_transformers_processor(recorded, inputs):
    # Each is the same of 256 levels; as float32 they differ in the last bits, since the mean is taken off otherwise.
    values = inputs.pixel_values
    assert hashlib.sha256(levels(values).tobytes()).hexdigest() == recorded["levels_sha256"]
    np.testing.assert_allclose(values.reshape(-1)[:: recorded["every"]], recorded["values"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [(1, 46, 36), (1, 2, 8)])
def test_positions_are_those_of_mlx_vlm(grid, folder):
    model, processor = mlx_vlm.load(str(folder), lazy=True)
    image, start = processor.tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, "<|vision_start|>"])
    ids = np.array([5, 6, start, *[image] * (grid[1] * grid[2] // 4), 7, 8, 9], np.int32)
    theirs, _ = model.language_model.get_rope_index(mx.array(ids)[None], mx.array([grid], mx.int32))
    ours = mrope_positions(ids, image, np.array(grid, np.int32), 2)
    assert (ours.dtype, ours.shape) == (np.int32, (3, ids.size))
    assert np.array_equal(ours, np.array(theirs)[:, 0])
