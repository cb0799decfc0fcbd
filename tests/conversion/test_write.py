"""The converted folder against the oracle: stock mlx-vlm's own conversion, on this machine's CPU."""

import asyncio
import functools
import json
import os
import shutil

import mlx.core as mx
import mlx_vlm
import pytest
from mlx_vlm.convert import convert as stock_convert
from mlx_vlm.prompt_utils import apply_chat_template
from mlx_vlm.utils import load_config
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from olmocr.conversion.convert import convert as convert_all
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.write import write_models
from olmocr.errors import CheckpointError, OutputError, PlanError
from olmocr.inference.engine import Engine
from olmocr.model_folder import ModelFolder
from olmocr.page import PAGE_PROMPT, PageRequest, chat_prompt
from olmocr.rendering.render import open_document
from tests.checkpoints import COMPANIONS, demo_checkpoint, nested_config, new_keys, tiny_checkpoint
from tests.conftest import CHECKPOINT, DEVICE, PAGES


def convert(source, output, recipe="4bit", method="fit"):
    return convert_all(source, recipe, output, method=method)[0]


def target(source, output):
    return plan_targets(ModelFolder(source), [find_recipe("4bit")], "fit", output)


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


@pytest.mark.parametrize(("recipe", "bits"), [("4bit", 4), ("8bit", 8)])
def test_stock_mlx_vlm_loads_the_folder_and_writes_the_same_text_from_it(recipe, bits, converted, stock):
    text = stock_answer(converted(recipe, "stock"))
    assert text
    assert text == stock_answer(stock(bits))


def test_tensor_names_of_newer_transformers_give_the_same_weights(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys)
    convert(source, tmp_path / "out")
    assert_same_bits(weights(tmp_path / "out"), weights(converted("4bit")))


def test_a_config_of_transformers_5_gives_the_same_weights_and_settings(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", reconfigure=nested_config)
    convert(source, tmp_path / "out")
    assert_same_bits(weights(tmp_path / "out"), weights(converted("4bit")))
    ours, original = (load_config(folder) for folder in (tmp_path / "out", converted("4bit")))
    for key in ("rope_theta", "rope_scaling", "hidden_size", "vocab_size", "tie_word_embeddings", "vision_config"):
        assert ours[key] == original[key], key


def test_a_config_of_transformers_5_is_loaded_by_stock_mlx_vlm_and_reads_the_same(tmp_path, converted):
    source = demo_checkpoint(tmp_path / "source", rename=new_keys, reconfigure=nested_config)
    convert(source, tmp_path / "out")
    assert stock_answer(tmp_path / "out") == stock_answer(converted("4bit"))


def test_a_config_of_transformers_4_57_with_both_forms_is_read(tmp_path):
    def both(config):
        return {**config, "text_config": nested_config(config)["text_config"]}

    plan = target(demo_checkpoint(tmp_path / "source", reconfigure=both), tmp_path / "out")[0].plan
    assert plan.source.config["rope_scaling"]["mrope_section"] == [8, 12, 12]
    assert "text_config" not in plan.source.config


def test_a_tied_head_is_left_out(tmp_path):
    source = tiny_checkpoint(tmp_path / "source", {"tie_word_embeddings": True})
    convert(source, tmp_path / "out")
    assert not any("lm_head" in name for name in weights(tmp_path / "out"))


def test_a_stock_client_that_lists_the_image_first_still_asks_text_first(converted):
    folder = converted("4bit")
    _, processor = mlx_vlm.load(str(folder), lazy=True)
    rendered = apply_chat_template(processor, load_config(folder), PAGE_PROMPT, num_images=1)
    assert rendered == chat_prompt()


def test_the_source_template_would_have_put_the_image_first():
    _, processor = mlx_vlm.load(str(CHECKPOINT), lazy=True)
    rendered = apply_chat_template(processor, load_config(CHECKPOINT), PAGE_PROMPT, num_images=1)
    assert rendered.index("<|image_pad|>") < rendered.index("Attached"), "then the one above proves nothing"


@pytest.mark.parametrize("order", [("text", "image"), ("image", "text")])
def test_transformers_renders_text_first_whatever_the_order_of_the_message(order, converted):
    parts = {"text": {"type": "text", "text": PAGE_PROMPT}, "image": {"type": "image"}}
    tokenizer = AutoTokenizer.from_pretrained(converted("4bit"))
    message = {"role": "user", "content": [parts[kind] for kind in order]}
    assert tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True) == chat_prompt()


def test_a_conversation_without_images_renders_as_before(converted):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    before, after = (
        AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
        for folder in (CHECKPOINT, converted("4bit"))
    )
    assert before == after


def test_tokenizer_and_processor_files_are_the_sources_and_transformers_loads_them(converted):
    folder = converted("4bit")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "preprocessor_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (CHECKPOINT / name).read_bytes()
    assert not (folder / "processor_config.json").exists()
    assert AutoTokenizer.from_pretrained(folder).vocab_size
    assert AutoImageProcessor.from_pretrained(folder).size["longest_edge"] == 324576


def test_a_template_kept_in_the_tokenizer_config_is_found_and_replaced_there(tmp_path):
    source = demo_checkpoint(tmp_path / "source")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    (source / "chat_template.json").unlink()
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(source, tmp_path / "out")
    written = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert written != template
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"] == written
    assert not (tmp_path / "out" / "chat_template.json").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{% for",
        "{{ messages[0]['content'][0]['text'] }}",
        "{{ ''.__class__ }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
        "{{ " + "(" * 5000,
    ],
)
def test_a_broken_or_hostile_chat_template_is_refused(template, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(CheckpointError, match="chat template"):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_a_chat_template_that_is_no_text_is_refused(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja cannot be read"):
        convert(source, tmp_path / "out")


def test_a_template_may_use_what_transformers_offers(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    extras = "{% for each in [1, 2] %}{% break %}{% endfor %}{% if strftime_now('%Y') %}{% endif %}"
    (source / "chat_template.json").write_text(json.dumps({"chat_template": extras + template}))
    convert(source, tmp_path / "out")
    assert extras in (tmp_path / "out/chat_template.jinja").read_text()


def test_a_private_umask_is_kept(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    before = os.umask(0o077)
    try:
        convert(source, tmp_path / "out")
    finally:
        os.umask(before)
    assert [
        path.name for path in [tmp_path / "out", *(tmp_path / "out").iterdir()] if path.stat().st_mode & 0o077
    ] == []


def test_the_report_counts_what_was_written(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    report = convert(source, tmp_path / "out")
    arrays = weights(tmp_path / "out")
    assert report.weight_bytes == sum(array.nbytes for array in arrays.values())
    assert report.bits_per_weight == pytest.approx(8 * report.weight_bytes / report.parameters)
    written = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert written["recipe"]["name"] == "4bit"
    assert written["source"]["name"] == "source"
    assert str(tmp_path) not in json.dumps(written)


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    for name in ("a", "b"):
        convert(source, tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_an_empty_output_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    convert(tiny_checkpoint(tmp_path / "source"), tmp_path / "out")
    assert (tmp_path / "out/config.json").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_output_that_exists_is_refused_and_kept(kind, tmp_path):
    source, output = tiny_checkpoint(tmp_path / "source"), tmp_path / "out"
    kept = output if kind == "file" else output / "mine.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        convert(source, output)
    assert kept.read_text() == "mine"


def test_an_output_inside_the_source_is_refused(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    with pytest.raises(OutputError, match="lies in the source"):
        convert(source, source / "mlx")


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path):
    targets = target(tiny_checkpoint(tmp_path / "source"), tmp_path / "out")
    vars(targets[0].plan)["file_bytes"] = 1 << 60
    with pytest.raises(PlanError, match="GB free"):
        write_models(targets)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_a_conversion_that_stops_in_the_middle_leaves_no_folder(error, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    targets = target(source, tmp_path / "out")

    def stop(nbytes):
        raise error

    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_models(targets, stop)
    assert list(tmp_path.iterdir()) == [source]


def test_a_source_that_shrinks_while_it_is_read_is_named_and_no_folder_is_left(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    targets = target(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"model\.safetensors became shorter while it was read"):
        write_models(targets, lambda nbytes: os.truncate(source / "model.safetensors", 9000))
    assert list(tmp_path.iterdir()) == [source]


def test_a_name_that_no_disk_takes_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="could not be written: File name too long"):
        convert(tiny_checkpoint(tmp_path / "source"), tmp_path / ("x" * 300))


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_sentence(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="could not be written"):
        convert(source, tmp_path / "closed" / "out")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_checkpoint_without_its_tokenizer_is_refused(name, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        convert(source, tmp_path / "out")


def test_companions_that_are_no_part_of_a_model_stay_behind(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "modeling.py").write_text("print('hello')")
    (source / "pytorch_model.bin").write_bytes(b"\x80pickle")
    (source / ".cache").mkdir()
    convert(source, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *COMPANIONS, "SHA256SUMS", "chat_template.jinja", "config.json", "conversion_report.json",
        "model.safetensors", "model.safetensors.index.json",
    }  # fmt: skip


def test_a_link_within_the_source_is_followed(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    expected = convert(source, tmp_path / "expected").tensors
    (source / "kept").mkdir()
    shutil.move(source / "model.safetensors", source / "kept" / "blob")
    (source / "model.safetensors").symlink_to("kept/blob")
    assert convert(source, tmp_path / "out").tensors == expected


@pytest.mark.parametrize("name", ["LICENSE", "model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_out_of_the_source_is_refused_and_nothing_of_it_is_converted(name, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / name).unlink(missing_ok=True)
    (tmp_path / "credentials").write_text("aws_secret_access_key = wJalr")
    (source / name).symlink_to("../credentials")
    with pytest.raises(CheckpointError, match=rf"{name} in .* is a link out of the folder, to \.\./credentials; put"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_link_is_refused_before_anything_is_converted(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "empty")
    with pytest.raises(OutputError, match="out exists; choose another `output`"):
        convert(source, tmp_path / "out")


def test_a_folder_that_a_link_beside_the_output_leads_to_is_not_cleared(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.out\.partial is a link; remove it"):
        convert(source, tmp_path / "out")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"
