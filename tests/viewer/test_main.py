"""The viewer's command over workspaces that have a URL."""

import json

import pytest
from typer.testing import CliRunner

from olmocr.viewer.__main__ import app
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.store import open_objects
from tests.workspace.stores import memory_place


def line(text):
    return {
        "text": text,
        "metadata": {"Source-File": "scans/a.pdf"},
        "attributes": {"pdf_page_numbers": [[0, len(text), 1]]},
    }


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_workspace_in_a_store_is_shown_and_its_folder_is_named_after_it(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = memory_place() if kind == "memory" else StorePlace((tmp_path / "shared/ws").as_uri())
    objects = open_objects(place)
    objects.put("results/output_a.jsonl", json.dumps(line("Hello from the bucket")).encode())
    done = CliRunner().invoke(app, [place.url])
    assert done.exit_code == 0, done.output
    assert "documents: 1" in done.output
    (page,) = (path for path in (tmp_path / "ws-viewer").rglob("*.html") if path.name != "index.html")
    assert "Hello from the bucket" in page.read_text()
    objects.put("results/output_a.jsonl", json.dumps(line("Read anew")).encode())
    assert CliRunner().invoke(app, [place.url, "--quiet"]).exit_code == 0
    assert "Read anew" in page.read_text()


def test_a_store_without_a_workspace_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [memory_place().url])
    assert done.exit_code == 7
    assert "is not a workspace" in done.output
    assert list(tmp_path.iterdir()) == []
