"""What a run is asked to use -> what answers: a model in this process, a server started for it, or one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from olmocr.device import REFERENCE_BLAS, start_mlx
from olmocr.model_folder import find_model
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answering:
    """What answers, ready to be asked, and the model's name as records have it."""

    ask: Ask
    model: str


@contextlib.asynccontextmanager
async def answering(config: PipelineConfig) -> AsyncIterator[Answering]:
    """Yield what answers.

    Raises:
        OlmocrError: the model cannot be loaded, or its server not be reached.
    """
    async with _engine(config) as found:
        yield found


@contextlib.asynccontextmanager
async def _engine(config: PipelineConfig) -> AsyncIterator[Answering]:
    engine = await asyncio.to_thread(_open_engine, config.model or "")
    with engine:
        yield Answering(engine.ask, config.model or "")


def _open_engine(model: str) -> Any:
    folder = find_model(model)
    device = start_mlx()
    if device.blas == REFERENCE_BLAS:
        log.warning("MLX computes with its reference BLAS, which is slow: pip install 'olmocr[blas]'")
    # Only now, since it imports MLX, which must find its BLAS loaded.
    from olmocr.inference.engine import Engine

    engine = Engine(folder, device)
    log.info("%s: %s", folder.name, engine)
    return engine
