import socket
import urllib.request

import pytest

from olmocr.errors import UsageError
from olmocr.pipeline.metrics import served_metrics
from tests.four_pages import FOUR


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


def test_pages_can_be_scraped_from_this_machine_while_they_are_read():
    port = free_port()
    with served_metrics(port) as count:
        for page in FOUR:
            count(page)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            lines = response.read().decode().splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "_created" not in line)
    buckets = {name: told.pop(name) for name in list(told) if "_bucket" in name}
    assert float(told.pop("olmocr_run_peak_memory_bytes")) > 10 << 20
    assert {name: float(value) for name, value in told.items()} == {
        'olmocr_pages_total{status="valid"}': 2,
        'olmocr_pages_total{status="fallback"}': 1,
        'olmocr_pages_total{status="blank"}': 1,
        "olmocr_attempts_total": 6,
        'olmocr_attempts_ended_total{end="stop"}': 2,
        'olmocr_attempts_ended_total{end="loop"}': 1,
        'olmocr_attempts_ended_total{end="failed"}': 1,
        'olmocr_attempts_ended_total{end="length"}': 1,
        'olmocr_attempts_ended_total{end="cancelled"}': 1,
        "olmocr_input_tokens_total": 2100,
        "olmocr_output_tokens_total": 1170,
        "olmocr_passes_total": 750,
        'olmocr_server_pages_total{server="http://mac:8000/v1"}': 1,
        'olmocr_server_output_tokens_total{server="http://mac:8000/v1"}': 200,
        'olmocr_server_page_seconds_total{server="http://mac:8000/v1"}': 4.0,
        "olmocr_page_seconds_count": 4,
        "olmocr_page_seconds_sum": 73.25,
    }
    assert [buckets[f'olmocr_page_seconds_bucket{{le="{le}"}}'] for le in ("1.0", "5.0", "10.0")] == [
        "1.0",
        "2.0",
        "3.0",
    ]
    with socket.socket() as each:
        assert each.connect_ex(("127.0.0.1", port)) != 0, "it ends with the run"


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        each.listen()
        port = each.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"), served_metrics(port):
            pass
