"""Four pages made by hand -> every figure of the report, worked out by hand."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from olmocr.validate.fidelity import figures
from olmocr.validate.fidelity.distributions import KeptDistributions, PageDivergence
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.fidelity.work import PageMeasurement, PhaseCost
from olmocr.validate.known_pages.page_set import KnownPage

TABLE = "<table><tr><td>1</td><td>22</td></tr></table>"  # 45 characters, one word
OTHER_TABLE = TABLE.replace("22", "23")


def answer(text, tokens=0, *, looped=False, seconds=1.0, rotation=0):
    return PageAnswer(tuple(range(tokens)), text, "stop", rotation, looped, seconds)


PAGES = (
    KnownPage(Path("in/a.pdf"), 1, truth="one two 33"),
    KnownPage(Path("in/a.pdf"), 2),
    KnownPage(Path("in/b.pdf"), 1, truth=TABLE),
    KnownPage(Path("in/c.pdf"), 7),
)
MODELS = (
    PageReading(answer("one two 4", 2, seconds=3.0), True, "stop", True, 1, (), False, 6.0),
    PageReading(answer("ab", 1, seconds=3.0), False, "length", True, 3, ("cut", "loop"), True, 10.0),
    PageReading(answer(OTHER_TABLE, seconds=1.0), True, "stop", True, 1, (), False, 4.0),
    PageReading(answer("abxx xx", 1, looped=True, seconds=0.5), False, "loop", False, 2, ("l", "m"), True, 4.0),
)
SOURCES = (
    PageReading(answer("one two 3", 2), True, "stop", True, 1, (), False, 5.0),
    PageReading(answer("ab", 1), True, "stop", True, 1, (), False, 5.0),
    PageReading(answer(TABLE), False, "length", False, 2, ("cut",), True, 5.0),
    PageReading(answer("abcd", 1), True, "stop", True, 1, (), False, 5.0),
)


def kept(tails):
    count = len(tails)
    ids, likely = np.tile(np.array([5, 6], np.int32), (count, 1)), np.full((count, 2), -1.0, np.float32)
    return KeptDistributions(ids, likely, np.log(tails), np.zeros(1, np.int32), np.zeros((1, 9), np.float32))


def found(divergence, flips, whole, cut, given):
    choices = np.where(flips, 6, 5).astype(np.int32)
    given = np.array(given, np.float32)
    return PageDivergence(np.array(divergence, float), choices, given, np.array(whole, float), np.array(cut, float))


KEPT = (kept([0.1, 0.2, 0.3]), kept([0.1, 0.1]), kept([0.4]), kept([0.2, 0.2]))
FOUND = (
    found([0, 1, 2], [False, True, False], [1, 2], [1, 1], [-1, -1.5, -1]),
    found([0, 0], [False, False], [0], [0], [-1, -1]),
    found([3], [True], [3], [2], [-3]),
    found([4, 0], [False, True], [], [], [-0.5, -1]),
)
CLASSES = (("digits", "letters", "end"), ("letters", "end"), ("end",), ("digits", "end"))


def rounded(value):
    """Return dataclasses as dicts, and all numbers in them to nine places."""
    if dataclasses.is_dataclass(value):
        return rounded(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def errors(pages, characters, words, numbers, tables, cells):
    """Return the fields of TextErrors; numbers, tables and cells are given as (all, right)."""
    return {
        "pages": pages, "character_error_rate": rounded(characters), "word_error_rate": rounded(words),
        "numbers": numbers[0], "exact_numbers": numbers[1], "tables": tables[0], "exact_tables": tables[1],
        "cells": cells[0], "exact_cells": cells[1],
    }  # fmt: skip


def test_the_distributions_figures():
    report = rounded(figures.distribution(KEPT, FOUND, itertools.chain(*CLASSES)))
    pages = [(3, 3), (0, 2), (3, 1), (4, 2)]  # sum of divergences and positions of each
    means = [sum(s for s, _ in drawn) / sum(n for _, n in drawn) for drawn in itertools.product(pages, repeat=4)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert report.pop("mean_kl_interval") == {
        "low": pytest.approx(low, abs=0.1), "high": pytest.approx(high, abs=0.1), "confidence": 0.95, "resamples": 2000
    }  # fmt: skip
    assert report == {
        "positions": 8,
        "mean_kl": 1.25,
        "median_kl": 0.5,
        "p99_kl": 3.93,
        "top1_agreement": 0.625,
        "pages_without_flip": 1,
        "median_first_divergence": 1.0,
        "flips": [
            {"token_class": "digits", "positions": 2, "flips": 0},
            {"token_class": "letters", "positions": 2, "flips": 1},
            {"token_class": "end", "positions": 4, "flips": 2},
        ],
        "by_position": [{"first": 0, "last": 2, "positions": 8, "mean_kl": 1.25}],
        "truncation": {
            "top_k": 2, "mean_tail": 0.2, "max_tail": 0.4, "positions": 4, "whole_mean_kl": 1.5, "cut_mean_kl": 1.0
        },
    }  # fmt: skip


def test_the_free_running_figures():
    assert rounded(figures.free_running(PAGES, MODELS, SOURCES)) == {
        "pages": 4,
        "identical_pages": 1,
        "looping_pages": 1,
        "against_source": errors(4, 7 / 60, 4 / 6, (3, 1), (1, 0), (2, 1)),
        "against_truth": errors(2, 3 / 55, 2 / 4, (3, 1), (1, 0), (2, 1)),
        "source_against_truth": errors(2, 1 / 55, 1 / 4, (3, 2), (1, 1), (2, 2)),
        "without_loops": errors(3, 2 / 56, 2 / 5, (3, 1), (1, 0), (2, 1)),
    }


def test_where_nothing_is_known_or_all_went_in_circles_these_figures_are_left_out():
    report = figures.free_running(PAGES[3:], MODELS[3:], SOURCES[3:])
    assert (report.against_truth, report.source_against_truth, report.without_loops) == (None, None, None)


def test_an_answer_to_a_page_that_was_turned_otherwise_is_another():
    assert not figures.is_same(answer("a", rotation=90), answer("a"))


def test_the_structures_figures():
    assert rounded(figures.structure(MODELS)) == {
        "pages": 4,
        "valid_pages": 3,
        "valid_first_answers": 2,
        "stop_reasons": {"stop": 2, "length": 1, "loop": 1},
        "loops": 2,
        "mean_attempts": 1.75,
        "attempts": {"1": 2, "2": 1, "3": 1},
    }
    assert rounded(figures.structure(SOURCES)) == {
        "pages": 4,
        "valid_pages": 3,
        "valid_first_answers": 3,
        "stop_reasons": {"stop": 3, "length": 1},
        "loops": 1,
        "mean_attempts": 1.25,
        "attempts": {"1": 3, "2": 1},
    }


def test_the_costs_figures(tmp_path):
    for name, size in (("model-1.safetensors", 100), ("model-2.safetensors", 28), ("config.json", 50)):
        (tmp_path / name).write_bytes(bytes(size))
    part = {"component": "vision", "parameters": 10, "nbytes": 5, "bits_per_weight": 4.0}
    measured = [
        PageMeasurement(*each)
        for each in zip(MODELS, (100, 200, 300, 400), (1.0, 1.0, 1.0, 2.0), strict=True)
    ]  # fmt: skip
    took = PhaseCost("float32", 1.5, 999)
    expected = {
        "weight_bytes": 128,
        "bits_per_weight": 4.5,
        "components": [part],
        "computed_in": "float32",
        "load_seconds": 1.5,
        "peak_memory": 999,
        "prefill_rate": 200.0,  # 1000 tokens in 5 seconds
        "decode_rate": 2.0,  # 8 tokens, ends included, in 2 + 2 + 0 + 0 seconds
        "pages_per_minute": 10.0,  # 4 in 24 seconds
    }
    conversion = {"bits_per_weight": 4.5, "components": [part]}
    assert rounded(figures.cost(tmp_path, conversion, measured, took)) == expected
    unknown = expected | {"bits_per_weight": None, "components": []}
    assert rounded(figures.cost(tmp_path, {}, measured, took)) == unknown


def test_the_figures_of_each_page():
    report = [figures.fidelity_page(*each) for each in zip(PAGES, MODELS, SOURCES, KEPT, FOUND, strict=True)]
    names = [field.name for field in dataclasses.fields(report[0])]
    rows = (
        ("a.pdf", 1, 3, 1.0, 1, 1, False, False, False, True, True, 1, [], 1 / 9, 2 / 10),
        ("a.pdf", 2, 2, 0.0, 0, None, True, True, False, True, True, 3, ["cut", "loop"], 0.0, None),
        ("b.pdf", 1, 1, 3.0, 1, 0, False, False, True, True, False, 1, [], 1 / 45, 1 / 45),
        ("c.pdf", 7, 2, 2.0, 1, 1, False, True, False, False, True, 2, ["l", "m"], 5 / 4, None),
    )
    assert [rounded(each) for each in report] == [rounded(dict(zip(names, row, strict=True))) for row in rows]


def test_the_paritys_figures():
    answers = [(model.greedy, source.greedy) for model, source in zip(MODELS, SOURCES, strict=True)]
    assert rounded(figures.parity("transformers", KEPT, FOUND, answers)) == {
        "reference": "transformers",
        "pages": 4,
        "positions": 8,
        "mean_kl": 1.25,
        "max_kl": 4.0,
        "max_log_probability_difference": 2.0,
        "top1_agreement": 0.625,
        "identical_pages": 1,
    }


def test_texts_are_compared_by_their_length():
    errors = figures.text_errors([("abcd", "abcx"), ("", "0123456789ab")])
    assert errors.character_error_rate == 13 / 16
    assert (errors.numbers, errors.exact_numbers) == (1, 0)
