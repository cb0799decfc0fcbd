"""Configs whose backend the tests look at."""

import asyncio
import json

from olmocr import PipelineConfig, run_pipeline
from tests.pipeline.doubles import write_numbered_pdf


def read(workspace, model, **options):
    """Read two pages; the model writes nonsense, so that each falls back after one attempt."""
    pdf = write_numbered_pdf(workspace.with_suffix(".pdf"), [1, 2])
    settings = {"target_longest_image_dim": 64, "max_page_retries": 1, "max_page_error_rate": 1.0, **options}
    asyncio.run(run_pipeline(PipelineConfig(workspace=workspace, pdfs=pdf, model=str(model), **settings)))
    return json.loads((workspace / "metrics.json").read_text())
