"""Calibrated rounding in plain numpy, float64: the steps of `calibrated.rounding.steps`, one row at a time."""

import numpy as np

from olmocr.conversion.calibrated.rounding.steps import ALTERNATIONS, ROUNDS, SHRINKS, STARTS, STRETCHES
from olmocr.tensors.floats import narrowed


def as_stored(value, dtype):
    return float(narrowed(np.float32([value]), dtype).astype(np.float32)[0])


def upper_factor(hessian):
    """Return A + I and the diagonal of D, where hessian = (A + I) D (A + I)^T."""
    upper = np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]
    return upper / upper.diagonal(), upper.diagonal() ** 2


def nearest(values, scale, bias, n):
    return np.clip(np.rint((values - bias) / scale), 0, n)


def search(x, h, n, dtype):
    def error(pair):
        return (h * (x - nearest(x, *pair, n) * pair[0] - pair[1]) ** 2).sum()

    def tried(scale, bias):
        pair = (as_stored(scale, dtype), as_stored(bias, dtype))
        yield pair
        for _ in range(ALTERNATIONS):
            q = nearest(x, *pair, n)
            terms = np.stack([q, np.ones_like(q)])
            if np.ptp(q):
                pair = tuple(as_stored(each, dtype) for each in np.linalg.solve(terms * h @ terms.T, terms * h @ x))
            yield pair

    low, high = x.min(), x.max()
    step = (high - low) / n if abs(low) > abs(high) else (low - high) / n
    edge = low if abs(low) > abs(high) else high
    steps = np.rint(edge / step)
    stock = (edge / steps, edge) if steps else (step, 0.0)
    found = [tuple(as_stored(each, dtype) for each in stock)]
    for shrink in SHRINKS:
        scale = shrink * (high - low) / n
        found.extend(tried(scale, (high + low) / 2 - scale * n / 2))
    scale, bias = min(found, key=error)
    found = [(scale, bias)]
    for stretch in STRETCHES:
        found.extend(tried(scale * stretch, bias + scale * (1 - stretch) * n / 2))
    return min(found, key=error)


def improved(p, q, scale, bias, hessian, n, dtype):
    """Return codes, scale and bias after one round, and H times the change of the errors."""
    terms = np.stack([q, np.ones_like(q)])
    curvature, slope = terms @ hessian @ terms.T, terms @ p
    if np.ptp(q):
        new_scale = as_stored(scale + np.linalg.solve(curvature, slope)[0], dtype)
        ds = new_scale - scale
        new_bias = as_stored(bias + (slope[1] - ds * curvature[0, 1]) / curvature[1, 1], dtype)
        change = np.array([ds, new_bias - bias])
        if change @ curvature @ change < 2 * change @ slope:
            scale, bias = new_scale, new_bias
            p = p - hessian @ (change @ terms)
    q = q.copy()
    for column in range(len(q)):
        code = np.clip(np.rint(q[column] + p[column] / hessian[column, column] / scale), 0, n)
        p = p + hessian[column] * (q[column] - code) * scale
        q[column] = code
    return p, q, scale, bias


def rounded_row(w, hessian, added, size, bits, dtype):
    """Return what *w* is read back as."""
    n, columns = (1 << bits) - 1, len(w)
    damped = hessian.astype(np.float64) + added * np.eye(columns)
    upper, pivots = upper_factor(damped)
    error, groups = np.zeros(columns), []
    for start in range(0, columns, size):
        here = slice(start, start + size)
        target = w[here] + error[:start] @ upper[:start, here]
        own = upper[here, here]
        conditional = own * pivots[here] @ own.T
        scale, bias = search(target, pivots[here], n, dtype)
        found = [
            started(w[here], target, own, pivots[here], conditional, scale, bias, each, n, dtype) for each in STARTS
        ]
        _, q, scale, bias = min(found, key=lambda each: each[0])
        error[here] = w[here] - (q * scale + bias)
        groups.append((q, scale, bias))
    for index, start in enumerate(range(0, columns, size)):
        here = slice(start, start + size)
        _, q, scale, bias = improved(damped[here] @ error, *groups[index], damped[here, here], n, dtype)
        error[here] = w[here] - (q * scale + bias)
    return w - error


def started(w, target, own, pivots, conditional, scale, bias, start, n, dtype):
    bias = as_stored(bias + scale * (1 - start) * n / 2, dtype)
    scale = as_stored(scale * start, dtype)
    x, q = target.copy(), np.zeros_like(w)
    for column in range(len(w)):
        q[column] = nearest(x[column], scale, bias, n)
        x[column + 1 :] += (w[column] - q[column] * scale - bias) * own[column, column + 1 :]
    for _ in range(ROUNDS):
        rest = left_over(w, target, own, q, scale, bias)
        _, q, scale, bias = improved(own @ (pivots * rest), q, scale, bias, conditional, n, dtype)
    rest = left_over(w, target, own, q, scale, bias)
    return (pivots * rest**2).sum(), q, scale, bias


def left_over(w, target, own, q, scale, bias):
    value = q * scale + bias
    return target - value + (w - value) @ (own - np.eye(len(w)))
