import asyncio
import re

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from olmocr.inference.decode import decode
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine
from olmocr.inference.guided import FrontMatter, unpacked
from olmocr.inference.model import load_model
from olmocr.model_folder import ModelFolder
from olmocr.page import FRONT_MATTER_REGEX, PageImage, PageRequest, parse_page_response
from tests.conftest import CHECKPOINT, DEVICE
from tests.inference.random_models import random_model
from tests.inference.test_engine import page_image

LONGEST = 60
"""Tokens of the longest front matter that a model may choose to write, letter by letter where it can."""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def front_matter(tokenizer):
    return FrontMatter(tokenizer, [tokenizer.eos_token_id])


def ask_all(engine, **options):
    image = PageImage(Image.new("RGB", (56, 84), "white"))

    async def gather():
        requests = [PageRequest(image, guided=True, seed=seed, **options) for seed in range(24)]
        return await asyncio.gather(*map(engine.ask, requests))

    return asyncio.run(gather())


@pytest.mark.parametrize("weights", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2))])
def test_whatever_the_weights_and_the_seed_an_answer_has_a_valid_front_matter(weights, tmp_path):
    with Engine(ModelFolder(random_model(tmp_path / "model", weights)), DEVICE) as engine:
        answers = [
            *ask_all(engine, temperature=1.0, max_tokens=LONGEST + 8),
            *ask_all(engine, temperature=30.0, max_tokens=LONGEST + 8),
            *ask_all(engine, max_tokens=LONGEST + 8)[:1],
        ]
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    assert len({answer.text for answer in answers}) > 20
    for answer in answers:
        parse_page_response(answer.text, "strict")


DRAFTS = [
    "Text of the page. " * 20,
    "---\nprimary_language: xx\nis_rotation_valid: perhaps\n",
    "\n---\n---\n",
    "<|im_end|>" * 9,
]


def test_whatever_the_drafts_the_temperature_and_the_batch_an_answer_has_a_valid_front_matter(tmp_path):
    """Pages of a batch are guided or not, greedy or sampled, and drafted for with what is wrong everywhere."""
    requests = [
        PageRequest(
            PageImage(Image.new("RGB", (56, 84), (number % 5, 9, 9))),
            temperature=(0.0, 0.7, 1.0, 30.0)[number % 4],
            max_tokens=LONGEST + 12,
            seed=number,
            guided=number % 6 != 5,
            draft_text=DRAFTS[number % 4],
        )
        for number in range(48)
    ]

    async def ask(engine):
        return await asyncio.gather(*map(engine.ask, requests))

    folder = ModelFolder(random_model(tmp_path / "model", 4))
    with Engine(folder, DEVICE, costs=Costs({1: 1.0, 64: 1.6}), most_pages=6, drafted_pages=6) as engine:
        answers = asyncio.run(ask(engine)) + asyncio.run(ask(engine))  # then the earlier answers are drafts, too
        assert engine.counts.drafted > 100
        assert engine.counts.accepted > 10
    assert answers[:48] == answers[48:]
    for answer, request in zip(answers, requests + requests, strict=True):
        if request.guided:
            parse_page_response(answer.text, "strict")
        else:
            assert not answer.text.startswith("---")


@pytest.fixture(scope="module")
def engine(random_folder):
    with Engine(random_folder, DEVICE) as engine:
        yield engine


def test_without_guidance_the_same_model_writes_no_front_matter_at_all(engine):
    request = PageRequest(PageImage(Image.new("RGB", (56, 84))), max_tokens=LONGEST)
    assert not asyncio.run(engine.ask(request)).text.startswith("---")


@pytest.mark.parametrize("most", [1, 2, 7, 20, 33])
def test_a_guided_answer_that_is_cut_says_so_and_has_no_token_too_many(most, engine):
    answers = ask_all(engine, temperature=1.0, max_tokens=most)
    for answer in answers:
        assert answer.finish_reason == "length" or parse_page_response(answer.text, "strict")
        assert answer.output_tokens <= most
        assert "---\nprimary_language:".startswith(answer.text[:21])


def test_a_model_that_knows_the_form_writes_guided_what_it_writes_alone(converted):
    loaded = load_model(ModelFolder(converted("8bit")), DEVICE)
    answers = [decode(loaded, PageRequest(page_image(), guided=guided)) for guided in (False, True)]
    assert answers[0] == answers[1]


def test_tokens_without_a_choice_cost_no_step_of_their_own(front_matter, tokenizer):
    guide, steps, text = front_matter.begin(), 0, []
    while not guide.is_over:
        for token in guide.forced():
            guide.take(token)
            text.append(token)
        (token,) = np.flatnonzero(guide.allowed(tokenizer.vocab_size + 64))[-1:].tolist()
        if token == tokenizer.eos_token_id:
            break
        guide.take(token)
        text.append(token)
        steps += 1
    assert re.fullmatch(FRONT_MATTER_REGEX, tokenizer.decode(text))
    assert steps < len(text) / 2


def after(front_matter, tokenizer, text):
    guide = front_matter.begin()
    for token in tokenizer.encode(text, add_special_tokens=False):
        guide.take(token)
    return guide


FIELDS = "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: False\nis_diagram: "


@pytest.mark.parametrize(
    ("text", "may_stop", "is_over"),
    [
        (FIELDS + "False", False, False),
        (FIELDS + "False\n--", False, False),
        (FIELDS + "False\n---", True, False),
        (FIELDS + "False\n---\n", False, False),
        (FIELDS + "False\n---\nText", True, True),
        (FIELDS + "False\n---\n\n", True, True),
    ],
)
def test_an_answer_may_stop_where_the_expression_may_end_and_is_free_in_its_body(
    text, may_stop, is_over, front_matter, tokenizer
):
    guide = after(front_matter, tokenizer, text)
    assert bool(guide.allowed(4096)[tokenizer.eos_token_id]) == may_stop
    assert guide.is_over == is_over


def test_a_token_that_is_not_allowed_is_refused(front_matter, tokenizer):
    with pytest.raises(ValueError, match="is not allowed here"):
        after(front_matter, tokenizer, "---\nlanguage")


@pytest.mark.parametrize("size", [31, 32, 70, 100])
def test_bits_beyond_the_words_are_not_set(size):
    words = np.array([[-1, 1]], dtype=np.int32)
    assert unpacked(words, size)[0].tolist() == [bit < 33 for bit in range(size)]
