"""Chat templates are rendered as transformers renders them, in whatever place and form a folder has them."""

import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from olmocr.conversion.chat_template import render_template, special_tokens
from olmocr.conversion.source_templates import read_templates
from olmocr.errors import CheckpointError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import tiny_checkpoint
from tests.conftest import CHECKPOINT

TEMPLATE = json.loads((CHECKPOINT / "chat_template.json").read_text())["chat_template"]
MESSAGES = [
    {"role": "system", "content": "<be> 'brief' & \u00e4"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "read"}]},
    {"role": "assistant", "content": "so"},
]
TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

USED = {
    "the demo's own": TEMPLATE,
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set x = 1 %}{{ m.content }}"
    "{% endgeneration %}{{ x is defined }}{% endif %}{% endfor %}",
    "generation, trimmed": "a {%- generation -%} b {%- endgeneration -%} c",
    "tools": "{% if tools is not none %}tools{% else %}no tools{% endif %}{{ documents is none }}{{ tools }}",
    "special tokens": "{{ bos_token + eos_token }}{{ pad_token ~ (unk_token is defined) }}",
    "tojson": "{{ messages[0].content | tojson }}{{ messages | tojson(indent=2) }}"
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
    "loop controls": "{% for i in range(9) %}"
    "{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "a year": "{{ strftime_now('%Y') }}",
    "namespaces and macros": "{% macro f(x) %}[{{ x }}]{% endmacro %}"
    "{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ f(n.a) }}",
    "blocks and lines": "  {% if true %}\n  yes\n  {% endif %}\n{# gone #}\nend\n",
    "what is not defined": "{{ nothing }}{{ nothing is defined }}{{ enable_thinking is defined and enable_thinking }}",
    "the last of a prompt": "{% if add_generation_prompt %}go{% endif %}{{ messages[-1]['content'] | trim | upper }}",
}


@pytest.mark.parametrize("kind", USED)
def test_a_template_renders_as_transformers_renders_it(kind):
    (expected,), _ = render_jinja_template([MESSAGES], chat_template=USED[kind], add_generation_prompt=True, **TOKENS)
    assert render_template(USED[kind], MESSAGES, TOKENS) == expected


@pytest.mark.parametrize(
    "template",
    ["{{ bos_token + 'x' }}", "{{ raise_exception('no') }}", "{% generation %}", "{{ messages[0].nothing.more }}"],
)
def test_what_transformers_refuses_is_refused(template):
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever transformers raises)
        render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True)
    with pytest.raises(CheckpointError, match="the chat template cannot be rendered"):
        render_template(template, MESSAGES)


def test_special_tokens_are_those_that_transformers_hands_a_template(tmp_path):
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<e>"}, "pad_token": "<p>"}))
    settings = {"bos_token": None, "pad_token": {"content": "<q>", "special": True}, "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert special_tokens(tmp_path) == {"eos_token": "<e>", "pad_token": "<q>"}


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
    with pytest.raises(CheckpointError, match="chat templates that ask for a page differently") as error:
        read_templates(ModelFolder(folder))
    assert f"with --leave-out {answers[0]} or --leave-out {answers[1]}" in str(error.value)
    chosen = [read_templates(ModelFolder(folder, left_out=(each,))).default for each in answers]
    assert {"<|other|>" in each for each in chosen} == {True, False}


def test_the_template_of_a_text_model_in_a_tokenizers_settings_is_not_used_and_said(tmp_path, caplog):
    folder = folder_with(tmp_path / "source", json=TEMPLATE, tokenizer="{{ messages[0].content + 'x' }}")
    assert read_templates(ModelFolder(folder)).default.endswith(TEMPLATE)
    assert "tokenizer_config.json is not used" in caplog.text


@pytest.mark.parametrize("content", ["", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_template_that_is_no_file_is_named(content, tmp_path):
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is (empty|a Git LFS pointer)"):
        read_templates(ModelFolder(folder_with(tmp_path / "source", jinja=content, tokenizer=TEMPLATE)))


def test_several_templates_of_which_none_is_the_default_are_named(tmp_path):
    named = [{"name": name, "template": TEMPLATE} for name in ("one", "two")]
    with pytest.raises(CheckpointError, match="has several chat templates, one, two, and none is called default"):
        read_templates(ModelFolder(folder_with(tmp_path / "source", tokenizer=named)))
