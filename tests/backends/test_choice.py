"""A run with a model in this process: its limits, and what it says of what was done."""

import asyncio
import json

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import UsageError
from tests.inference.random_models import random_model
from tests.pipeline.doubles import write_numbered_pdf


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("random") / "model")


def read(workspace, model, **options):
    """Read two pages; the model writes nonsense, so that each falls back after one attempt."""
    pdf = write_numbered_pdf(workspace.with_suffix(".pdf"), [1, 2])
    settings = {"target_longest_image_dim": 64, "max_page_retries": 1, "max_page_error_rate": 1.0, **options}
    asyncio.run(run_pipeline(PipelineConfig(workspace=workspace, pdfs=pdf, model=str(model), **settings)))
    return json.loads((workspace / "metrics.json").read_text())


def test_the_numbers_of_a_run_have_what_the_model_did_and_how_attempts_ended(tmp_path, model):
    metrics = read(tmp_path / "ws", model, max_tokens=20, drafts=False, kv_budget=2 << 20)
    assert metrics["attempts_ended"] == {"length": 2}
    assert metrics["engine"]["ended_length"] == 2
    assert metrics["engine"]["tokens"] == 40
    assert metrics["engine"]["drafted"] == 0
    assert metrics["engine"]["steps_a_token"] == 1.0
    assert metrics["engine"]["mlx_peak_memory_bytes"] > 0


def test_a_page_has_as_much_time_as_is_said(tmp_path, model):
    metrics = read(tmp_path / "ws", model, max_tokens=3000, page_time_limit=0.05)
    assert metrics["attempts_ended"] == {"time": 2}
    assert 0 < metrics["engine"]["tokens"] < 6000


def test_a_budget_in_which_a_page_has_no_room_ends_the_run_before_any_is_asked(tmp_path, model):
    with pytest.raises(UsageError, match=r"a page of 64 pixels has \d+, its answer .*; give --kv-budget \d+KB or more"):
        read(tmp_path / "ws", model, kv_budget=100_000)
