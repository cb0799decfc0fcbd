"""What a server has done -> text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily

from olmocr.page import ModelResponse
from olmocr.pipeline.metrics import count_pages
from olmocr.runtime.memory import peak_memory
from olmocr.serving.asking import Asking
from olmocr.serving.bounds import BodiesInHand

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

EngineCounts = Callable[[], Mapping[str, float]]
"""Reports the engine's counters so far, by name."""


class Metrics:
    """Counts requests, answers and pages. *paths* are counted separately, all other paths together."""

    def __init__(
        self, asking: Asking, bodies: BodiesInHand, engine_counts: EngineCounts, paths: frozenset[str]
    ) -> None:
        self._registry = CollectorRegistry()
        self._paths = paths
        self.on_page = count_pages(self._registry)
        self._requests = Counter(
            "olmocr_requests", "Requests, by path and status.", ["path", "status"], registry=self._registry
        )
        self._answers = Counter(
            "olmocr_answers", "Answers to single questions, by how they ended.", ["finish"], registry=self._registry
        )
        self._tokens = Counter(
            "olmocr_answer_tokens", "Tokens of single questions, read and written.", ["kind"], registry=self._registry
        )
        self._registry.register(_Now(asking, bodies, engine_counts))

    def on_answer(self, path: str, status: int | None) -> None:
        """Count a request."""
        self._requests.labels(path if path in self._paths else "other", str(status or "left")).inc()

    def on_response(self, response: ModelResponse) -> None:
        """Count an answer of the model to a single question."""
        self._answers.labels(response.finish_reason).inc()
        self._tokens.labels("input").inc(response.input_tokens)
        self._tokens.labels("output").inc(response.output_tokens)

    def text(self) -> bytes:
        """Return everything as it is now."""
        return generate_latest(self._registry)


class _Now:
    """Values that are measured, not counted."""

    def __init__(self, asking: Asking, bodies: BodiesInHand, engine_counts: EngineCounts) -> None:
        self._asking = asking
        self._bodies = bodies
        self._engine_counts = engine_counts

    def collect(self) -> Iterable[Any]:
        yield _gauge("olmocr_requests_in_hand", "Requests that wait or are being answered.", self._asking.admitted)
        memory, disk = self._bodies.in_memory, self._bodies.on_disk
        yield _gauge("olmocr_requests_coming", "Requests whose bodies are still arriving.", memory.coming + disk.coming)
        yield _gauge("olmocr_body_bytes", "Bytes of questions in memory.", memory.bytes)
        yield _gauge("olmocr_upload_bytes", "Bytes of documents on the disk.", disk.bytes)
        yield _gauge("olmocr_questions_in_hand", "Questions with the model or waiting for it.", self._asking.asked)
        yield _gauge("olmocr_peak_memory_bytes", "Peak memory of this process, in bytes.", peak_memory())
        for name, value in self._engine_counts().items():
            yield _gauge(f"olmocr_engine_{name}", f"The engine's {name.replace('_', ' ')} so far.", value)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)
