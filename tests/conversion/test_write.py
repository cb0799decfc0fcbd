"""The converted folder against the oracle: stock mlx-vlm's own conversion, on this machine's CPU."""

import asyncio
import functools
import json
import shutil

import mlx.core as mx
import mlx_vlm
import pytest
from mlx_vlm.convert import convert as stock_convert
from mlx_vlm.prompt_utils import apply_chat_template
from mlx_vlm.utils import load_config
from PIL import Image

from olmocr.errors import CheckpointError, OutputError
from olmocr.inference.engine import Engine
from olmocr.model_folder import ModelFolder
from olmocr.page import PAGE_PROMPT, PageRequest, chat_prompt
from olmocr.rendering.render import open_document
from tests.checkpoints import demo_checkpoint, nested_config, new_keys, tiny_checkpoint
from tests.conftest import CHECKPOINT, DEVICE, PAGES
from tests.conversion.written import converted_by, target


def weights(folder):
    tensors = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= mx.load(str(shard))
    return tensors


def assert_same_bits(ours, theirs):
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.shape == theirs[name].shape, name
        assert mx.array_equal(array.view(mx.uint8), theirs[name].view(mx.uint8)), name


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Return a function: bits -> the demo checkpoint as stock mlx-vlm converts it."""
    folders = {}

    def make(bits):
        if bits not in folders:
            folders[bits] = tmp_path_factory.mktemp("stock") / str(bits)
            stock_convert(str(CHECKPOINT), str(folders[bits]), quantize=bits < 16, q_bits=min(bits, 8))
        return folders[bits]

    return make


@pytest.mark.parametrize(("recipe", "bits"), [("none", 16), ("4bit", 4), ("8bit", 8)])
def test_every_weight_is_bit_for_bit_that_of_stock_mlx_vlm(recipe, bits, converted, stock):
    assert_same_bits(weights(converted(recipe, "stock")), weights(stock(bits)))


@pytest.mark.parametrize(("recipe", "bits"), [("4bit", 4), ("8bit", 8)])
def test_the_config_says_the_same_of_the_quantization_as_stock_mlx_vlm(recipe, bits, converted, stock):
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (converted(recipe), stock(bits)))
    assert ours["quantization"] == ours["quantization_config"] == theirs["quantization"]


@functools.cache
def stock_answer(folder):
    """Ask stock mlx-vlm something short: its CPU kernels for quantized matrices take a minute for a page."""
    model, processor = mlx_vlm.load(str(folder))
    picture = Image.radial_gradient("L").resize((84, 56)).convert("RGB")
    return mlx_vlm.generate(
        model, processor, chat_prompt("Read."), image=[picture], max_tokens=12, temperature=0.0, verbose=False
    ).text


@pytest.mark.slow  # its weights are stock's bit for bit, and stock reads what goes the whole way
@pytest.mark.parametrize(("recipe", "bits"), [("4bit", 4), ("8bit", 8)])
def test_stock_mlx_vlm_loads_the_folder_and_writes_the_same_text_from_it(recipe, bits, converted, stock):
    text = stock_answer(converted(recipe, "stock"))
    assert text
    assert text == stock_answer(stock(bits))


def test_tensor_names_of_newer_transformers_give_the_same_weights(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys)
    converted_by(source, tmp_path / "out")
    assert_same_bits(weights(tmp_path / "out"), weights(converted("4bit")))


def test_a_config_of_transformers_5_gives_the_same_weights_and_settings(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", reconfigure=nested_config)
    converted_by(source, tmp_path / "out")
    assert_same_bits(weights(tmp_path / "out"), weights(converted("4bit")))
    ours, original = (load_config(folder) for folder in (tmp_path / "out", converted("4bit")))
    for key in ("rope_theta", "rope_scaling", "hidden_size", "vocab_size", "tie_word_embeddings", "vision_config"):
        assert ours[key] == original[key], key


@pytest.mark.slow
def test_a_config_of_transformers_5_is_loaded_by_stock_mlx_vlm_and_reads_the_same(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys, reconfigure=nested_config)
    converted_by(source, tmp_path / "out")
    assert stock_answer(tmp_path / "out") == stock_answer(converted("4bit"))


def test_a_config_of_transformers_4_57_with_both_forms_is_read(tmp_path):
    def both(config):
        return {**config, "text_config": nested_config(config)["text_config"]}

    plan = target(demo_checkpoint(tmp_path / "source", reconfigure=both), tmp_path / "out")[0].plan
    assert plan.source.config["rope_scaling"]["mrope_section"] == [8, 12, 12]
    assert "text_config" not in plan.source.config


def test_a_tied_head_is_left_out(tmp_path):
    source = tiny_checkpoint(tmp_path / "source", {"tie_word_embeddings": True})
    converted_by(source, tmp_path / "out")
    assert not any("lm_head" in name for name in weights(tmp_path / "out"))


def test_the_report_counts_what_was_written(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    report = converted_by(source, tmp_path / "out")
    arrays = weights(tmp_path / "out")
    assert report.weight_bytes == sum(array.nbytes for array in arrays.values())
    assert report.bits_per_weight == pytest.approx(8 * report.weight_bytes / report.parameters)
    written = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert written["recipe"]["name"] == "4bit"
    assert written["source"]["name"] == "source"
    assert str(tmp_path) not in json.dumps(written)


@pytest.mark.slow
def test_stock_mlx_vlm_reads_a_whole_page_from_the_folder_as_this_engine_does(converted):
    folder = converted("8bit")
    with open_document(PAGES / "sparse_14.pdf", "sparse_14.pdf") as pages:
        image = pages.render(1, 644)
    with Engine(ModelFolder(folder), DEVICE) as engine:
        ours = asyncio.run(engine.ask(PageRequest(image))).text
    model, processor = mlx_vlm.load(str(folder))
    asked = apply_chat_template(processor, load_config(folder), PAGE_PROMPT, num_images=1)
    theirs = mlx_vlm.generate(model, processor, asked, image=[image.pixels], max_tokens=500, temperature=0.0)
    assert theirs.text == ours


def test_a_link_within_the_source_is_followed(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    expected = converted_by(source, tmp_path / "expected").tensors
    (source / "kept").mkdir()
    shutil.move(source / "model.safetensors", source / "kept" / "blob")
    (source / "model.safetensors").symlink_to("kept/blob")
    assert converted_by(source, tmp_path / "out").tensors == expected


@pytest.mark.parametrize("name", ["LICENSE", "model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_out_of_the_source_is_refused_and_nothing_of_it_is_converted(name, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / name).unlink(missing_ok=True)
    (tmp_path / "credentials").write_text("aws_secret_access_key = wJalr")
    (source / name).symlink_to("../credentials")
    with pytest.raises(
        CheckpointError, match=rf"{name} in .* is a link out of the folder, to \.\./credentials; replace"
    ):
        converted_by(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_link_is_refused_before_anything_is_converted(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "empty")
    with pytest.raises(OutputError, match="out exists; choose another `output`"):
        converted_by(source, tmp_path / "out")


def test_a_folder_that_a_link_beside_the_output_leads_to_is_not_cleared(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.out\.partial is a link; remove it"):
        converted_by(source, tmp_path / "out")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"
