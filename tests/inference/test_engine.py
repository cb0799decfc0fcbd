import asyncio
import json
import re
import shutil
import threading

import mlx.core as mx
import mlx_vlm
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from olmocr.errors import CheckpointError, InputError
from olmocr.inference.decode import CancelledError, decode
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.prompt import make_inputs
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest, chat_prompt, parse_page_response
from olmocr.pipeline.render import open_document
from tests.checkpoints import tiny_checkpoint
from tests.conftest import CHECKPOINT, DEVICE, PAGES


def page_image(name="sparse_14.pdf", number=1, longest_side=644):
    with open_document(PAGES / name, name) as pages:
        return pages.render(number, longest_side)


@pytest.fixture(scope="module")
def engine(converted):
    with Engine(ModelFolder(converted("8bit")), DEVICE) as engine:
        yield engine


@pytest.fixture(scope="module")
def loaded(converted):
    return load_model(ModelFolder(converted("4bit")), DEVICE)


def ask(engine, **options):
    return asyncio.run(engine.ask(PageRequest(**{"image": page_image(), **options})))


def test_a_page_is_read(engine, truth):
    response = ask(engine)
    assert response.finish_reason == "stop"
    assert parse_page_response(response.text, "strict").natural_text == truth["sparse_14.pdf", 1]["natural_text"]


def test_tokens_are_counted_with_the_stop_token(engine):
    whole = ask(engine)
    assert ask(engine, max_tokens=whole.output_tokens) == whole
    cut = ask(engine, max_tokens=whole.output_tokens - 1)
    assert (cut.finish_reason, cut.text) == ("length", whole.text)


def test_an_answer_that_reaches_the_limit_says_so(engine):
    response = ask(engine, max_tokens=5)
    assert (response.finish_reason, response.output_tokens) == ("length", 5)
    assert response.text.startswith("---\npri")


def test_two_greedy_answers_are_the_same(engine):
    assert ask(engine, max_tokens=40, seed=1) == ask(engine, max_tokens=40, seed=2)


def test_a_sampled_answer_depends_on_its_seed_and_on_nothing_else(engine):
    answers = [ask(engine, temperature=8.0, max_tokens=12, seed=seed).text for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_does_not_depend_on_the_page_before(engine):
    alone = ask(engine, max_tokens=40)
    ask(engine, image=page_image("scan_18.pdf"), max_tokens=3)
    assert ask(engine, max_tokens=40) == alone


def test_requests_at_the_same_time_are_answered_one_by_one(engine):
    async def both():
        requests = [PageRequest(page_image(name), max_tokens=40) for name in ("sparse_14.pdf", "scan_18.pdf")]
        return await asyncio.gather(*map(engine.ask, requests))

    first, second = asyncio.run(both())
    assert first == ask(engine, max_tokens=40)
    assert first.text != second.text


def test_an_image_of_impossible_proportions_is_refused_and_the_next_one_is_read(engine):
    with pytest.raises(InputError, match="cannot take this page's image"):
        ask(engine, image=PageImage(Image.new("RGB", (3000, 4))))
    assert ask(engine, max_tokens=5).output_tokens == 5


def test_the_prompt_has_the_same_token_ids_as_transformers_makes_with_the_text_first(loaded):
    request = PageRequest(page_image())
    inputs = make_inputs(loaded.processor, request)
    pixels = AutoImageProcessor.from_pretrained(CHECKPOINT)(images=[request.image.pixels], return_tensors="np")
    count = int(np.prod(pixels["image_grid_thw"][0])) // 4
    text = chat_prompt().replace("<|image_pad|>", "<|image_pad|>" * count)
    assert inputs.input_ids.tolist()[0] == AutoTokenizer.from_pretrained(CHECKPOINT).encode(text)
    assert inputs.image_grid_thw.tolist() == pixels["image_grid_thw"].tolist()
    np.testing.assert_allclose(np.array(inputs.pixel_values), pixels["pixel_values"], atol=1e-5)


def as_float32(array):
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def logits(model, inputs):
    return model(inputs.input_ids, inputs.pixel_values, image_grid_thw=inputs.image_grid_thw).logits


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="only a CPU dequantizes")
def test_dequantized_weights_give_the_quantized_models_numbers(loaded, converted):
    small = PageRequest(PageImage(page_image().pixels.resize((84, 56))), prompt="Read.")
    inputs = make_inputs(loaded.processor, small)
    stock, _ = mlx_vlm.load(str(converted("4bit")))
    stock.update(tree_map(as_float32, stock.parameters()))
    theirs = logits(stock, inputs)
    assert mx.max(mx.abs(theirs)).item() > 10
    assert mx.max(mx.abs(logits(loaded.model, inputs) - theirs)).item() < 2e-3


@pytest.mark.skipif(DEVICE.kind != "cpu", reason="only a CPU dequantizes")
def test_on_a_cpu_nothing_stays_quantized_or_in_16_bits(loaded):
    dtypes = {array.dtype for _, array in tree_flatten(loaded.model.parameters())}
    assert dtypes == {mx.float32}
    assert "float32" in str(loaded)
    assert DEVICE.blas in str(loaded)


def test_an_answer_that_nobody_wants_any_more_is_not_finished(loaded):
    inputs = make_inputs(loaded.processor, PageRequest(page_image()))
    asked = []
    with pytest.raises(CancelledError):
        decode(
            loaded,
            inputs,
            temperature=0,
            seed=0,
            max_tokens=500,
            is_cancelled=lambda: asked.append(1) or len(asked) > 3,
        )
    assert len(asked) == 4


def test_leaving_the_engine_stops_the_answer_in_the_making(converted):
    async def leave_early():
        with Engine(ModelFolder(converted("8bit")), DEVICE) as engine:
            asked = asyncio.ensure_future(engine.ask(PageRequest(page_image(), temperature=9.0, max_tokens=10**6)))
            await asyncio.sleep(0.1)
        with pytest.raises(CancelledError):
            await asked

    asyncio.run(leave_early())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("olmocr-mlx_1")]


def refusal(folder):
    with pytest.raises(CheckpointError) as error, Engine(ModelFolder(folder), DEVICE):
        pass
    return str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    assert "is no checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_model_of_another_family_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2VLForConditionalGeneration"]}))
    assert "is a Qwen2VLForConditionalGeneration, which is not supported" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"vision_config": {"window_size": 0}}),
        ("config.json", {"vision_config": {"num_heads": 7}}),
        ("preprocessor_config.json", {"patch_size": 16}),
    ],
)
def test_a_model_that_cannot_answer_is_noticed_when_it_is_loaded(file, change, tmp_path, converted):
    folder = shutil.copytree(converted("4bit"), tmp_path / "model")
    settings = json.loads((folder / file).read_text())
    for key, value in change.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(settings))
    assert re.search("cannot be loaded|can be loaded but not asked", refusal(folder))


def test_a_folder_whose_weights_are_gone_is_refused(tmp_path, converted):
    folder = shutil.copytree(converted("4bit"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refusal(folder)


def test_an_unconverted_checkpoint_that_mlx_vlm_cannot_map_is_refused_with_what_to_do(tmp_path):
    folder = tiny_checkpoint(
        tmp_path / "source", change=lambda tensors: {**tensors, "extra": tensors["lm_head.weight"]}
    )
    assert "convert the checkpoint again" in refusal(folder)
