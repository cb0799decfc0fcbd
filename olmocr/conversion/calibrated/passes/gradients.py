"""One backward pass over a few pages -> the cost of each language matrix's error in nats, and tokens' weights.

The KL divergence that a small error of the logits makes is half its square in the metric F = diag(p) - p p^T, with p
the source's own probabilities. At each answer token the gradient u = sqrt(p) * e - p (sqrt(p) . e), with e drawn from
N(0, 1), has E[u u^T] = F. So one pass back from u gives g_t, the gradient at the output of any matrix at token t, and
the error dW of that matrix costs

    c = k / (2 P) * sum over the tokens t of all pages of (g_t . dW x_t)^2

nats an answer token, with P answer tokens in all. With k = 1, errors of different tokens would be independent. They are
not: a part of dW x_t is the same for all t, and that part grows the less rounding knows of x. The square of a page's
complete sum over t has the right mean, but one square per page is too rough for a single matrix. So k is the mean over
pages and matrices of
model errs can have nearly all of the sum. The head's own error reaches the logits at once: F itself is used there, and
nothing is drawn.

Blocks are taken from the last to the first. Each is computed again from the states before it that the walk left on the
disk, with one block of weights in memory. Everything is computed in float32.

The functions of `language` are differentiated, not mlx-vlm's modules. Those call things that these do not: on Metal,
rotary positions are an ``mx.fast.metal_kernel``, which has no gradient (mlx-vlm 0.7.10 works around that with an
``mx.custom_function``); ``mx.quantized_matmul`` does not have one by packed weights on any device; and keys and values
are written into a cache. MLX itself differentiates products, ``mx.fast.rms_norm``,
``mx.fast.scaled_dot_product_attention`` and ``mx.sigmoid``.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    POSITIONS_AT_ONCE,
    decoder_block,
    head_input,
    language_shape,
    logits,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks, SourceMatrix, Weights, arrays_in
from olmocr.conversion.calibrated.passes.statistics import HessianSum, predicts_answer, token_weights
from olmocr.conversion.calibrated.passes.walk import (
    BlockStatistics,
    WalkOptions,
    block_names,
    in_order,
    states_of,
    walk,
)
from olmocr.conversion.calibrated.rounding.read_back import CALIBRATED, Hessians, Rounding
from olmocr.conversion.recipe import BITS
from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE, number_of_blocks
from olmocr.files import whole_file
from olmocr.tensors.floats import Floats

_ELEMENTS = 1 << 24
"""Weights of a matrix rounded at once: 64 MB of float32 for each number of bits."""

_WIDEST_IN_ONE = 8192
"""The most columns of an input whose H is kept as one; a wider one is cut into two slices."""

_MOST_TOGETHER = 2.0
"""The limit for a mean over a few pages of how alike errors are: one page's draw alone can give five."""

Nats = dict[str, dict[str, dict[int, float]]]
"""Module -> method -> bits -> nats of KL an answer token."""


@dataclass(frozen=True, eq=False)
class TokenGradients:
    """How large the gradient is at the output of each matrix at each token: *norms* (tokens,) by page and module."""

    norms: Mapping[tuple[str, str], Floats]
    image_token: int

    def weights(self, page: CalibrationPage, modules: Sequence[str]) -> Floats:
        """Return the weight of each token of *page* for *modules*, float32 (tokens,): 0.9 a / mean(a) + 0.1.

        a is the norm of the gradient, not its square, which a few tokens would dominate. Tokens of the prompt, and the
        last one, do not get the 0.1. For several modules with the same input, it is the mean.
        """
        flat = (token_weights(page, self.image_token) > 0).astype(np.float32)
        parts = [self.norms[page.sha256, module] / self._means[module] for module in modules]
        weights: Floats = np.float32(0.9) * np.mean(parts, axis=0, dtype=np.float32) + np.float32(0.1) * flat
        return weights

    @functools.cached_property
    def _means(self) -> dict[str, float]:
        """The mean over all pages' tokens, by module."""
        found: dict[str, list[Floats]] = {}
        for (_, module), norms in self.norms.items():
            found.setdefault(module, []).append(norms)
        return {module: float(np.concatenate(of).mean(dtype=np.float64)) or 1.0 for module, of in found.items()}

    def write(self, path: Path) -> None:
        """Write all norms to *path*, which appears when it is complete.

        Raises:
            OutputError: it cannot be written.
        """
        named: dict[str, Any] = {f"{page}/{module}": norms for (page, module), norms in self.norms.items()}
        with whole_file(path) as file:
            np.savez(file, **named)


def read_token_gradients(path: Path, image_token: int) -> TokenGradients | None:
    """Return the content of *path*, written by `TokenGradients.write`, or None if it is missing or unreadable."""
    try:
        with path.open("rb") as file, np.load(file) as found:
            norms = {(page, module): found[name] for name in found for page, _, module in [name.partition("/")]}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    return TokenGradients(norms, image_token)


def find_token_gradients(
    source: SourceCheckpoint,
    pages: Sequence[CalibrationPage],
    folder: Path,
    *,
    seed: int = 0,
    on_block: Callable[[int], None] = lambda done: None,
) -> TokenGradients:
    """Return the size of the KL divergence's gradient at each token of *pages*, from one backward pass.

    *folder* has the states before each block of the language model, as a `walk` leaves them. *on_block* is called with
    the number of these blocks that are done.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: states are missing.
    """
    names = block_names(source)
    first = number_of_blocks(source.config)["blocks"]
    with closing(SourceBlocks(source, mx.float32)) as blocks:
        back = _WayBack(source, in_order(pages), blocks, folder, seed)
        back.head()
        for number in reversed(range(first, len(names) - 1)):
            for _ in back.block(number):
                pass
            on_block(len(names) - 1 - number)
            mx.clear_cache()
    return back.tokens()


def price_matrices(
    source: SourceCheckpoint,
    pages: Sequence[CalibrationPage],
    folder: Path,
    roundings: Mapping[str, Rounding],
    *,
    bits: Sequence[int] = BITS,
    seed: int = 0,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> Nats:
    """Return the cost of rounding each matrix of *source*'s language model, alone, by each of *roundings*.

    *folder* takes what does not fit into memory: for each page and block the states before it, and for one block the
    inputs and gradients of its matrices. *on_block* is called with the number of blocks done, counting forward and
    back.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: *folder* cannot be written.
        PlanError: models of this family are not supported.
    """
    names = block_names(source)
    first = number_of_blocks(source.config)["blocks"]
    total = len(names) + len(names) - first
    ordered = in_order(pages)

    def walked(block: BlockStatistics) -> None:
        on_block(block.number + 1, total)

    # Gradients do not go back through the vision tower.
    walk(source, ordered, walked, folder, options=WalkOptions(needed=(), keep_states_from=first))
    with closing(SourceBlocks(source, mx.float32)) as blocks:
        prices = _Prices(roundings, bits, ordered)
        back = _PricedWayBack(_WayBack(source, ordered, blocks, folder, seed), blocks, folder, prices)
        back.head()
        on_block(len(names) + 1, total)
        for number in reversed(range(first, len(names) - 1)):
            back.block(number)
            on_block(len(names) + len(names) - number, total)
            mx.clear_cache()
        back.embeddings()
    return prices.nats()


def drawn_gradient(probabilities: mx.array, noise: mx.array) -> mx.array:
    """Return u = sqrt(p) e - p (sqrt(p) . e) for each row p of *probabilities* and e of *noise*, which is N(0, 1).

    E[u u^T] = diag(p) - p p^T, the second derivatives of the KL divergence by logits.
    """
    roots = mx.sqrt(probabilities) * noise
    return roots - probabilities * roots.sum(axis=-1, keepdims=True)


class _Prices:
    """Sums the cost of each matrix's error."""

    def __init__(
        self, roundings: Mapping[str, Rounding], bits: Sequence[int], pages: Sequence[CalibrationPage]
    ) -> None:
        self._roundings, self._bits = roundings, bits
        self.needs_hessians = CALIBRATED in roundings
        self._answer_tokens = sum(int(predicts_answer(page).sum()) for page in pages)
        self._nats: Nats = {}
        self._together: dict[tuple[str, int], list[tuple[str, float]]] = {}

    def errors(
        self, matrix: SourceMatrix, hessians: Hessians | None
    ) -> Iterator[tuple[slice, Floats, dict[tuple[str, int], mx.array]]]:
        """Yield rows of *matrix*: which, their values, and by method and bits the rounding error (rows, columns)."""
        rounds = {method: rounding(hessians) for method, rounding in self._roundings.items()}
        for rows in _row_chunks(matrix.shape):
            values = matrix.rows(rows.start, rows.stop)
            yield (
                rows,
                values,
                {
                    (method, bits): mx.array(round_rows(values, bits) - values)
                    for method, round_rows in rounds.items()
                    for bits in self._bits
                },
            )

    def errors_of(self, values: Floats) -> Iterator[tuple[tuple[str, int], mx.array]]:
        """Yield by method and bits the rounding error of *values* (rows, columns), whose inputs are unknown."""
        for method, rounding in self._roundings.items():
            round_rows = rounding(None)
            for bits in self._bits:
                yield (method, bits), mx.array(round_rows(values, bits) - values)

    def add(self, module: str, key: tuple[str, int], squares: float) -> None:
        """Add the sum of *squares* over tokens to the cost of *module* by *key*, method and bits."""
        by_bits = self._nats.setdefault(module, {}).setdefault(key[0], {})
        by_bits[key[1]] = by_bits.get(key[1], 0.0) + squares / (2 * self._answer_tokens)

    def add_page(self, module: str, key: tuple[str, int], moved: Floats) -> None:
        """Add g_t . dW x_t of a page's tokens, *moved* (tokens,)."""
        squares = float(np.square(moved, dtype=np.float64).sum())
        self.add(module, key, squares)
        if squares:
            whole = float(moved.sum(dtype=np.float64)) ** 2
            self._together.setdefault(key, []).append((module, whole / squares))

    def nats(self) -> Nats:
        """Return the cost of each matrix, with the errors of one page's tokens taken together."""
        nats = {module: {method: dict(bits) for method, bits in each.items()} for module, each in self._nats.items()}
        for (method, bits), quotients in self._together.items():
            together = float(np.clip(np.mean([each for _, each in quotients]), 1, _MOST_TOGETHER))
            for module in {module for module, _ in quotients}:
                nats[module][method][bits] *= together
        return nats


class _WayBack:
    """The backward pass through a source, from the head to the first block of the language model."""

    def __init__(
        self,
        source: SourceCheckpoint,
        pages: Sequence[CalibrationPage],
        blocks: SourceBlocks,
        folder: Path,
        seed: int,
    ) -> None:
        self.pages, self.names = pages, block_names(source)
        self.image_token = source.image_token
        self.gradients: list[mx.array] = []
        self._blocks, self._seed = blocks, seed
        self._states, self._shape = states_of(source, pages, folder), language_shape(source.config)
        self._tokens = [len(page.token_ids) for page in pages]
        self._norms: dict[tuple[str, str], Floats] = {}

    def tokens(self) -> TokenGradients:
        """Return what was found."""
        return TokenGradients(self._norms, self.image_token)

    def head(self) -> list[tuple[mx.array, mx.array]]:
        """Draw a gradient at the logits of each page, and pass it back through the head.

        Return for each page the head's input at tokens that predict an answer (tokens, width), and the logarithms of
        their logits' sums (tokens, 1).
        """
        norm = self._blocks.weights(f"{LANGUAGE}model.norm")["weight"]
        head = self._blocks.weights(self.names[-1])["weight"]
        seen = []
        for place, page in enumerate(self.pages):
            hidden = self._hidden(len(self.names) - 1, place)
            answers = mx.array(np.flatnonzero(predicts_answer(page)))
            into = functools.partial(head_input, norm, shape=self._shape)
            normed = into(hidden[answers])
            gradient, log_sum = self._logit_gradient(head, normed, page)
            (back,) = mx.vjp(into, [hidden[answers]], [gradient])[1]
            whole = mx.zeros_like(hidden)
            whole[answers] = back
            mx.eval(whole, normed, log_sum)
            self.gradients.append(whole)
            seen.append((normed, log_sum))
        return seen

    def _logit_gradient(self, head: mx.array, normed: mx.array, page: CalibrationPage) -> tuple[mx.array, mx.array]:
        """Return the drawn gradient by *normed* (tokens, width), and the logarithm of the logits' sum (tokens, 1)."""
        drawn = np.random.default_rng([self._seed, int(page.sha256[:16], 16)])
        gradients, log_sums = [], []
        for first in range(0, normed.shape[0], POSITIONS_AT_ONCE):
            values = logits(head, normed[first : first + POSITIONS_AT_ONCE])
            log_sum = mx.logsumexp(values, axis=-1, keepdims=True)
            probabilities = mx.exp(values - log_sum)
            noise = mx.array(drawn.standard_normal(values.shape, np.float32))
            gradients.append(drawn_gradient(probabilities, noise) @ head)
            log_sums.append(log_sum)
            mx.eval(gradients[-1], log_sum)
        return mx.concatenate(gradients), mx.concatenate(log_sums)

    def block(self, number: int) -> Iterator[tuple[int, Sequence[mx.array], dict[str, mx.array]]]:
        """Pass the gradients back through block *number*, page by page.

        Yield the page's index, the inputs of the block's matrices on it, and the gradient at each output by name.
        """
        weights = self._blocks.weights(self.names[number])
        for place, page in enumerate(self.pages):
            inputs, gradients = self._back_through(weights, number, place)
            for name, gradient in gradients.items():
                norms = mx.sqrt(mx.square(gradient).sum(axis=-1))
                self._norms[page.sha256, f"{self.names[number]}.{name}"] = np.array(norms)
            yield place, inputs, gradients
            del inputs, gradients
            mx.clear_cache()

    def _back_through(
        self, weights: Weights, number: int, place: int
    ) -> tuple[Sequence[mx.array], dict[str, mx.array]]:
        names = [name for own in BLOCK_INPUTS for name in own]
        hidden = self._hidden(number, place)
        angles = rotary_angles(self.pages[place].position_ids, self._shape)

        def through(hidden: mx.array, *nudges: mx.array) -> list[mx.array]:
            out, inputs = decoder_block(weights, hidden, angles, self._shape, dict(zip(names, nudges, strict=True)))
            return [out, *inputs]

        tokens = hidden.shape[0]
        nudges = [_zeros(tokens, weights[f"{name}.weight"].shape[0]) for name in names]
        unmoved = [_zeros(tokens, weights[f"{own[0]}.weight"].shape[1]) for own in BLOCK_INPUTS]
        seen, back = mx.vjp(through, [hidden, *nudges], [self.gradients[place], *unmoved])
        mx.eval(seen[1:], back)
        self.gradients[place] = back[0]
        return seen[1:], dict(zip(names, back[1:], strict=True))

    def _hidden(self, number: int, place: int) -> mx.array:
        return self._states.read(number, self._tokens, place).astype(mx.float32)


class _PricedWayBack:
    """The same pass, which also adds the cost of each matrix's error to *prices*."""

    def __init__(self, way: _WayBack, blocks: SourceBlocks, folder: Path, prices: _Prices) -> None:
        self._way, self._blocks, self._folder, self._prices = way, blocks, folder, prices

    def head(self) -> None:
        """Begin the pass, and price the head's own error."""
        seen = self._way.head()
        module = self._way.names[-1]
        hessian = self._hessian(seen[0][0].shape[1])
        for normed, _ in seen:
            if hessian is not None:
                hessian.add(normed, np.ones(normed.shape[0], np.float32))
        # For the error e of a token's logits: the sums of p e^2 and of p e.
        sums: dict[tuple[str, int], list[list[mx.array]]] = {}
        for _, values, errors in self._prices.errors(
            self._blocks.matrix(module), hessian.finish() if hessian is not None else None
        ):
            rows = mx.array(values)
            for place, (given, log_sum) in enumerate(seen):
                probabilities = mx.exp(given @ rows.T - log_sum)
                for key, error in errors.items():
                    of_pages = sums.setdefault(key, [[mx.array(0.0), mx.array(0.0)] for _ in seen])
                    moved = given @ error.T
                    parts = ((probabilities * moved * moved).sum(axis=-1), (probabilities * moved).sum(axis=-1))
                    of_pages[place] = [total + part for total, part in zip(of_pages[place], parts, strict=True)]
                    mx.eval(of_pages[place])
        for key, of_pages in sums.items():
            for second, first in of_pages:
                self._prices.add(module, key, max(0.0, _sum(second - first * first)))

    def block(self, number: int) -> None:
        """Pass the gradients back through block *number*, and price its matrices."""
        hessians: list[HessianSum | None] = []
        for place, inputs, gradients in self._way.block(number):
            counts = token_weights(self._way.pages[place], self._way.image_token)
            hessians = hessians or [self._hessian(values.shape[1]) for values in inputs]
            for hessian, values in zip(hessians, inputs, strict=True):
                if hessian is not None:
                    hessian.add(values, counts)
            parts = {f"input {which}": given for which, given in enumerate(inputs)}
            mx.save_safetensors(str(self._kept(place)), {**parts, **gradients})
        for which, (own, hessian) in enumerate(zip(BLOCK_INPUTS, hessians, strict=True)):
            found = hessian.finish() if hessian is not None else None
            for name in own:
                self._price(number, name, f"input {which}", found)
        for place in range(len(self._way.pages)):
            self._kept(place).unlink()

    def _price(self, number: int, name: str, given: str, hessians: Hessians | None) -> None:
        module = f"{self._way.names[number]}.{name}"
        sums: dict[tuple[str, int], list[mx.array]] = {}
        for rows, _, errors in self._prices.errors(self._blocks.matrix(module), hessians):
            for place in range(len(self._way.pages)):
                kept = arrays_in(self._kept(place))
                values, gradient = kept[given], kept[name][:, rows]
                for key, error in errors.items():
                    totals = sums.setdefault(key, [mx.array(0.0)] * len(self._way.pages))
                    totals[place] = totals[place] + ((values @ error.T) * gradient).sum(axis=-1)
                    mx.eval(totals[place])
        for key, totals in sums.items():
            for total in totals:
                self._prices.add_page(module, key, np.array(total))

    def embeddings(self) -> None:
        """Price the embeddings' error; each text token uses one row."""
        module = EMBEDDINGS.removesuffix(".weight")
        for page, gradient in zip(self._way.pages, self._way.gradients, strict=True):
            text = np.flatnonzero(page.token_ids != self._way.image_token)
            ids, places = np.unique(page.token_ids[text], return_inverse=True)
            rows = self._blocks.chosen_rows(EMBEDDINGS, ids.tolist())
            met = gradient[mx.array(text)]
            for key, error in self._prices.errors_of(rows):
                moved = (error[mx.array(places)] * met).sum(axis=-1)
                self._prices.add(module, key, _sum(moved * moved))

    def _hessian(self, columns: int) -> HessianSum | None:
        """Return what sums H of an input, if any rounding uses it; in slices for a wide one, to save memory."""
        slices = 1 if columns <= _WIDEST_IN_ONE else 2
        return HessianSum(columns, slices) if self._prices.needs_hessians else None

    def _kept(self, place: int) -> Path:
        return self._folder / f"gradients-{place:04}.safetensors"


def _zeros(rows: int, columns: int) -> mx.array:
    """Return zeros that take no memory: at 7B those of one page would take 0.9 GB."""
    return mx.broadcast_to(mx.array(0.0), (rows, columns))


def _sum(values: mx.array) -> float:
    return float(np.array(values).sum(dtype=np.float64))


def _row_chunks(shape: tuple[int, int]) -> Iterator[slice]:
    step = max(1, _ELEMENTS // shape[1])
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))
