"""Patterns of tensor names: what they match, and what is refused."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.conversion.patterns import parse_pattern
from olmocr.errors import UsageError
from tests.conversion.patterned import BLOCKS


def matches(pattern, path):
    return parse_pattern(pattern).matches(path, BLOCKS)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*", "language_model.lm_head"),
        ("language_model.*.v_proj", "language_model.model.layers.3.self_attn.v_proj"),
        ("*.{k_proj,v_proj}", "language_model.model.layers.3.self_attn.k_proj"),
        ("*{a,ab}c", "xabc"),
        ("*.layers.[-2:].*", "language_model.model.layers.10.mlp.up_proj"),
        ("*.layers.[:2].*", "language_model.model.layers.1.mlp.up_proj"),
        ("*.layers.[2:-2].*", "language_model.model.layers.9.mlp.up_proj"),
        ("*.layers.[-1].*", "language_model.model.layers.11.mlp.up_proj"),
        ("*.layers.[:].*", "language_model.model.layers.0.mlp.up_proj"),
        ("*.blocks.[0]", "vision_tower.blocks.0"),
        ("vision_tower.merger.mlp.0", "vision_tower.merger.mlp.0"),
    ],
)
def test_a_pattern_matches_what_it_says(pattern, path):
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("language_model", "language_model.lm_head"),
        ("*.v_proj", "language_model.v_projection"),
        ("a.b", "axb"),
        ("*.layers.[1].*", "language_model.model.layers.11.mlp"),
        ("*.layers.[1]", "language_model.model.layers.11"),
        ("*.layers.[-2:].*", "language_model.model.layers.9.mlp"),
        ("*.layers.[99].*", "language_model.model.layers.9.mlp"),
        ("*.layers.[-13].*", "language_model.model.layers.11.mlp"),
        ("*.layers.[99:].*", "language_model.model.layers.9.mlp"),
        ("*.blocks.[-1].*", "vision_tower.blocks.11.mlp"),
    ],
)
def test_a_pattern_matches_nothing_else(pattern, path):
    assert not matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "rest"),
    [
        ("layers[0]", "[0]"),
        ("a.layers.[0]5", "layers.[0]5"),
        ("a.layers.[::2]", "layers.[::2]"),
        ("mylayers.[0]", "[0]"),
        ("{a,{b,c}}", "{a,{b,c}}"),
        ("{a,}", "{a,}"),
        ("{}", "{}"),
        ("a?", "?"),
        ("a b", " b"),
        ("a}", "}"),
    ],
)
def test_what_is_not_a_pattern_is_refused_from_there_on(pattern, rest):
    with pytest.raises(UsageError, match=re.escape(f"{pattern!r} is not a pattern from {rest!r} on")):
        parse_pattern(pattern)


def test_an_empty_pattern_is_refused():
    with pytest.raises(UsageError, match="'' is not a pattern"):
        parse_pattern("")


PIECES = st.sampled_from(["*", "a", "b", ".", "ab", "{a,b}", "{ab,a}", "{a.b,b}"])


@given(pieces=st.lists(PIECES, min_size=1, max_size=6), path=st.text("ab.", max_size=8))
def test_a_pattern_means_what_the_same_regular_expression_does(pieces, path):
    regular = [{"*": ".*"}.get(piece, re.escape(piece)) for piece in pieces]
    regular = [
        re.sub(r"\\([{}])", r"\1", piece).replace("{", "(").replace("}", ")").replace(",", "|") for piece in regular
    ]
    assert matches("".join(pieces), path) == bool(re.fullmatch("".join(regular), path))


@given(
    number=st.integers(0, 11),
    start=st.none() | st.integers(-20, 20),
    stop=st.none() | st.integers(-20, 20),
)
def test_a_slice_selects_what_python_does(number, start, stop):
    text = f"{'' if start is None else start}:{'' if stop is None else stop}"
    assert matches(f"*.layers.[{text}].*", f"model.layers.{number}.mlp") == (number in range(12)[start:stop])


@given(number=st.integers(0, 11), index=st.integers(-20, 20))
def test_an_index_selects_what_python_does_and_nothing_where_python_fails(number, index):
    selected = list(range(12))[index] if -12 <= index < 12 else None
    assert matches(f"*.layers.[{index}].*", f"model.layers.{number}.mlp") == (number == selected)


def test_no_pattern_is_slow():
    assert not matches("*a" * 40 + "b", "a" * 100)


@given(text=st.text("ab.*{},[]:-0123layersblocks ", max_size=20))
def test_any_text_is_a_pattern_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        parse_pattern(text).matches("model.layers.3.mlp", BLOCKS)
