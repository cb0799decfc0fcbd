"""What answers is closed however a run ends, also while it is being loaded."""

import asyncio
import threading

import pytest

from olmocr.errors import CheckpointError
from olmocr.pipeline.answering import answering
from olmocr.pipeline.config import PipelineConfig


def config_for(model, tmp_path):
    return PipelineConfig(workspace=tmp_path / "workspace", pdfs=("a.pdf",), model=str(model))


async def cancelled_while_loading(config):
    async def use():
        async with answering(config):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def threads_of_models():
    return [thread for thread in threading.enumerate() if thread.name == "olmocr-mlx"]


def test_a_run_that_is_interrupted_while_its_model_is_loaded_leaves_no_thread(converted, tmp_path):
    asyncio.run(cancelled_while_loading(config_for(converted("8bit"), tmp_path)))
    assert threads_of_models() == []


def test_an_interruption_is_what_it_was_although_the_model_could_not_be_loaded(tmp_path):
    asyncio.run(cancelled_while_loading(config_for(tmp_path, tmp_path)))


def test_a_model_that_cannot_be_loaded_is_told_of(tmp_path):
    async def use():
        async with answering(config_for(tmp_path, tmp_path)):
            pytest.fail("there is no model")

    with pytest.raises(CheckpointError):
        asyncio.run(use())
