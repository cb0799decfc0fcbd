"""olmOCR on your own machine, through MLX.

``read("x.pdf", model="build/demo-8bit").text`` reads a document; a ``Reader`` keeps its model for the next one, and
``run_pipeline(PipelineConfig(workspace=..., pdfs=(...), model=...))`` reads any number and survives interruptions.
``convert("allenai/olmOCR-2-7B-1025", "mixed")`` makes the weights that they need. Importing this package does not load
MLX or a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from olmocr.version import __version__

if TYPE_CHECKING:
    from olmocr import errors
    from olmocr.calibration.convert import convert
    from olmocr.pipeline.config import PipelineConfig
    from olmocr.pipeline.run import run_pipeline, run_pipeline_sync
    from olmocr.pipeline.summary import RunSummary
    from olmocr.reader import Reader, read, read_async
    from olmocr.workspace.document import Document, Failure, PageRecord

__all__ = [
    "Document",
    "Failure",
    "PageRecord",
    "PipelineConfig",
    "Reader",
    "RunSummary",
    "__version__",
    "convert",
    "errors",
    "read",
    "read_async",
    "run_pipeline",
    "run_pipeline_sync",
]

_HOMES = {
    "Document": "olmocr.workspace.document",
    "Failure": "olmocr.workspace.document",
    "PageRecord": "olmocr.workspace.document",
    "PipelineConfig": "olmocr.pipeline.config",
    "Reader": "olmocr.reader",
    "RunSummary": "olmocr.pipeline.summary",
    "convert": "olmocr.calibration.convert",
    "read": "olmocr.reader",
    "read_async": "olmocr.reader",
    "run_pipeline": "olmocr.pipeline.run",
    "run_pipeline_sync": "olmocr.pipeline.run",
}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used: PDF and image libraries are not everybody's."""
    import importlib

    if name == "errors":
        return importlib.import_module("olmocr.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'olmocr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, for completion: they are imported where they are first used."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
