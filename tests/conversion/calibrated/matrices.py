"""Weights, and inputs like those of a language model, that tests of calibrated rounding share."""

import numpy as np

from olmocr.conversion.recipe import QuantParams


def random_weight(rows, columns, seed=0):
    random = np.random.default_rng(seed)
    weight = random.normal(0, 0.02, (rows, columns)) * random.lognormal(0, 0.3, (rows, 1))
    return weight.astype(np.float32)


def correlated_hessian(columns, seed=0, tokens=None, outliers=1):
    """Return the second moments of correlated inputs; a few of their columns are far larger than the rest."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(columns, columns)) * random.lognormal(0, 0.7, columns)
    inputs = random.normal(size=(tokens or 3 * columns, columns)) @ mixed * 0.05
    inputs[:, random.integers(0, columns, outliers)] *= 30
    return (inputs.T @ inputs).astype(np.float32)


def read_back(rounded, params: QuantParams):
    rows, columns = rounded.codes.shape
    codes = rounded.codes.reshape(rows, -1, params.group_size).astype(np.float64)
    return (codes * rounded.scales[:, :, None] + rounded.biases[:, :, None]).reshape(rows, columns)


def true_loss(error, hessian):
    error, hessian = error.astype(np.float64), hessian.astype(np.float64)
    return float(np.einsum("ij,jk,ik->", error, hessian, error, optimize=True))
