"""The chat template that counts is found in every place and form, or asked about."""

import json

import pytest

from olmocr.conversion.source.templates import read_templates
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import tiny_checkpoint
from tests.conversion.templates import TEMPLATE


def folder_with(path, **places):
    """Return a checkpoint's folder with templates in *places*: jinja, json, tokenizer or processor."""
    folder = tiny_checkpoint(path)
    (folder / "chat_template.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    for place, value in places.items():
        if place == "jinja":
            (folder / "chat_template.jinja").write_text(value)
        elif place == "json":
            (folder / "chat_template.json").write_text(json.dumps({"chat_template": value}))
        elif place == "processor":
            (folder / "processor_config.json").write_text(json.dumps({"chat_template": value}))
        else:
            settings["chat_template"] = value
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


NAMED = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": TEMPLATE}]


FORMS = {
    "text": TEMPLATE,
    "a list": NAMED,
    "a group": {each["name"]: each["template"] for each in NAMED},
    "one of another name": [{"name": "mine", "template": TEMPLATE}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["json", "tokenizer", "processor"])
def test_a_template_is_found_in_every_place_and_form(place, form, tmp_path):
    found = read_templates(ModelFolder(folder_with(tmp_path / "source", **{place: FORMS[form]})))
    assert found.default.endswith(TEMPLATE)


OTHER = TEMPLATE.replace("<|im_start|>", "<|other|>")


def test_templates_that_differ_and_render_a_page_alike_are_one(tmp_path, caplog):
    folder = folder_with(tmp_path / "source", json=TEMPLATE, jinja=TEMPLATE + "{# of a later version #}")
    assert read_templates(ModelFolder(folder)).default.endswith(TEMPLATE)
    assert not caplog.text


@pytest.mark.parametrize(
    ("places", "answers"),
    [
        ({"json": TEMPLATE, "jinja": OTHER}, ["chat_template.json", "chat_template.jinja"]),
        ({"jinja": TEMPLATE, "tokenizer": OTHER}, ["chat_template.jinja", "tokenizer_config.json:chat_template"]),
        ({"processor": OTHER, "json": TEMPLATE}, ["processor_config.json:chat_template", "chat_template.json"]),
    ],
)
def test_templates_that_render_a_page_differently_are_asked_about_and_either_answer_counts(places, answers, tmp_path):
    folder = folder_with(tmp_path / "source", **places)
    with pytest.raises(CheckpointError, match="chat templates that render a page differently") as error:
        read_templates(ModelFolder(folder))
    assert f"with `leave_out='{answers[0]}'` or `leave_out='{answers[1]}'`" in str(error.value)
    chosen = [read_templates(ModelFolder(folder, left_out=(each,))).default for each in answers]
    assert {"<|other|>" in each for each in chosen} == {True, False}


def test_the_template_of_a_text_model_in_a_tokenizers_settings_is_not_used_and_said(tmp_path, caplog):
    folder = folder_with(tmp_path / "source", json=TEMPLATE, tokenizer="{{ messages[0].content + 'x' }}")
    assert read_templates(ModelFolder(folder)).default.endswith(TEMPLATE)
    assert "tokenizer_config.json is not used" in caplog.text


@pytest.mark.parametrize("content", ["", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_template_that_is_not_a_file_is_named(content, tmp_path):
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is (empty|a Git LFS pointer)"):
        read_templates(ModelFolder(folder_with(tmp_path / "source", jinja=content, tokenizer=TEMPLATE)))


def test_several_templates_without_a_default_are_named(tmp_path):
    named = [{"name": name, "template": TEMPLATE} for name in ("one", "two")]
    with pytest.raises(CheckpointError, match="has several chat templates, one, two, but none is called default"):
        read_templates(ModelFolder(folder_with(tmp_path / "source", tokenizer=named)))
