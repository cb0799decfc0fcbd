from dataclasses import replace

from olmocr.page import ModelResponse
from olmocr.runtime.memory import peak_memory
from olmocr.serving.asking import Asking
from olmocr.serving.bounds import Bodies, BodiesInHand, Bound
from olmocr.serving.metrics import Metrics
from tests.four_pages import FALLBACK, FOUR

PAGES = [replace(page, passes=30) if page is FALLBACK else page for page in FOUR]

BOUNDS = (
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, float("inf")
)  # fmt: skip


async def nobody(request, on_text):
    raise AssertionError("nobody asks here")


def values(metrics):
    lines = [line.rsplit(" ", 1) for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "_created" not in name}


def test_every_metric_is_what_was_done():
    asking = Asking(nobody, at_once=1, waiting=3, pixels=Bound(1))
    bodies = BodiesInHand(Bodies(99), Bodies(99))
    for of_kind, count in ((bodies.in_memory, 7), (bodies.on_disk, 9), (bodies.on_disk, 20)):
        of_kind.grow(of_kind.begin(), count)
    metrics = Metrics(
        asking, bodies, lambda: {"tokens": 711, "drafted_tokens": 42.5}, frozenset(("/v1/ocr", "/health"))
    )
    for page in PAGES:
        metrics.on_page(page)
    for answer in (ModelResponse("a", "stop", 1000, 20), ModelResponse("b", "stop", 7, 3)):
        metrics.on_response(answer)
    metrics.on_response(ModelResponse("c", "time", 500, 100))
    for path, status in (("/v1/ocr", 200), ("/v1/ocr", 200), ("/v1/ocr", None), ("/health", 503), ("/secret", 404)):
        metrics.on_answer(path, status)
    places = [asking.admit(), asking.admit()]
    found = values(metrics)
    for place in places:
        place.give_back()
    assert values(metrics)["olmocr_requests_in_hand"] == 0
    assert found.pop("olmocr_peak_memory_bytes") <= peak_memory() < 1 << 50
    seconds = [page.seconds for page in PAGES]
    buckets = {
        f'olmocr_page_seconds_bucket{{le="{"+Inf" if bound == float("inf") else bound}"}}': sum(
            each <= bound for each in seconds
        )
        for bound in BOUNDS
    }
    assert found == buckets | {
        'olmocr_pages_total{status="valid"}': 2,
        'olmocr_pages_total{status="blank"}': 1,
        'olmocr_pages_total{status="fallback"}': 1,
        "olmocr_attempts_total": 6,
        "olmocr_input_tokens_total": 2100,
        "olmocr_output_tokens_total": 1170,
        "olmocr_passes_total": 780,
        'olmocr_server_pages_total{server="http://mac:8000/v1"}': 1,
        'olmocr_server_output_tokens_total{server="http://mac:8000/v1"}': 200,
        'olmocr_server_page_seconds_total{server="http://mac:8000/v1"}': 4.0,
        'olmocr_attempts_ended_total{end="stop"}': 2,
        'olmocr_attempts_ended_total{end="loop"}': 1,
        'olmocr_attempts_ended_total{end="failed"}': 1,
        'olmocr_attempts_ended_total{end="length"}': 1,
        'olmocr_attempts_ended_total{end="cancelled"}': 1,
        "olmocr_page_seconds_count": 4,
        "olmocr_page_seconds_sum": 73.25,
        'olmocr_answers_total{finish="stop"}': 2,
        'olmocr_answers_total{finish="time"}': 1,
        'olmocr_answer_tokens_total{kind="input"}': 1507,
        'olmocr_answer_tokens_total{kind="output"}': 123,
        'olmocr_requests_total{path="/v1/ocr",status="200"}': 2,
        'olmocr_requests_total{path="/v1/ocr",status="left"}': 1,
        'olmocr_requests_total{path="/health",status="503"}': 1,
        'olmocr_requests_total{path="other",status="404"}': 1,
        "olmocr_requests_in_hand": 2,
        "olmocr_requests_coming": 3,
        "olmocr_body_bytes": 7,
        "olmocr_upload_bytes": 29,
        "olmocr_questions_in_hand": 0,
        "olmocr_engine_tokens": 711,
        "olmocr_engine_drafted_tokens": 42.5,
    }
