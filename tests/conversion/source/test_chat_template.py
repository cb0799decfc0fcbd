"""Chat templates are rendered as transformers renders them, and strangers' with limits, in a process of their own."""

import hashlib
import json

import mlx_vlm
import pytest
from mlx_vlm.prompt_utils import apply_chat_template
from mlx_vlm.utils import load_config
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from olmocr.conversion.source import chat_template
from olmocr.conversion.source.chat_template import (
    MOST_SECONDS,
    page_prompts,
    render_for_parent,
    render_template,
    special_tokens,
    text_first,
)
from olmocr.errors import CheckpointError
from olmocr.page import PAGE_PROMPT, chat_prompt
from tests.checkpoints import demo_checkpoint, tiny_checkpoint
from tests.conftest import CHECKPOINT
from tests.conversion.templates import TEMPLATE
from tests.conversion.written import converted_by

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


STOCK = (CHECKPOINT / "chat_template.jinja").read_text()


MORE_MEMORY = "it takes more memory than 500MB"


GREEDY = {
    "a text times": "{{ ('a' * 10**11)|length }}",
    "a list times": "{{ ([1] * 10**10)|length }}",
    "a width": "{{ '%10000000000d' % 1 }}",
    "a width of format": "{{ '{:10000000000}'.format(1) }}",
    "center": "{{ 'a'|center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "replace": "{{ ('a' * 10**6).replace('a', 'a' * 10**6) }}",
    "join": "{{ (range(99999)|list * 1000)|join('x' * 1000) }}",
    "doubling": "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
}


REFUSED = {
    "a macro that calls itself": ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion depth"),
    "a loop that calls itself": ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion depth"),
    "deep nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion depth"),
    "a long answer": ("{{ 'a' * 5000000 }}", "renders a prompt of 5,000,000 characters"),
    "a long template": ("x" * 2_000_000, "it has 2,000,667 characters"),
    "half of a character": ("\ud800", "half of a surrogate pair"),
    "another file": ("{% include '/etc/passwd' %}", "no loader"),
    "a terminal's commands": ("{{ raise_exception('\x1b[2J') }}", r"rendered: \\x1b\[2J"),
}


ENDLESS = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "lipsum": "{{ lipsum(n=100000, max=100000) }}",
}


@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY)
def test_a_template_that_takes_all_memory_is_refused_by_the_reason(template):
    with pytest.raises(CheckpointError, match=f"cannot be rendered: {MORE_MEMORY}; copy the one that the model"):
        text_first(template)


@pytest.mark.parametrize(("template", "why"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_cannot_be_used_is_refused_in_one_line(template, why):
    with pytest.raises(CheckpointError, match=why) as error:
        text_first(template)
    assert str(error.value).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_runs_for_ever_is_ended(template):
    with pytest.raises(CheckpointError, match=f"it computes for more than {MOST_SECONDS} seconds"):
        text_first(template)


def test_a_strangers_template_renders_apart_what_the_stock_one_renders_here():
    assert page_prompts(text_first("{# mine #}" + STOCK), PAGE_PROMPT) == (chat_prompt(),) * 2
    assert page_prompts(text_first(STOCK), PAGE_PROMPT) == (chat_prompt(),) * 2


def test_the_stock_template_is_known_so_that_no_process_is_started_for_it():
    assert hashlib.sha256(STOCK.encode()).hexdigest() in chat_template._KNOWN


def test_what_was_rendered_once_is_not_rendered_again():
    template = "{# again #}" + STOCK
    assert page_prompts(template, "p") is page_prompts(template, "p")


def test_the_process_answers_with_what_was_rendered_or_why_not(monkeypatch, capsys):
    import io

    for template, key in (("{{ messages|length }}", "rendered"), ("{{ nothing.at.all }}", "refused")):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([template, [[{"role": "user"}]], {}])))
        render_for_parent()
        assert set(json.loads(capsys.readouterr().out)) == {key}


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


def test_a_template_kept_in_the_tokenizer_config_is_found_and_replaced_there(tmp_path):
    source = demo_checkpoint(tmp_path / "source")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    (source / "chat_template.json").unlink()
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    converted_by(source, tmp_path / "out")
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
        converted_by(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_a_chat_template_that_is_not_text_is_refused(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    (source / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja cannot be read"):
        converted_by(source, tmp_path / "out")


def test_a_template_may_use_what_transformers_offers(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    extras = "{% for each in [1, 2] %}{% break %}{% endfor %}{% if strftime_now('%Y') %}{% endif %}"
    (source / "chat_template.json").write_text(json.dumps({"chat_template": extras + template}))
    converted_by(source, tmp_path / "out")
    assert extras in (tmp_path / "out/chat_template.jinja").read_text()
