"""Gradients against differences of losses, and predicted KL against that of a model whose weights were rounded."""

import dataclasses

import mlx.core as mx
import numpy as np
import pytest

from olmocr.calibration.gather import gather
from olmocr.conversion.calibrated.passes.gradients import (
    drawn_gradient,
    find_token_gradients,
    price_matrices,
    read_token_gradients,
)
from olmocr.conversion.calibrated.passes.language import (
    BLOCK_INPUTS,
    decoder_block,
    language_shape,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks
from olmocr.conversion.calibrated.passes.statistics import predicts_answer, token_weights
from olmocr.conversion.calibrated.passes.walk import in_order
from olmocr.conversion.calibrated.rounding.read_back import roundings
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.model_folder import ModelFolder
from tests.conftest import CHECKPOINT
from tests.conversion.calibrated.pages import random_page
from tests.conversion.calibrated.whole_model import EMBEDDINGS, HEAD, measured_kl


@pytest.fixture(scope="module")
def source():
    return read_checkpoint(ModelFolder(CHECKPOINT))


@pytest.fixture(scope="module")
def pages(source):
    return in_order([random_page(source.config, name, rows=4, columns=6, answer=5) for name in ("one", "two")])


@pytest.fixture(scope="module")
def rounding():
    return roundings(["stock"], "BF16", find_processor())


@pytest.fixture(scope="module")
def priced(source, pages, rounding, tmp_path_factory):
    """Prices at 6 bits, and the folder in which the states before each block were left."""
    folder = tmp_path_factory.mktemp("priced")
    return price_matrices(source, pages, folder, rounding, bits=(6,)), folder


def rounded(rounding, bits, modules):
    """Return a change that rounds *modules*, all of them if they are None."""

    found = {}

    def change(module, matrix):
        if modules is not None and module not in modules:
            return matrix
        if module not in found:
            found[module] = mx.array(rounding["stock"](None)(np.array(matrix), bits))
        return found[module]

    return change


def test_drawn_gradients_have_the_second_moments_of_the_kl():
    probabilities = np.array([0.6, 0.25, 0.1, 0.05], np.float32)
    noise = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
    drawn = np.array(drawn_gradient(mx.array(np.tile(probabilities, (20_000, 1))), mx.array(noise)))
    expected = np.diag(probabilities) - np.outer(probabilities, probabilities)
    assert np.abs(drawn.T @ drawn / 20_000 - expected).max() < 0.01
    assert np.abs(drawn.sum(axis=1)).max() < 1e-5


@pytest.mark.parametrize("name", [name for own in BLOCK_INPUTS for name in own])
def test_the_gradient_at_a_matrixs_output_is_what_differences_of_the_loss_say(source, pages, name):
    shape, page = language_shape(source.config), pages[0]
    weights = SourceBlocks(source, mx.float32).weights("language_model.model.layers.3")
    angles = rotary_angles(page.position_ids, shape)
    drawn = np.random.default_rng(1)
    tokens, width = len(page.token_ids), source.config["hidden_size"]
    hidden, by_out = (mx.array(drawn.standard_normal((tokens, width)).astype(np.float32)) for _ in range(2))
    zeros = mx.zeros((tokens, weights[f"{name}.weight"].shape[0]))
    direction = mx.array(drawn.standard_normal(zeros.shape).astype(np.float32))

    def out(nudge):
        return decoder_block(weights, hidden, angles, shape, {name: nudge})[0]

    _, (gradient,) = mx.vjp(out, [zeros], [by_out])
    step = 1e-2
    moved = (np.array(out(sign * step * direction), np.float64) for sign in (1, -1))
    plus, minus = ((each * np.array(by_out)).sum() for each in moved)
    said, slope = float((gradient * direction).sum()), (plus - minus) / (2 * step)
    assert abs(said - slope) < 0.01 * np.linalg.norm(np.array(gradient))


def test_every_language_matrix_has_a_price(source, priced):
    found, _ = priced
    matrices = {
        name.removesuffix(".weight")
        for name, info in source.tensors.items()
        if len(info.shape) == 2 and name.startswith("language_model.")
    }
    assert set(found) == matrices
    assert all(each["stock"][6] > 0 for each in found.values())


def test_the_price_of_the_head_is_the_kl_of_a_model_whose_head_is_rounded(source, pages, rounding, priced):
    found, folder = priced
    measured = measured_kl(source, pages, folder, rounded(rounding, 6, {HEAD}))
    assert found[HEAD]["stock"][6] == pytest.approx(measured, rel=0.05)


def test_the_prices_of_all_matrices_add_up_to_about_the_kl_of_the_model(source, pages, rounding, priced):
    found, folder = priced
    predicted = sum(each["stock"][6] for each in found.values())
    measured = measured_kl(source, pages, folder, rounded(rounding, 6, None))
    assert 0.6 * predicted < measured < 1.6 * predicted


def test_the_same_seed_gives_the_same_prices_whatever_the_order_of_the_pages(source, pages, rounding, priced, tmp_path):
    again = price_matrices(source, pages[::-1], tmp_path, rounding, bits=(6,))
    assert again == priced[0]


def test_what_is_needed_on_the_way_is_left_nowhere_but_the_states(priced):
    _, folder = priced
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"hidden"}


@pytest.fixture(scope="module")
def tokens(source, pages, priced):
    return find_token_gradients(source, pages, priced[1])


def test_tokens_count_by_their_gradient_and_a_tenth_by_what_they_are(source, pages, tokens):
    module = "language_model.model.layers.5.mlp.down_proj"
    norms = np.concatenate([tokens.norms[page.sha256, module] for page in pages])
    for page in pages:
        weights = tokens.weights(page, [module])
        flat = (token_weights(page, source.config["image_token_id"]) > 0) * 0.1
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights, 0.9 * tokens.norms[page.sha256, module] / norms.mean() + flat, rtol=1e-5)
    # Nothing after the last block looks at other tokens than those that answer.
    assert (tokens.norms[pages[0].sha256, module][~predicts_answer(pages[0])] == 0).all()


def test_matrices_with_one_input_have_tokens_count_the_mean_of_what_they_count_for_each(pages, tokens):
    modules = [f"language_model.model.layers.2.mlp.{each}_proj" for each in ("gate", "up")]
    one, other = (tokens.weights(pages[0], [each]) for each in modules)
    np.testing.assert_allclose(tokens.weights(pages[0], modules), (one + other) / 2, rtol=1e-5)
    assert not np.allclose(one, other)


def test_gradients_are_read_as_they_were_written_or_not_at_all(pages, tokens, tmp_path):
    path = tmp_path / "gradients.npz"
    tokens.write(path)
    again = read_token_gradients(path, tokens.image_token)
    assert again.norms.keys() == tokens.norms.keys()
    assert all((again.norms[key] == norms).all() for key, norms in tokens.norms.items())
    path.write_bytes(path.read_bytes()[:1000])
    assert read_token_gradients(path, tokens.image_token) is None
    assert read_token_gradients(tmp_path / "none", tokens.image_token) is None


@pytest.mark.slow
def test_calibrated_rounding_is_priced_below_what_does_not_look_at_inputs(source, pages, tmp_path):
    methods = roundings(["fit", "calibrated"], "BF16", find_processor())
    # With one block more nothing new is seen.
    short = dataclasses.replace(source, config=source.config | {"num_hidden_layers": 1})
    found = price_matrices(short, pages, tmp_path, methods, bits=(4,))
    fit, calibrated = (
        sum(each[method][4] for name, each in found.items() if name != EMBEDDINGS) for method in ("fit", "calibrated")
    )
    assert calibrated < 0.6 * fit


@pytest.mark.slow
def test_the_kl_of_stock_4_bit_is_predicted_on_pages(source, rounding, tmp_path):
    drawn = in_order(gather(ModelFolder(CHECKPOINT)).pages[::6])
    found = price_matrices(source, drawn, tmp_path, rounding, bits=(4,))
    predicted = sum(each["stock"][4] for each in found.values())
    measured = measured_kl(source, drawn, tmp_path, rounded(rounding, 4, None))
    assert 0.6 * predicted < measured < 1.6 * predicted
