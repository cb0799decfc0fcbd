"""Chat templates and a tokenizer that ask as the model was trained, and those that do not, by name."""

import json
import shutil

import pytest

from olmocr.page import chat_prompt
from olmocr.validate.smoke.prompts import check_templates, prompt_problems
from tests.conftest import CHECKPOINT

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


@pytest.fixture
def folder(converted, tmp_path):
    """Return all of a converted folder but its weights."""
    return shutil.copytree(converted("4bit"), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))


def change_template(folder, name, change):
    path = folder / name
    if name.endswith(".jinja"):
        path.write_text(change(path.read_text()))
    else:
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "chat_template": change(settings["chat_template"])}))


def image_first(template):
    assert "parts.text + parts.media" in template
    return template.replace("parts.text + parts.media", "parts.media + parts.text")


def test_a_converted_folder_asks_as_the_model_was_trained(folder):
    assert [(each.file, each.problem) for each in check_templates(folder)] == [(name, None) for name in FILES]
    assert list(prompt_problems(folder)) == []


@pytest.mark.parametrize("name", FILES)
def test_an_order_that_is_wrong_is_found_in_every_file(name, folder):
    change_template(folder, name, image_first)
    (problem,) = prompt_problems(folder)
    assert problem == f"{name}: image before text if a client lists it first, unlike in training"


def test_the_sources_own_template_leaves_the_order_to_the_client():
    assert all("image before text" in each.problem for each in check_templates(CHECKPOINT))


def test_another_system_prompt_is_shown_where_it_differs(folder):
    change_template(folder, FILES[0], lambda text: text.replace("You are a helpful assistant", "You see all"))
    (problem,) = prompt_problems(folder)
    assert problem.startswith(f"{FILES[0]}: another prompt than in training, with 'see all")
    assert "where 'are a helpful" in problem


def test_one_of_several_templates_with_names_is_found(folder):
    change_template(
        folder, FILES[2], lambda text: [{"name": "default", "template": text}, {"name": "b", "template": "{{ x.y.z }}"}]
    )
    (problem,) = prompt_problems(folder)
    assert problem.startswith(f"{FILES[2]}: the chat template cannot be rendered")


def test_a_folder_without_a_template_says_so(folder):
    for name in FILES[:2]:
        (folder / name).unlink()
    change_template(folder, FILES[2], lambda text: None)
    assert list(prompt_problems(folder)) == ["there is no chat template, which other clients need: copy the source's"]


def change_tokenizer(folder, change):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    change(tokenizer)
    path.write_text(json.dumps(tokenizer))


def test_a_mark_that_is_not_a_token_of_its_own_is_named(folder):
    def drop(tokenizer):
        tokenizer["added_tokens"] = [each for each in tokenizer["added_tokens"] if each["content"] != "<|im_end|>"]

    change_tokenizer(folder, drop)
    assert "tokenizer.json: <|im_end|> is not one token" in list(prompt_problems(folder))


def test_an_image_token_that_config_knows_by_another_id_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_id": 5}))
    (problem,) = prompt_problems(folder)
    assert problem.endswith("but 5 in config.json")


def test_a_tokenizer_that_makes_another_text_of_the_prompt_is_named(folder):
    change_tokenizer(folder, lambda tokenizer: tokenizer.update(normalizer={"type": "Lowercase"}))
    assert "tokenizer.json: the trained prompt's tokens spell another text" in list(prompt_problems(folder))
    assert chat_prompt() != chat_prompt().lower()


def test_a_tokenizer_that_cannot_be_read_is_a_problem(folder):
    (folder / "tokenizer.json").write_text("{")
    (problem,) = prompt_problems(folder)
    assert problem.startswith("tokenizer.json: it cannot be read")
