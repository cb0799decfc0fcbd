import json
import re

import mlx.core as mx
import numpy as np
import pytest
from transformers import AutoTokenizer

from olmocr.backends.mlx_vlm_launcher import masked, with_expressions
from olmocr.page import FRONT_MATTER_REGEX
from tests.conftest import CHECKPOINT


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(CHECKPOINT)


def build(tokenizer, schema):
    return with_expressions(lambda tokenizer, schema: ("schema", schema))(tokenizer, schema)


def allows(tokenizer, expression, text):
    """Say whether the processor for *expression* would let a model write *text* and then end."""
    from llguidance import LLMatcher

    processor = build(tokenizer, {"x-regex": expression})
    matcher = LLMatcher(processor.llg_tokenizer, processor.grammar)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


ANSWER = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\nText --- with\n\nlines, é and <table>"
)


@pytest.mark.parametrize(
    "text",
    [ANSWER, ANSWER.split("Text")[0].rstrip("\n"), ANSWER.replace("en", "None"), ANSWER.replace("en", "null")],
)
def test_an_answer_in_the_format_can_be_written(tokenizer, text):
    assert re.fullmatch(FRONT_MATTER_REGEX, text)
    assert allows(tokenizer, FRONT_MATTER_REGEX, text)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("---\np", "```\n---\np"), ("en\n", "english\n"), ("True", "maybe"), (": 0", ": 45"), ("is_d", "is_b")],
)
def test_another_answer_cannot(tokenizer, right, wrong):
    text = ANSWER.replace(right, wrong, 1)
    assert not re.fullmatch(FRONT_MATTER_REGEX, text)
    assert not allows(tokenizer, FRONT_MATTER_REGEX, text)


@pytest.mark.parametrize("schema", [{"type": "object"}, json.dumps({"x-regex": "a"})])
def test_other_schemas_are_mlx_vlms_own_business(tokenizer, schema):
    assert build(tokenizer, schema) == ("schema", schema)


@pytest.mark.parametrize("expression", ["(", 5, None])
def test_what_is_not_an_expression_is_a_value_error_which_the_server_answers_with_400(tokenizer, expression):
    with pytest.raises(ValueError, match="x-regex"):
        build(tokenizer, {"x-regex": expression})


@pytest.mark.parametrize("vocabulary", [31, 32, 70, 100])
def test_the_mask_leaves_the_logits_of_set_bits_and_no_others(vocabulary):
    random = np.random.default_rng(0)
    words = random.integers(-(2**31), 2**31, size=(2, 3)).astype(np.int32)
    logits = random.normal(size=(2, vocabulary)).astype(np.float32)
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :vocabulary]
    expected = np.full_like(logits, -np.inf)
    expected[:, : bits.shape[1]] = np.where(bits, logits[:, : bits.shape[1]], -np.inf)
    assert np.array_equal(np.array(masked(mx.array(logits), mx.array(words))), expected)
    assert np.array_equal(np.array(masked(mx.array(logits[0]), mx.array(words[0]))), expected[:1])


def test_a_mask_keeps_the_type_of_the_logits():
    assert masked(mx.zeros((1, 8), dtype=mx.bfloat16), mx.array([[-1]], dtype=mx.int32)).dtype == mx.bfloat16
