"""Products of numpy arrays are numpy's, whichever library computes them, and rows are shared without loss."""

import threading

import numpy as np
import pytest

from olmocr.inference.blas import Mkl, NumpyBlas, find_blas
from olmocr.runtime.device import opened_blas
from tests.conftest import DEVICE

BLASES = [NumpyBlas(), find_blas()]


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.skipif("mkl" not in (DEVICE.blas or ""), reason="MKL is not installed")
def test_mkl_is_used_where_it_was_opened():
    assert isinstance(find_blas(), Mkl)
    assert opened_blas() is not None


@pytest.mark.parametrize("blas", BLASES, ids=lambda blas: type(blas).__name__)
@pytest.mark.parametrize("rows", [1, 2, 7, 200])
@pytest.mark.parametrize(
    "right",
    [
        numbers(24, 40),
        numbers(40, 24).T,
        numbers(24, 90)[:, 5:45],
        numbers(60, 24)[11:51].T,
        numbers(24, 80)[:, ::2],
        numbers(24, 1),
        numbers(1, 24).T,
    ],
    ids=["rows", "columns", "part of rows", "part of columns", "every other", "one column", "one row turned"],
)
def test_a_product_is_numpys_however_its_matrices_lie_in_memory(blas, rows, right):
    for left in (numbers(rows, 24), numbers(rows, 30)[:, 3:27], numbers(24, rows).T, numbers(2 * rows, 24)[::2]):
        np.testing.assert_allclose(blas.product(left, right), left @ right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blas", BLASES, ids=lambda blas: type(blas).__name__)
def test_several_matrices_are_multiplied_one_by_one(blas):
    for left, right in (
        (numbers(3, 5, 8), numbers(3, 9, 8).transpose(0, 2, 1)),
        (numbers(3, 5, 8)[:, 1:3], numbers(3, 8, 9)[..., 2:6]),
        (numbers(2, 12, 8).reshape(2, 3, 4, 8), numbers(2, 12, 8).reshape(2, 3, 4, 8).swapaxes(2, 3)),
        (numbers(2, 3, 4, 4)[:, 1:], numbers(2, 3, 4, 8)[:, 1:]),
    ):
        np.testing.assert_allclose(blas.product(left, right), left @ right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blas", BLASES, ids=lambda blas: type(blas).__name__)
def test_matrices_that_do_not_fit_are_refused(blas):
    with pytest.raises(ValueError, match=r"\b4\b"):
        blas.product(numbers(3, 4), numbers(5, 6))


def test_mkl_refuses_numbers_of_another_type_than_it_is_told():
    blas = find_blas()
    if isinstance(blas, Mkl):
        with pytest.raises(ValueError, match="float64"):
            blas.product(numbers(3, 4).astype(np.float64), numbers(4, 6))


@pytest.mark.parametrize("blas", BLASES, ids=lambda blas: type(blas).__name__)
@pytest.mark.parametrize("rows", [1, 63, 129, 1000])
def test_each_row_is_shared_out_once(blas, rows):
    counts, lock = np.zeros(rows, int), threading.Lock()

    def work(some):
        with lock:
            counts[some] += 1

    blas.share(rows, work)
    blas.share(rows, work, 20)
    assert (counts == 2).all()


@pytest.mark.parametrize("blas", BLASES, ids=lambda blas: type(blas).__name__)
def test_an_error_in_shared_work_is_raised(blas):
    with pytest.raises(ValueError, match="broken"):
        blas.share(500, lambda rows: (_ for _ in ()).throw(ValueError("broken")))
