"""olmOCR on your own machine, through MLX.

``await run_pipeline(PipelineConfig(workspace=..., pdfs=(...), model=...))`` reads documents;
``convert("allenai/olmOCR-2-7B-1025", "mixed")`` makes the weights that it needs. Importing this loads neither MLX nor a
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from olmocr.version import __version__

if TYPE_CHECKING:
    from olmocr.conversion.convert import convert
    from olmocr.pipeline.config import PipelineConfig
    from olmocr.pipeline.run import run_pipeline, run_pipeline_sync
    from olmocr.pipeline.summary import RunSummary

__all__ = ["PipelineConfig", "RunSummary", "__version__", "convert", "run_pipeline", "run_pipeline_sync"]

_HOMES = {
    "PipelineConfig": "olmocr.pipeline.config",
    "RunSummary": "olmocr.pipeline.summary",
    "convert": "olmocr.conversion.convert",
    "run_pipeline": "olmocr.pipeline.run",
    "run_pipeline_sync": "olmocr.pipeline.run",
}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used: PDF and image libraries are not everybody's."""
    if name not in _HOMES:
        raise AttributeError(f"module 'olmocr' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
