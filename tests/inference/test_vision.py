"""Our vision towers against mlx-vlm's, with the demo checkpoint's weights."""

import gc
import itertools
import weakref
from concurrent.futures import Future
from dataclasses import replace

import pytest

from olmocr.inference.decode import BatchLimits, Scheduler
from olmocr.inference.model import load_model
from olmocr.inference.row import Asked
from olmocr.inference.vision import CpuVisionTower, make_layout
from olmocr.inference.vision_mlx import MlxVisionTower
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model
from tests.inference.test_decode import request
from tests.inference.towers import SIZES

pytestmark = pytest.mark.skipif(DEVICE.kind != "cpu", reason="a GPU's arithmetic is not that of numpy")


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_every_patch_is_in_just_one_window_and_windows_of_one_size_lie_together(rows, columns):
    layout = make_layout(rows, columns, merge=2, window=4, head_dim=64)
    assert sorted(layout.order.tolist()) == list(range(rows * columns // 4))
    assert [start for start, _ in layout.windows[1:]] == [end for _, end in layout.windows[:-1]]
    assert layout.windows[0][0] == 0
    assert layout.windows[-1][1] == rows * columns
    assert len(layout.shapes) <= 4
    assert [size for count, size in layout.shapes for _ in range(count)] == [end - at for at, end in layout.windows]


@pytest.fixture(scope="module", params=[CpuVisionTower, MlxVisionTower])
def scheduler(request, tmp_path_factory):
    """A scheduler whose vision tower computes one block at a time, of five, and takes long for each."""
    folder = random_model(tmp_path_factory.mktemp("random") / "model", vision_blocks=5)
    loaded = load_model(ModelFolder(folder), DEVICE)
    limits = BatchLimits(pages=4, kv_bytes=1 << 20, prompt_step=512, drafted_pages=0)
    seconds = itertools.count(1)
    slow = replace(loaded, vision=request.param(loaded.model, piece=1))
    return Scheduler(slow, limits, lambda text: False, clock=lambda: next(seconds))


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
