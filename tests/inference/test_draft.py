""""""

import asyncio

import pytest
from PIL import Image
from transformers import AutoTokenizer

from olmocr.inference.draft import (
    SIZES,
    Beside,
    Costs,
    Drafter,
    DraftSource,
    as_plain,
    as_written,
    longest_padded,
    usual_rest,
)
from olmocr.inference.engine import Engine
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest
from tests.conftest import CHECKPOINT, DEVICE
from tests.inference.test_engine import page_image

CHEAP = Costs({1: 1.0, 64: 1.6})


DEAR = Costs({1: 1.0, 2: 2.0, 64: 64.0})


ALONE = Beside()


FRONT = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\n"
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(CHECKPOINT)


def ask(engine, *requests):
    async def gather():
        return await asyncio.gather(*map(engine.ask, requests))

    return asyncio.run(gather())


@pytest.mark.slow
def test_a_page_is_read_with_its_own_text_as_without_and_in_a_tenth_of_the_passes(converted, truth):
    image, folder = page_image("digital_04.pdf"), ModelFolder(converted("8bit"))
    text = truth["digital_04.pdf", 1]["natural_text"]
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        (plain,) = ask(engine, PageRequest(image))
        assert engine.counts.steps_a_token > 1
    with Engine(folder, DEVICE, costs=CHEAP) as engine:
        (drafted,) = ask(engine, PageRequest(image, draft_text=text.replace("\n\n", "\r\n")))
        assert engine.counts.steps_a_token < 0.15
    assert drafted == plain


@pytest.mark.slow
def test_sampled_answers_of_a_batch_are_the_same_whatever_the_drafts(random_folder):
    pages = [PageImage(Image.new("RGB", (56, 84), (number, 0, 0))) for number in range(3)]
    options = [
        {"temperature": 1.0, "seed": 7, "max_tokens": 80, "guided": True},
        {"temperature": 0.0, "max_tokens": 60, "guided": True},
        {"temperature": 0.7, "seed": 2, "max_tokens": 50, "guided": True},
    ]
    requests = [PageRequest(page, **each) for page, each in zip(pages, options, strict=True)]
    with Engine(random_folder, DEVICE, drafted_pages=0) as engine:
        plain = ask(engine, *requests)
    drafts = [answer.text.partition("\n---\n")[2][:40] + " and something else" for answer in plain]
    with Engine(random_folder, DEVICE, costs=CHEAP) as engine:
        with_drafts = [
            PageRequest(page, **each, draft_text=draft)
            for page, each, draft in zip(pages, options, drafts, strict=True)
        ]
        assert ask(engine, *with_drafts) == plain
        assert 0 < engine.counts.accepted < engine.counts.drafted
        # The same pages once more: now the earlier answers are the drafts.
        before = engine.counts
        assert ask(engine, *requests) == plain
        again = engine.counts
        assert again.accepted - before.accepted > before.accepted


def test_a_draft_is_never_longer_than_what_the_answer_may_have(random_folder):
    image = PageImage(Image.new("RGB", (56, 84)))
    with Engine(random_folder, DEVICE, costs=CHEAP) as engine:
        for most in (1, 2, 45, 46, 47):
            for _ in range(2):
                (answer,) = ask(
                    engine, PageRequest(image, temperature=1.0, seed=3, max_tokens=most, guided=True, draft_text="w")
                )
                assert answer.output_tokens <= most


@pytest.mark.parametrize(("pages", "has_drafts"), [(0, False), (2, True)])
def test_drafts_are_for_so_many_pages_at_once_and_no_more(pages, has_drafts, random_folder):
    image = PageImage(Image.new("RGB", (56, 84)))
    with Engine(random_folder, DEVICE, costs=CHEAP, drafted_pages=pages) as engine:
        ask(engine, *(PageRequest(image, max_tokens=30, draft_text="word") for _ in range(2)))
        assert (engine.counts.drafted > 0) == has_drafts


def drafter(tokenizer, costs=CHEAP, text="The quick brown fox jumps over the lazy dog. " * 3, is_exact=False):
    return Drafter(tokenizer, costs, [DraftSource(text, is_exact)])


def proposed(tokenizer, answer, **options):
    return tokenizer.decode(drafter(tokenizer, **options).propose(answer, ALONE, most=100))


def test_a_draft_continues_where_the_answer_ends(tokenizer):
    assert proposed(tokenizer, FRONT).startswith("The quick brown fox")
    assert proposed(tokenizer, FRONT + "The quick brown").startswith(" fox jumps")
    assert proposed(tokenizer, FRONT + "# A heading that is not there\n\nlazy dog.").startswith(" The quick")
    assert proposed(tokenizer, FRONT + "<tr><td>quick brown</td><td>").startswith("fox")
    assert proposed(tokenizer, FRONT + "something else") == ""


def test_a_front_matter_is_drafted_line_by_line_and_then_the_bodys_beginning(tokenizer):
    assert usual_rest("---\nprimary_language: e") == FRONT.partition("primary_language: e")[2]
    assert usual_rest("---\nprimary_language: fr\nis_ro") == FRONT.partition("is_ro")[2]
    assert usual_rest("---\nprimary_language: f") == ""
    assert usual_rest("Dear model") == ""
    assert proposed(tokenizer, FRONT.removesuffix("---\n")).startswith("---\nThe quick")


def test_what_the_answer_has_once_is_proposed_when_it_begins_again(tokenizer):
    row = "<tr><td>Bolts and nuts</td><td>12</td></tr>\n"
    assert proposed(tokenizer, FRONT + row + row + "<tr><td>Bolts and", text="").startswith(" nuts</td>")


def test_an_earlier_answer_is_proposed_with_its_line_ends(tokenizer):
    text = "First paragraph here.\n\nSecond one."
    assert proposed(tokenizer, FRONT + text[:21], text=text, is_exact=True).startswith("\n\nSecond")


def test_a_pages_own_text_is_read_as_an_answer_would_have_it():
    assert as_written("The ﬁrst para-\r\ngraph of\nthe  text\n\nNext") == "The first paragraph of the text Next"
    assert as_written("2019-\n2020") == "2019- 2020"
    assert as_plain("## A <b>bold</b>\n\n**word** <td") == " A bold word "


def test_no_draft_is_longer_than_what_pays(tokenizer):
    assert len(drafter(tokenizer).propose(FRONT, ALONE, most=100)) > 8
    assert len(drafter(tokenizer).propose(FRONT, ALONE, most=3)) == 3
    assert drafter(tokenizer, costs=DEAR).propose(FRONT, ALONE, most=100) == []
    assert drafter(tokenizer, costs=Costs({1: 1.0, 4: 1.2, 64: 64.0})).propose(FRONT, Beside(3, 3), most=100) == []


def test_a_draft_is_as_long_as_pays_beside_what_is_in_the_pass_already(tokenizer):
    costs = Costs({1: 1.0, 16: 1.1, 17: 4.0, 64: 16.0})  # a device that takes 16 tokens at once
    sizes = [len(drafter(tokenizer, costs).propose(FRONT, Beside(count, count), most=100)) for count in (0, 7, 15, 20)]
    assert sizes == [8, 8, 0, 0]


def test_sizes_are_those_of_the_device(tokenizer):
    sources = [DraftSource("The quick brown fox jumps over the lazy dog.", is_exact=False)]
    for kind, sizes in SIZES.items():
        few = Drafter(tokenizer, Costs({1: 1.0, 2: 1.1, 4: 1.2, 9: 4.0, 64: 99.0}), sources, sizes)
        assert len(few.propose(FRONT, ALONE, most=100)) == {"cpu": 2, "metal": 3, "cuda": 3}[kind]


def test_a_step_that_added_nothing_to_a_full_pass_cost_nothing(tokenizer):
    """A row whose drafts cost no time never rests, however seldom they are right, and one that pays for them does."""
    flat, steep = (drafter(tokenizer, Costs({1: 1.0, 64: most})) for most in (1.0, 64.0))
    for _ in range(60):
        flat.learn(1, 1, Beside(7, 7), rows=8)
        if not steep.is_resting:
            steep.learn(8, 0, Beside(7, 7), rows=8)
    assert not flat.is_resting
    assert steep.is_resting


def test_drafts_that_are_wrong_become_short_and_then_rest_longer_each_time(tokenizer):
    wrong = drafter(tokenizer)
    longest = len(wrong.propose(FRONT, ALONE, most=100))
    rests = []
    for _ in range(3):
        while not wrong.is_resting:
            wrong.learn(longest, 0, ALONE, rows=1)
        rests.append(0)
        while wrong.is_resting:
            wrong.rest()
            rests[-1] += 1
    assert rests[0] < rests[1] < rests[2]
    wrong.learn(longest, 0, ALONE, rows=1)
    assert len(wrong.propose(FRONT, ALONE, most=100)) < longest


def test_drafts_that_are_right_never_rest(tokenizer):
    right = drafter(tokenizer)
    for _ in range(100):
        right.learn(8, 8, ALONE, rows=1)
        assert not right.is_resting


def test_where_each_row_is_padded_to_the_longest_a_draft_is_as_long_as_pays_for_all_rows(tokenizer):
    costs = Costs({1: 1.0, 64: 1.0, 128: 2.0, 1024: 16.0})  # a device that takes 64 tokens at once
    sure = [Drafter(tokenizer, costs, [], SIZES["cuda"]) for _ in range(64)]
    unsure = [Drafter(tokenizer, costs, [], SIZES["cuda"]) for _ in range(64)]
    for _ in range(5):
        for each in unsure:
            each.learn(4, 0, ALONE, rows=32)
    assert [longest_padded(sure[:rows], rows) for rows in (1, 2, 4, 8)] == [31, 31, 15, 7]
    assert longest_padded(sure[:1], 64) == 0  # one row is not worth padding 63 others
    assert longest_padded(unsure, 64) == 0
    assert longest_padded([], 1) == 0
