"""What a machine's report tells a person, and that nothing of it is lost on the way."""

import json
from dataclasses import replace

import jsonschema
import pytest

from olmocr.reports.machine import INTERRUPTED, MachineReport, MeasuredPart
from olmocr.reports.machine_text import CONTENTS, machine_markdown, machine_name, machine_table
from olmocr.reports.typed_json import parse_as, report_json
from tests.conftest import ROOT
from tests.reports.machines import FULL

BARE = replace(
    FULL, parts=(MeasuredPart("passes", "unmeasured", (INTERRUPTED,), 0.0),), conversions=(), answers=None, readings=(),
    passes=None, vision=None, guidance=None, memory=None, growth=None, serving=None, resumption=None, is_quick=True,
    machine=replace(FULL.machine, gpu=None, available_memory=None, load=6.0),
)  # fmt: skip


@pytest.mark.parametrize("report", [FULL, BARE])
def test_a_report_is_the_same_after_it_was_written_and_read_and_is_as_its_schema_says(report):
    written = report_json(report)
    assert parse_as(MachineReport, written) == report
    schema = json.loads((ROOT / "docs/machine-report.schema.json").read_text())
    jsonschema.validate(json.loads(written), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(written) | {"version": 2}, schema)


def test_a_report_is_good_unless_something_failed_or_is_wrong():
    assert not FULL.is_good
    assert replace(FULL, parts=FULL.parts[3:]).is_good
    assert (FULL.was_interrupted, BARE.was_interrupted) == (False, True)


def test_rates_are_medians_of_the_rounds():
    assert FULL.readings[0].pages_a_minute == pytest.approx(60 * 6 / 11)
    assert FULL.readings[0].tokens_a_second == 60


def test_a_person_reads_all_that_was_measured():
    text = machine_markdown(FULL)
    assert text.startswith("# Apple M2, 16 GiB: what olmocr 0.1.0 measured here\n")
    for told in (
        CONTENTS,
        "The machine was idle: 0.4 processes",
        "| answers | **wrong** | 20 | b.pdf, page 2: fallback; c \\| d |",
        "| mlx-vlm | unmeasured | 0 | mlx-vlm is not installed |",
        "| 8bit | fit | 2.5 | 200 MiB | gpu | 26,064,592 | `bbbbbbbbbbbbbbbb…` | same |",
        "1 of 2 pages were read in olmOCR's format at 644 px, in 12.0 s. On average, 50.00% of a page's characters",
        "The worst pages: b.pdf, page 2: 100.0%; a.pdf, page 1: 0.0%.",
        "| olmocr | 8bit | 8 | yes | 6 | 120.0 | 102.9 to 144.0 | 220 | 0.30 | 150 MiB | 6 of 6 |",
        "| ms | 4.0 | 5.5 | 12.0 |",
        "10,240 tokens/s after 0, 5,120 tokens/s after 1536",
        "(1,656 patches) takes 200 ms; mlx-vlm's own tower takes 300 ms.",
        "4 pages take 5.5 s with a forced front matter and 5.1 s without. 4 answers with it and 3 without it follow",
        "- cache limit: set to 1,024 MiB, is 1,024 MiB, most used: 90 MiB",
        "One engine read 100 pages in 80 s.",
        "Both are right. When it was stopped, the server ended with status 130.",
        "read 0 of those again; 0 pages are missing",
    ):
        assert told in text, told


def test_a_person_is_told_that_the_machine_was_busy_and_that_little_was_measured():
    text = machine_markdown(BARE)
    assert "**The machine was busy: 6.0 processes ran or waited for 8 processors" in text
    assert "This was a quick run: few pages, one round." in text
    assert text.rstrip().endswith(f"| passes | unmeasured | 0 | {INTERRUPTED} |")


def test_machines_stand_side_by_side_and_what_is_not_known_is_said_to_be_unmeasured():
    own = replace(FULL, is_demo=False, model="mine|8bit")
    head, _, full, bare, mine = machine_table([("a.md", FULL), ("b.md", BARE), ("c.md", own)]).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in (head, full, bare, mine)}) == 1
    assert full == (
        "| Apple M2, 16 GiB | MLX 0.32.4 on metal | 1 of 2 | 50.00% | 120.0 | 32.7 | 5.5 | 4.0, 5.5, 12.0 "
        "| answers, growth | [2026-11-28](a.md) |"
    )
    assert bare.startswith("| Apple M2, 8 CPUs, 16 GiB (quick, other programs ran) |")
    assert bare.count("unmeasured") == 6
    assert mine.endswith("| [mine\\|8bit, 2026-11-28](c.md) |")


def test_a_machine_is_called_by_its_gpu_or_its_chip():
    assert machine_name(FULL) == "Apple M2, 16 GiB"
    assert machine_name(BARE) == "Apple M2, 8 CPUs, 16 GiB"
