"""Chat templates of strangers: rendered with limits, in a process of their own."""

import hashlib
import json

import pytest

from olmocr.conversion import chat_template
from olmocr.conversion.chat_template import MOST_SECONDS, page_prompts, render_for_parent, text_first
from olmocr.errors import CheckpointError
from olmocr.page import PAGE_PROMPT, chat_prompt
from tests.conftest import CHECKPOINT

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
    "a long answer": ("{{ 'a' * 5000000 }}", "makes 5,000,000 characters of a prompt"),
    "a long template": ("x" * 2_000_000, "it has 2,000,667 characters"),
    "half of a character": ("\ud800", "half of a character"),
    "another file": ("{% include '/etc/passwd' %}", "no loader"),
    "a terminal's commands": ("{{ raise_exception('\x1b[2J') }}", r"rendered: \\x1b\[2J"),
}
ENDLESS = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "lipsum": "{{ lipsum(n=100000, max=100000) }}",
}


@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY)
def test_a_template_that_takes_all_memory_is_refused_by_the_reason(template):
    with pytest.raises(CheckpointError, match=f"cannot be rendered: {MORE_MEMORY}; take the base model's"):
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
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([template, [[{"role": "user"}]]])))
        render_for_parent()
        assert set(json.loads(capsys.readouterr().out)) == {key}
