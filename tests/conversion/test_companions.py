"""What goes along with the weights: refused before these where it cannot be used, bounded where it allows too much."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoImageProcessor, AutoTokenizer

from olmocr.conversion.companions import MOST_PIXELS, bounded, check_companions, most_pixels
from olmocr.conversion.convert import convert
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import COMPANIONS, TINY, tiny_checkpoint
from tests.conftest import CHECKPOINT
from tests.conversion.written import converted_by

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 7031645\n"


ENOUGH = TINY | {"vocab_size": 4096}


def checked(folder, config=ENOUGH):
    return check_companions(ModelFolder(folder), config)


def refusal(folder, config=ENOUGH):
    with pytest.raises(CheckpointError) as error:
        checked(folder, config)
    return str(error.value)


FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json", "LICENSE"]


NO_FILES = {"a Git LFS pointer": POINTER, "empty": "", "empty ": "\0" * 512}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", [*FILES, "processor_config.json", "preprocessor_config.json"])
def test_what_stands_for_a_file_is_refused_by_name(name, kind, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / name).write_text(NO_FILES[kind])
    assert f"{folder / name} is {kind.strip()}" in refusal(folder)


BROKEN = ['{"model": ', "[]", "{}", '{"model": {}}', '{"model": {"vocab": {}}}', '{"model": {"vocab": {"a": "b"}}}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_tokenizer_that_is_none_is_refused(content, tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "tokenizer.json").write_text(content)
    assert "tokenizer.json" in refusal(folder)


def with_tokens(folder, count, first=4096):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] += [{"id": first + each, "content": f"<extra{each}>"} for each in range(count)]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_tokens_beyond_the_embeddings_are_said(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    checked(folder)
    assert "tokens" not in caplog.text
    with_tokens(folder, 7)
    checked(folder)
    assert "7 tokens have ids beyond the 4096 rows of the embeddings: <extra0> (4096), <extra1> (4097)" in caplog.text
    assert "<extra4> (4100), …; the model cannot take them" in caplog.text


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
def test_tokens_that_another_file_adds_are_counted(name, tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    more = (
        {"<mine>": 5000} if name == "added_tokens.json" else {"added_tokens_decoder": {"5000": {"content": "<mine>"}}}
    )
    before = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(before | more))
    checked(folder)
    assert "1 token has an id beyond the 4096 rows of the embeddings: <mine> (5000)" in caplog.text


def test_a_tokenizer_of_another_model_is_refused_by_the_mark_of_a_picture(tmp_path):
    folder = tiny_checkpoint(tmp_path / "source")
    checked(folder, ENOUGH | {"image_token_id": 4086})
    text = refusal(folder, ENOUGH | {"image_token_id": 151655})
    assert "config.json says image_token_id is 151655, but <|image_pad|> is 4086 in the tokenizer" in text


TOO_MANY = {"max_pixels": 12845056, "size": {"longest_edge": 16777216, "shortest_edge": 3136}}


HOLDERS = {
    "preprocessor_config.json": TOO_MANY,
    "processor_config.json": {"image_processor": TOO_MANY, "video_processor": TOO_MANY},
    "video_preprocessor_config.json": TOO_MANY,
}


@pytest.mark.parametrize("name", HOLDERS)
def test_pixels_are_bounded_in_whichever_file_they_stand(name, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "preprocessor_config.json").unlink()
    (source / name).write_text(json.dumps(HOLDERS[name] | {"patch_size": 14}))
    assert most_pixels(source) == 16777216
    convert(source, "8bit", tmp_path / "out")
    written = json.loads((tmp_path / "out" / name).read_text())
    assert most_pixels(tmp_path / "out") == MOST_PIXELS
    assert written["patch_size"] == 14
    assert '"shortest_edge": 3136' in (tmp_path / "out" / name).read_text()


def test_what_is_not_changed_is_copied_byte_for_byte(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "processor_config.json").write_text('{"image_processor":{"max_pixels":  1003520}}')
    convert(source, "8bit", tmp_path / "out")
    for name in ("processor_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("value", [12845056, 12845056.0, "12845056", 1e300, float("inf"), 2**80])
def test_too_many_pixels_are_too_many_however_they_are_written(value):
    assert bounded({"size": {"longest_edge": value}}) == {"size": {"longest_edge": MOST_PIXELS}}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["max_pixels", "longest_edge", "size", "x"]), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["max_pixels", "size", "image_processor"]), ANYTHING))
def test_any_settings_are_bounded_once(settings):
    once = bounded(settings)
    assert repr(bounded(once)) == repr(once)


def test_named_templates_keep_their_names_and_the_default_is_text_first(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    (source / "chat_template.json").unlink()
    settings = json.loads((source / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": template}, {"name": "tool_use", "template": "{{ tools | tojson }}"}]
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    convert(source, "8bit", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"]
    assert [each["name"] for each in written] == ["default", "tool_use"]
    assert written[0]["template"] == (tmp_path / "out" / "chat_template.jinja").read_text() != template
    assert written[1] == named[1]


def test_more_templates_in_their_own_folder_are_said(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "source")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("x")
    with caplog.at_level(logging.WARNING):
        checked(folder)
    assert "are not copied, because they cannot render a page: tool_use.jinja" in caplog.text


def test_the_demo_checkpoint_has_nothing_to_say(caplog):
    checked(CHECKPOINT)
    assert not caplog.text


def test_a_report_says_what_was_left_out_and_the_command_says_it_again(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "adapter_config.json").write_text("{}")
    (report,) = convert(source, "8bit", tmp_path / "out", leave_out=["adapter_config.json"])
    assert report.source.left_out == ("adapter_config.json",)
    assert "--leave-out adapter_config.json" in report.command


def test_tokenizer_and_processor_files_are_the_sources_and_transformers_loads_them(converted):
    folder = converted("4bit")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "preprocessor_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (CHECKPOINT / name).read_bytes()
    assert not (folder / "processor_config.json").exists()
    assert AutoTokenizer.from_pretrained(folder).vocab_size
    assert AutoImageProcessor.from_pretrained(folder).size["longest_edge"] == 324576


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_checkpoint_without_its_tokenizer_is_refused(name, tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        converted_by(source, tmp_path / "out")


def test_companions_that_are_no_part_of_a_model_stay_behind(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "modeling.py").write_text("print('hello')")
    (source / "pytorch_model.bin").write_bytes(b"\x80pickle")
    (source / ".cache").mkdir()
    converted_by(source, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *COMPANIONS, "SHA256SUMS", "chat_template.jinja", "config.json", "conversion_report.json",
        "model.safetensors", "model.safetensors.index.json",
    }  # fmt: skip
