"""Matrices of one input become one product, and no weight is there twice."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from olmocr.inference.passes.joined import Joined

WIDTH = 512


def matrices(*sizes, bias=True, **quantized):
    made = [nn.Linear(WIDTH, size, bias=bias) for size in sizes]
    if quantized:
        made = [each.to_quantized(**quantized) for each in made]
    mx.eval([each.parameters() for each in made])
    return made


def outputs(modules, values):
    return mx.concatenate([each(values) for each in modules], axis=-1)


@pytest.mark.parametrize(
    "kind",
    [{}, {"bias": False}, {"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 4, "mode": "mxfp4", "bias": False}],
    ids=["with bias", "without", "4 bits", "mxfp4"],
)
def test_joined_matrices_give_what_each_gave_and_still_gives(kind):
    modules, values = matrices(384, 64, 64, **kind), mx.random.normal((5, WIDTH))
    expected = outputs(modules, values)
    mx.eval(expected)
    joined = Joined(modules)
    assert len(joined) == 1
    assert mx.allclose(joined(values), expected, rtol=1e-5, atol=1e-5)
    assert mx.allclose(outputs(modules, values), expected, rtol=1e-5, atol=1e-5)


def test_only_neighbours_that_are_stored_alike_are_joined():
    (queries,), (keys, values) = matrices(384, group_size=64, bits=4), matrices(64, 64, group_size=64, bits=8)
    given = mx.random.normal((1, WIDTH))
    expected = outputs([queries, keys, values], given)
    mx.eval(expected)
    joined = Joined([queries, keys, values])
    assert len(joined) == 2
    assert mx.allclose(joined(given), expected, rtol=1e-5, atol=1e-5)
    assert len(Joined([*matrices(8), *matrices(8, bias=False)])) == 2


@pytest.mark.parametrize("kind", [{}, {"group_size": 64, "bits": 8}])
def test_joined_matrices_take_no_more_memory_than_they_did(kind):
    modules = matrices(384, 128, 128, **kind)
    own = sum(array.nbytes for each in modules for array in each.parameters().values())
    before = mx.get_active_memory()
    joined = Joined(modules)
    mx.eval(joined(mx.zeros((1, WIDTH))))
    assert mx.get_active_memory() < before + own // 4
