import socket
import urllib.request

import pytest

from olmocr.errors import UsageError
from olmocr.page import PageResponse
from olmocr.pipeline.metrics import served_metrics
from olmocr.pipeline.page_records import blank_record
from olmocr.workspace.document import PageRecord


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


ENDED = {"ends": ("loop", "stop"), "passes": 25}


def page(**fields):
    return PageRecord(1, "valid", PageResponse("en", True, 0, False, False, "text"), "model", **fields)


def test_pages_can_be_scraped_from_this_machine_while_they_are_read():
    port = free_port()
    with served_metrics(port) as count:
        count(page(attempts=2, output_tokens=30, total_output_tokens=70, input_tokens=500, seconds=1.5, **ENDED))
        count(blank_record(2))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            lines = response.read().decode().splitlines()
    assert 'olmocr_pages_total{status="valid"} 1.0' in lines
    assert 'olmocr_pages_total{status="blank"} 1.0' in lines
    assert "olmocr_output_tokens_total 70.0" in lines
    assert "olmocr_attempts_total 2.0" in lines
    assert "olmocr_passes_total 25.0" in lines
    assert 'olmocr_attempts_ended_total{end="loop"} 1.0' in lines
    (peak,) = [float(line.split()[1]) for line in lines if line.startswith("olmocr_run_peak_memory_bytes ")]
    assert peak > 10 << 20
    with socket.socket() as each:
        assert each.connect_ex(("127.0.0.1", port)) != 0, "it ends with the run"


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        each.listen()
        port = each.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"), served_metrics(port):
            pass
