"""Three nodes of a real Ray on this machine, the demo model and a bucket: what is killed, and what comes of it."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import ExitCode
from olmocr.pipeline.cluster.actors import ray_cluster
from olmocr.workspace.opening import opened_workspace
from tests.conftest import PAGES
from tests.pipeline.cluster.nodes import nodes_here
from tests.pipeline.cluster.scripted import ScriptedDesk
from tests.pipeline.doubles import write_numbered_pdf
from tests.workspace.s3_server import s3_server

pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PDFS = [PAGES / f"digital_0{number}.pdf" for number in range(1, 7)]


@pytest.fixture(scope="module")
def model(converted):
    return converted("8bit", "stock")


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """Return what one process makes of the documents: the bytes of its results and markdown, by their names."""
    folder = tmp_path_factory.mktemp("alone") / "ws"
    config = PipelineConfig(workspace=folder, pdfs=PDFS, model=str(model), markdown=True)
    assert asyncio.run(run_pipeline(config)).exit_code == ExitCode.OK
    return files(folder)


def files(folder):
    kinds = (folder / "results", folder / "markdown")
    found = [path for kind in kinds for path in kind.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def nodes():
    with nodes_here(2) as nodes:
        yield nodes


def read(nodes, place, model, meanwhile=None, **options):
    """Read the documents; *meanwhile* is called after the first page."""
    config = PipelineConfig(
        workspace=place, pdfs=PDFS, model=str(model), ray=nodes.address, markdown=True, workers=2, **options
    )
    calls = [meanwhile] if meanwhile else []

    def on_page(source, page):
        while calls:
            calls.pop()()

    return asyncio.run(run_pipeline(config, on_page=on_page))


def test_documents_are_byte_for_byte_those_of_one_process(nodes, model, alone, tmp_path):
    summary = read(nodes, tmp_path / "ws", model)
    assert (summary.exit_code, summary.pages) == (ExitCode.OK, len(PDFS))
    assert files(tmp_path / "ws") == alone
    metrics = json.loads((tmp_path / "ws/metrics.json").read_text())["servers"]
    assert [each["answered"] > 0 for each in metrics.values()] == [True, True]


def test_a_node_that_is_killed_costs_no_page(nodes, model, alone, tmp_path):
    summary = read(nodes, tmp_path / "ws", model, nodes.kill_a_node)
    assert (summary.exit_code, summary.fallback_pages) == (ExitCode.OK, 0)
    assert files(tmp_path / "ws") == alone


def test_a_reader_that_is_killed_costs_no_page_and_is_started_again(nodes, model, alone, tmp_path):
    def kill():
        os.kill(nodes.readers()[0], signal.SIGKILL)

    summary = read(nodes, tmp_path / "ws", model, kill)
    assert (summary.exit_code, summary.fallback_pages) == (ExitCode.OK, 0)
    assert files(tmp_path / "ws") == alone


def test_a_node_that_comes_later_is_used(nodes, model, alone, tmp_path):
    nodes.kill_a_node()
    summary = read(nodes, tmp_path / "ws", model, nodes.add_a_node)
    assert summary.exit_code == ExitCode.OK
    assert files(tmp_path / "ws") == alone


def test_a_node_that_is_about_to_go_finishes_its_pages_and_gets_no_more(nodes, tmp_path, caplog):
    pdfs = [write_numbered_pdf(tmp_path / f"{at}.pdf", range(4 * at + 1, 4 * at + 5)) for at in range(12)]
    settings = {"model": "m", "ray": nodes.address, "target_longest_image_dim": 64, "max_concurrent_pages": 2}
    config = PipelineConfig(workspace=tmp_path / "ws", pdfs=pdfs, **settings)
    calls = [nodes.drain_a_node]

    def on_page(source, page):
        while calls:
            calls.pop()()

    async def shortly(seconds):
        await asyncio.sleep(min(seconds, 1))

    opening = functools.partial(ray_cluster, make_desk=functools.partial(ScriptedDesk, 2), drain_seconds=1)
    summary = asyncio.run(run_pipeline(config, open_cluster=opening, on_page=on_page, sleep=shortly))
    assert (summary.exit_code, summary.pages, summary.fallback_pages) == (ExitCode.OK, 48, 0)
    assert "is about to leave the cluster; it finishes the pages that it has in hand" in caplog.text
    counts = json.loads((tmp_path / "ws/metrics.json").read_text())["servers"]
    drained = counts[next(name for name in counts if nodes.nodes[-1].node_id[:8] in name)]
    assert (drained["went_away"], drained["asked"]) == (0, drained["answered"])
    assert drained["answered"] < 24


def command(nodes, place, model, *options):
    return [
        *(sys.executable, "-m", "olmocr", str(place), "--model", str(model), "--ray", nodes.address, "--workers", "2"),
        *("--markdown", *options, "--pdfs", *map(str, PDFS)),
    ]


@contextlib.contextmanager
def driver(nodes, place, model):
    """Start a run as a process of its own; yield it when it has kept a page."""
    process = subprocess.Popen(command(nodes, place, model), stderr=subprocess.PIPE, text=True)
    try:
        while not list((place / "results").glob("*.jsonl")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_driver_that_is_killed_is_resumed_and_its_readers_end(nodes, model, alone, tmp_path):
    with driver(nodes, tmp_path / "ws", model) as process:
        process.kill()
        process.wait()
        while nodes.readers():
            time.sleep(0.1)
    summary = read(nodes, tmp_path / "ws", model)
    assert (summary.exit_code, summary.skipped > 0) == (ExitCode.OK, True)
    assert files(tmp_path / "ws") == alone


def test_ctrl_c_ends_a_run_as_ever(nodes, model, alone, tmp_path):
    with driver(nodes, tmp_path / "ws", model) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "interrupted: what was finished stays" in errors
    assert "Traceback" not in errors
    assert read(nodes, tmp_path / "ws", model).exit_code == ExitCode.OK
    assert files(tmp_path / "ws") == alone


@pytest.fixture
def bucket():
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with s3_server("scans"):
        yield "scans"


def test_a_cluster_writes_into_a_bucket_what_one_process_writes_into_a_folder(bucket, nodes, model, alone):
    place = f"s3://{bucket}/ws"
    assert read(nodes, place, model, nodes.kill_a_node).exit_code == ExitCode.OK
    with opened_workspace(PipelineConfig(workspace=place, pdfs=PDFS, model="m").workspace) as (results, _):
        store = results._store
        found = {name: store.get(name) for kind in ("results", "markdown") for name in store.names(kind)}
    assert found == alone
