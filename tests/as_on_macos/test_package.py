"""What the package does on a Mac and where one is imitated (python -m tests.as_on_macos); skipped elsewhere."""

import fcntl
import os
import re
import subprocess
import sys
import unicodedata

import pytest

from olmocr import files
from olmocr.conversion.disk import Buffer, FileReader, FileWriter
from olmocr.conversion.macs import limit
from olmocr.doctor.checks import check_machine
from olmocr.doctor.measure.reading import children_peak
from olmocr.doctor.measure.run import described_system
from olmocr.inputs.places import place_of_file
from olmocr.pipeline.terminal.default_model import usable_memory
from olmocr.rendering.pool import default_workers
from olmocr.runtime import machine, memory
from olmocr.workspace.records import this_machine
from tests.conftest import DEVICE

# The package's own sys, which says darwin where a Mac is imitated; sys itself does not.
pytestmark = pytest.mark.skipif(memory.sys.platform != "darwin", reason="no Mac, and none is imitated")

GIB = 1 << 30


def test_mlx_computes_on_metal_or_with_accelerate():
    assert (DEVICE.kind, DEVICE.blas) in {("metal", None), ("cpu", "Accelerate")}


def test_sysctl_tells_the_chip_and_whether_python_is_translated():
    assert machine.chip().startswith("Apple")
    assert not machine.runs_translated()


def test_vm_stat_tells_how_much_memory_a_new_process_can_have():
    assert 0 < machine.available_memory() < memory.physical_memory()


def test_the_most_memory_that_a_process_had_is_counted_in_bytes():
    assert 30 << 20 < memory.peak_memory() < memory.physical_memory()


def test_the_most_memory_that_a_server_had_is_counted_in_bytes():
    subprocess.run([sys.executable, "-c", "x = b'x' * (40 << 20)"], check=True)
    assert 40 << 20 < children_peak() < memory.physical_memory()


def test_a_report_of_this_machine_tells_the_version_of_macos():
    assert re.fullmatch(r"macOS \d+\.\d+.*", described_system())


def test_ps_tells_another_processs_memory():
    assert 1 << 20 < memory.resident_memory(os.getpid()) <= memory.peak_memory() + GIB


def test_what_is_written_is_flushed_past_the_drives_own_cache(tmp_path, monkeypatch):
    asked, real = [], fcntl.fcntl
    monkeypatch.setattr(files.fcntl, "fcntl", lambda *words: asked.append(words[1]) or real(*words))
    with (tmp_path / "file").open("w") as file:
        files.flushed(file.fileno())
    assert asked == [fcntl.F_FULLFSYNC]


def test_large_files_are_written_and_read_past_the_page_cache(tmp_path, monkeypatch):
    asked, real = [], fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", lambda *words: asked.append(words[1]) or real(*words))
    writer = FileWriter(tmp_path / "weights", 5000)
    writer.write(memoryview(b"x" * 5000), 0)
    writer.drop(5000)
    writer.close()
    reader = FileReader(tmp_path / "weights", large=0)
    assert bytes(reader.read(300, 600, Buffer())) == b"x" * 600
    reader.close()
    assert asked == [fcntl.F_NOCACHE] * 2


def test_as_many_workers_render_as_there_are_processors_less_one():
    assert default_workers() == min(4, max(1, os.cpu_count() - 1))


def test_a_machine_is_told_from_others_by_all_its_processes_alike():
    code = "from olmocr.workspace.records import this_machine; print(this_machine())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == this_machine()


def test_a_model_may_take_what_metal_allows():
    assert usable_memory(16 * GIB) == limit(16)


def test_a_document_is_the_same_however_its_name_is_typed(tmp_path):
    (tmp_path / "Ärzte.pdf").write_bytes(b"x")
    typed = tmp_path / unicodedata.normalize("NFD", "ärzte.PDF")
    assert place_of_file(typed) == place_of_file(tmp_path / "Ärzte.pdf")


def test_the_doctor_finds_a_mac_that_this_package_is_for():
    found = next(check_machine())
    assert (found.name, found.state) == ("platform", "ok")
    assert found.value.startswith("Darwin arm64")
