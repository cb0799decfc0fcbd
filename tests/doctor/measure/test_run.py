"""All parts are measured, whatever becomes of one, and nothing private is told or left behind."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import jsonschema
import pytest

from olmocr.doctor.measure.parts import PARTS, Found, Part
from olmocr.doctor.measure.private import person_and_machine
from olmocr.doctor.measure.run import Clock, chosen_parts, gpu_name, measure_machine, write_machine_report
from olmocr.doctor.measure.terms import MeasureTerms, find_demo
from olmocr.errors import CheckpointError, ExitCode, MissingDependencyError, OutputError, UsageError
from olmocr.reports.machine import INTERRUPTED, MeasuredPart
from olmocr.runtime.device import Device
from tests.conftest import ROOT
from tests.doctor.test_checks import DOCTOR
from tests.reports.machines import FULL

TERMS = MeasureTerms(find_demo())


def part(name, *, found=None, error=None):
    def measure(work, on_step):
        on_step(0.5, f"half of {name}")
        if error:
            raise error if not callable(error) else error(work)
        return found

    return Part(name, "does something", (10, 1), measure)


def in_a_folder(work):
    return ValueError(f"{work.scratch}/x is bad\nand more")


def test_each_part_comes_to_an_end_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = MeasuredPart("beside", "unmeasured", (f"{Path.home()}/x is not there",), 0.0)
    parts = (
        part("good", found=Found({"vision": FULL.vision}, other=[other])),
        part("bad", found=Found({"serving": FULL.serving}, wrong=["a text is wrong"])),
        part("broken", error=in_a_folder),
        part("missing", error=MissingDependencyError("rapidfuzz is not installed")),
        part("last", found=Found({"growth": FULL.growth})),
    )
    seen = []
    report = measure_machine(TERMS, lambda *progress: seen.append(progress), parts)
    assert [(each.name, each.state, each.why) for each in report.parts] == [
        ("good", "measured", ()),
        ("beside", "unmeasured", ("~/x is not there",)),
        ("bad", "wrong", ("a text is wrong",)),
        ("broken", "failed", ("TEMPORARY/x is bad",)),
        ("missing", "unmeasured", ("rapidfuzz is not installed",)),
        ("last", "measured", ()),
    ]
    assert (report.vision, report.serving, report.growth) == (FULL.vision, FULL.serving, FULL.growth)
    assert (report.answers, report.readings, report.is_good) == (None, (), False)
    assert report.machine.device.startswith("MLX ")
    assert [each[:2] for each in seen] == [(each.name, f"half of {each.name}") for each in parts]
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_ends_the_measuring_and_what_was_measured_stays():
    parts = (
        part("good", found=Found({"vision": FULL.vision})),
        part("long", error=KeyboardInterrupt()),
        part("last", found=Found({})),
    )
    report = measure_machine(TERMS, parts=parts)
    assert [(each.state, each.why) for each in report.parts] == [
        ("measured", ()),
        ("unmeasured", (INTERRUPTED,)),
        ("unmeasured", (INTERRUPTED,)),
    ]
    assert report.was_interrupted
    assert report.vision == FULL.vision


def test_parts_are_chosen_by_name_and_keep_their_order():
    assert [each.name for each in chosen_parts(("memory", "passes"))] == ["passes", "memory"]
    assert len(chosen_parts(())) == len(PARTS)
    with pytest.raises(UsageError, match="`parts` speed is not a part; the parts are conversion, answers"):
        chosen_parts(("speed",))


def test_a_folder_without_a_model_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(CheckpointError):
        measure_machine(MeasureTerms(find_demo(), model=tmp_path))


def test_a_gpu_is_told_by_the_name_that_mlx_has_for_it():
    info = {"device_name": "Apple M2"}
    assert gpu_name(Device("metal", None, "1"), info) == "Apple M2"
    assert gpu_name(Device("cpu", "x", "1"), info) is None
    assert gpu_name(Device("cuda", None, "1"), {}) is None


def test_the_time_that_is_left_follows_how_fast_this_machine_is():
    times = iter([0.0, 0.0, 220.0, 440.0])
    clock = Clock([100, 100], lambda: next(times))
    assert clock.at(0, 0) == (0, 200)
    share, left = clock.at(1, 0)
    assert (share, left) == (0.5, pytest.approx(200))
    assert clock.at(1, 1) == (1, 0)


def test_the_times_that_parts_are_told_to_take_are_under_a_quarter_of_an_hour():
    assert sum(each.seconds[0] for each in PARTS) < 900
    assert sum(each.seconds[1] for each in PARTS) < 240


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_machine_report(tmp_path / "file", FULL)


def test_the_docs_name_every_part():
    told = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/doctor.md").read_text(), re.MULTILINE)
    assert set(told) == {each.name for each in PARTS} | {"mlx-vlm"}


def run(folder, *options):
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [*DOCTOR, "--measure", *options], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_measures_a_part_leaves_a_report_and_nothing_else(tmp_path):
    done = run(tmp_path, "--parts", "conversion", "--quick", "-o", "found")
    out, err = done.communicate()
    assert done.returncode == 0, out + err
    assert "measured    conversion" in out
    assert re.search(r"^unmeasured  passes .*\n +it was not requested$", out, re.MULTILINE)
    assert err.startswith("conversion: converting to 8bit by fit; about ")
    text = (tmp_path / "found/machine_report.json").read_text()
    jsonschema.validate(json.loads(text), json.loads((ROOT / "docs/machine-report.schema.json").read_text()))
    assert str(tmp_path) not in text
    assert not [name for name in person_and_machine() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["machine_report.json", "machine_report.md"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_an_interrupted_command_leaves_a_report_that_says_so_and_nothing_else(tmp_path):
    command = run(tmp_path, "--parts", "growth", "--json")
    assert "growth" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate()
    assert command.returncode == ExitCode.INTERRUPTED
    assert json.loads(out)["parts"][0]["why"] == [INTERRUPTED]
    assert (tmp_path / "machine-report/machine_report.md").is_file()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quick"], "add that"),
        (["--measure", "--parts", "speed"], "--parts speed is not a part"),
        (["--measure", "--demo", "."], "name its folder demo with --demo"),
        (["--measure", "--model", "."], "config.json"),
    ],
)
def test_options_that_mean_nothing_are_refused_in_the_commands_words(options, words, tmp_path):
    done = subprocess.run([*DOCTOR, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (ExitCode.USAGE, ExitCode.BAD_CHECKPOINT)
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_quick_measurement_finds_nothing_wrong_here(tmp_path):
    started = time.monotonic()
    done = run(tmp_path, "--quick")
    out, err = done.communicate()
    assert done.returncode == 0, out + err
    report = json.loads((tmp_path / "machine-report/machine_report.json").read_text())
    assert all(report[name] for name in ("answers", "passes", "vision", "guidance", "memory", "growth", "serving"))
    assert {each["reader"] for each in report["readings"]} == {"olmocr", "mlx_vlm.generate", "mlx_vlm.server"}
    assert report["seconds"] <= time.monotonic() - started
    assert list((tmp_path / "tmp").iterdir()) == []
