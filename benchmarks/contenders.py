"""One contender of pages.py, which answers pages in its own process: contenders.py NAME JOB.json RESULT.json.

Nothing is imported before a contender is chosen. So each process loads only what its contender needs, and transformers
may come from an environment without olmocr.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

Answer = Callable[["Image"], str]
Job = dict[str, Any]


def main() -> None:
    name, job_path, result_path = sys.argv[1:]
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    try:
        result = run(CONTENDERS[name], job)
    except ModuleNotFoundError as error:
        result = {"missing": error.name}
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


def run(contender: Callable[[Job], contextlib.AbstractContextManager[tuple[str, Answer]]], job: Job) -> dict[str, Any]:
    """Load the model, answer the warm-up page, then every page against the clock."""
    started = time.perf_counter()
    with contender(job) as (about, answer):
        load_seconds = time.perf_counter() - started
        answer(_read(job["warm_up"]))
        answers = [_timed(answer, _read(path)) for path in job["images"]]
    return {"about": about, "load_seconds": load_seconds, "peak_rss": peak_rss(), "answers": answers}


def _read(path: str) -> Image:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _timed(answer: Answer, pixels: Image) -> dict[str, Any]:
    started = time.perf_counter()
    text = answer(pixels)
    return {"text": text, "seconds": time.perf_counter() - started}


def peak_rss() -> int:
    """Return the peak memory of this process. Linux's getrusage would include the parent's before exec."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def olmocr_engine(job: Job) -> Iterator[tuple[str, Answer]]:
    from olmocr.runtime.device import start_mlx

    device = start_mlx()
    from olmocr.inference.engine import Engine
    from olmocr.model_folder import ModelFolder
    from olmocr.page import PageImage, PageRequest

    with Engine(ModelFolder(Path(job["model"])), device) as engine:

        def answer(pixels: Image) -> str:
            request = PageRequest(PageImage(pixels), max_tokens=job["max_tokens"])
            return asyncio.run(engine.ask(request)).text

        yield str(engine), answer


@contextlib.contextmanager
def stock_mlx_vlm(job: Job) -> Iterator[tuple[str, Answer]]:
    """Answer with mlx-vlm as published: its own load and generate, and the BLAS of MLX's wheel."""
    import mlx.core as mx
    import mlx_vlm

    model, processor = mlx_vlm.load(job["model"])

    def answer(pixels: Image) -> str:
        done = mlx_vlm.generate(
            model, processor, job["chat_prompt"], image=[pixels], temperature=0.0, max_tokens=job["max_tokens"]
        )
        return str(done.text)

    versions = f"mlx-vlm {importlib.metadata.version('mlx-vlm')} on MLX {importlib.metadata.version('mlx')}"
    yield f"{versions}, {mx.default_device().type.name}, as published", answer


@contextlib.contextmanager
def transformers_float32(job: Job) -> Iterator[tuple[str, Answer]]:
    """Answer with transformers, page by page."""
    from transformers_reader import TransformersReader

    reader = TransformersReader(job["model"], "float32")
    yield str(reader), lambda pixels: reader.answers(job["chat_prompt"], [pixels], job["max_tokens"]).texts[0]


CONTENDERS = {
    "olmocr_engine": olmocr_engine,
    "stock_mlx_vlm": stock_mlx_vlm,
    "transformers_float32": transformers_float32,
}

if __name__ == "__main__":
    main()
