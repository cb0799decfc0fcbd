"""Our vision towers against mlx-vlm's, with the demo checkpoint's weights."""

import gc
import weakref
from concurrent.futures import Future
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx_vlm
import numpy as np
import pytest

from olmocr.inference.decode import BatchLimits, Scheduler
from olmocr.inference.model import load_model
from olmocr.inference.row import Asked
from olmocr.inference.vision import CpuVisionTower, make_layout
from olmocr.inference.vision_mlx import MlxVisionTower, StockVisionTower, is_as_expected
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model
from tests.inference.test_decode import request

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU's arithmetic is not that of numpy")

# Rows and columns of patches: one token, less than a window, whole windows, windows cut at one or both edges.
SIZES = [(2, 2), (2, 6), (8, 8), (16, 24), (10, 8), (6, 60), (22, 18)]


@pytest.fixture(scope="module")
def model(converted):
    """The demo's model in float32."""
    return load_model(ModelFolder(converted("8bit")), DEVICE).model


@pytest.fixture(scope="module")
def quantized(converted):
    """The demo's model as its folder has it: some of the vision tower quantized, its MLP padded, bfloat16."""
    return mlx_vlm.load(str(converted("mixed")), lazy=True)[0]


@pytest.fixture(scope="module")
def stock(model):
    return StockVisionTower(model)


def image(rows, columns):
    values = np.random.default_rng(rows * columns).normal(0, 1, (rows * columns, 1176)).astype(np.float32)
    return mx.array(values), mx.array([[1, rows, columns]])


def features(tower, rows, columns):
    return np.array(tower(*image(rows, columns)).astype(mx.float32))


def assert_close(ours, theirs, part):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=part * np.abs(theirs).max())


def error(rounded, exact):
    """Return how far features are from *exact* ones, as a part of their size."""
    return np.linalg.norm(np.array(rounded.astype(mx.float32)) - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_an_image_of_any_size_gets_the_features_that_mlx_vlm_computes(rows, columns, model, stock):
    theirs = features(stock, rows, columns)
    assert theirs.shape == (rows * columns // 4, 384)
    assert_close(features(CpuVisionTower(model), rows, columns), theirs, 1e-4)
    assert_close(features(MlxVisionTower(model), rows, columns), theirs, 1e-5)


def test_a_quantized_and_padded_tower_gives_mlx_vlms_features_as_exactly_as_bfloat16_has_them(quantized):
    block = quantized.vision_tower.blocks[0]
    assert isinstance(block.attn.qkv, nn.QuantizedLinear)
    assert block.mlp.up_proj.bias.shape == (704,)  # 684 in the checkpoint
    ours, theirs = (kind(quantized)(*image(4, 10)) for kind in (MlxVisionTower, StockVisionTower))
    assert ours.dtype == theirs.dtype == mx.bfloat16
    quantized.vision_tower.set_dtype(mx.float32)
    exact, stock_exact = (features(kind(quantized), 4, 10) for kind in (MlxVisionTower, StockVisionTower))
    assert_close(exact, stock_exact, 1e-5)
    assert error(ours, exact) < 1.2 * error(theirs, exact) < 0.1


def test_long_attention_in_small_pieces_is_the_same(model, monkeypatch):
    for module, tower in (("vision", CpuVisionTower(model)), ("vision_mlx", MlxVisionTower(model))):
        whole = features(tower, 16, 18)
        with monkeypatch.context() as patch:
            patch.setattr(f"olmocr.inference.{module}._SCORES", 5000)
            assert_close(features(tower, 16, 18), whole, 1e-4)


@pytest.mark.parametrize("kind", [CpuVisionTower, MlxVisionTower])
def test_an_image_is_computed_in_pieces_of_bounded_work_with_the_same_features(kind, model):
    pixels, grid = image(8, 10)
    for piece, count in [(1, 7), (80 * 3, 3), (80 * 7, 1)]:
        pieces = list(kind(model, piece).begin(pixels, grid))
        assert len(pieces) == count
        assert pieces[:-1] == [None] * (count - 1)
        assert np.array_equal(np.array(pieces[-1]), features(kind(model), 8, 10))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_every_patch_is_in_just_one_window_and_windows_of_one_size_lie_together(rows, columns):
    layout = make_layout(rows, columns, merge=2, window=4, head_dim=64)
    assert sorted(layout.order.tolist()) == list(range(rows * columns // 4))
    assert [start for start, _ in layout.windows[1:]] == [end for _, end in layout.windows[:-1]]
    assert layout.windows[0][0] == 0
    assert layout.windows[-1][1] == rows * columns
    assert len(layout.shapes) <= 4
    assert [size for count, size in layout.shapes for _ in range(count)] == [end - at for at, end in layout.windows]


def test_the_weights_are_the_models_own_and_not_a_second_copy(model):
    own = np.asarray(model.vision_tower.blocks[0].mlp.gate_proj.weight)
    assert np.shares_memory(CpuVisionTower(model)._blocks[0]._gate._weight, own)


def test_a_tower_with_other_parts_than_ours_computes_is_left_to_mlx_vlm(converted):
    tower = load_model(ModelFolder(converted("8bit")), DEVICE).model.vision_tower
    assert is_as_expected(tower)
    tower.blocks[0].attn.q_norm = nn.RMSNorm(64)
    assert not is_as_expected(tower)
    del tower.blocks[0].attn.q_norm, tower.blocks[0].norm2
    assert not is_as_expected(tower)


def test_the_own_tower_is_off_by_an_option(tmp_path):
    folder = ModelFolder(random_model(tmp_path / "model"))
    assert isinstance(load_model(folder, DEVICE).vision, CpuVisionTower)
    assert isinstance(load_model(folder, DEVICE, stock_vision=True).vision, StockVisionTower)


@pytest.fixture(scope="module", params=[CpuVisionTower, MlxVisionTower])
def scheduler(request, tmp_path_factory):
    """A scheduler whose vision tower computes one block at a time, of five."""
    folder = random_model(tmp_path_factory.mktemp("random") / "model", vision_blocks=5)
    loaded = load_model(ModelFolder(folder), DEVICE)
    limits = BatchLimits(pages=4, kv_bytes=1 << 20, prompt_step=512, drafted_pages=0)
    return Scheduler(replace(loaded, vision=request.param(loaded.model, piece=1)), limits, lambda text: False)


def add(scheduler, number, **options):
    page = Asked(request(number, **options), Future())
    scheduler.add(page)
    return page


def test_others_get_tokens_between_the_pieces_of_a_pages_image(scheduler):
    first = add(scheduler, 1, max_tokens=100)
    while not scheduler.counts.steps:
        scheduler.advance()
    second = add(scheduler, 2, max_tokens=1)
    steps, prompt = [], scheduler.counts.prompt_tokens
    while scheduler.counts.prompt_tokens == prompt:
        steps.append(scheduler.counts.steps)
        scheduler.advance()
    assert steps == list(range(steps[0], steps[0] + 6))  # five pieces of the image, then one of the prompt
    while not scheduler.is_idle:
        scheduler.advance()
    assert len(first.answer.result().tokens) == 100
    assert len(second.answer.result().tokens) == 1


def test_a_page_that_is_cancelled_while_its_image_is_read_frees_it(scheduler):
    page = add(scheduler, 3)
    scheduler.advance()
    work = weakref.ref(scheduler._joining.prefill.image)
    assert work()
    page.answer.cancel()
    scheduler.advance()
    gc.collect()
    assert scheduler.is_idle
    assert work() is None
