"""A benchmark in a bucket is copied, and only what changed is fetched again."""

import json
from pathlib import Path

import pytest

from olmocr.errors import InputError
from olmocr.validate.bench import fetch
from olmocr.validate.bench.checks import read_bench_set
from olmocr.validate.bench.fetch import bench_folder
from tests.inputs.test_stores import bucket  # noqa: F401 - a fixture
from tests.pipeline.doubles import write_pdf

CHECK = {"id": "one", "type": "present", "pdf": "old/a.pdf", "page": 1, "text": "Some words"}


@pytest.fixture
def put(bucket, tmp_path):  # noqa: F811
    """Put a benchmark into the bucket; return what puts another file there."""
    import boto3

    store = boto3.client("s3")

    def put(name, content):
        store.put_object(Bucket="scans", Key=f"sets/bench/{name}", Body=content)

    put("old.jsonl", json.dumps(CHECK).encode())
    put("pdfs/old/a.pdf", write_pdf(tmp_path / "a.pdf").read_bytes())
    put("pdfs/old/notes.txt", b"no document")
    put("pdfs/../out.pdf", b"outside")
    put("results.csv", b"no check")
    yield put
    for each in store.list_objects_v2(Bucket="scans", Prefix="sets/")["Contents"]:
        store.delete_object(Bucket="scans", Key=each["Key"])


PLACE = "s3://scans/sets/bench"


def test_a_folder_of_this_disk_is_left_where_it_is(tmp_path):
    assert bench_folder(str(tmp_path), tmp_path / "work") == tmp_path
    assert bench_folder("~/bench", tmp_path) == Path.home() / "bench"


def test_a_benchmark_in_a_bucket_is_copied_without_files_that_do_not_belong_to_it(put, tmp_path):
    copy = bench_folder(f"{PLACE}/", tmp_path)
    assert copy.name == "bench"
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {"old.jsonl", "pdfs/old/a.pdf", ".versions.json"}
    assert read_bench_set(copy).documents == ("old/a.pdf",)
    assert copy.is_relative_to(tmp_path)


def test_only_what_changed_is_fetched_again_and_what_went_is_removed(put, tmp_path, monkeypatch):
    import boto3

    put("pdfs/old/b.pdf", b"%PDF-1.7 another")
    copy = bench_folder(PLACE, tmp_path)
    fetched, real = [], fetch.read_stored
    monkeypatch.setattr(fetch, "read_stored", lambda file, name: fetched.append(name) or real(file, name))
    assert bench_folder(PLACE, tmp_path) == copy
    assert fetched == []
    put("old.jsonl", json.dumps(CHECK | {"id": "two"}).encode())
    boto3.client("s3").delete_object(Bucket="scans", Key="sets/bench/pdfs/old/b.pdf")
    (copy / "pdfs/old/a.pdf").unlink()
    bench_folder(PLACE, tmp_path)
    assert fetched == [f"{PLACE}/old.jsonl", f"{PLACE}/pdfs/old/a.pdf"]
    assert not (copy / "pdfs/old/b.pdf").exists()
    assert read_bench_set(copy).checks[0].id == "two"


def test_a_copy_that_was_interrupted_resumes_with_the_file_it_was_at(put, tmp_path, monkeypatch):
    fetched, real = [], fetch.read_stored

    def interrupted(file, name):
        fetched.append(name)
        if name.endswith(".pdf") and len(fetched) < 3:
            raise KeyboardInterrupt
        return real(file, name)

    monkeypatch.setattr(fetch, "read_stored", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench_folder(PLACE, tmp_path)
    bench_folder(PLACE, tmp_path)
    assert fetched == [f"{PLACE}/old.jsonl", f"{PLACE}/pdfs/old/a.pdf", f"{PLACE}/pdfs/old/a.pdf"]


def test_a_place_without_a_benchmark_is_told(put, tmp_path):
    with pytest.raises(InputError, match="there is nothing to read at s3://scans/none"):
        bench_folder("s3://scans/none", tmp_path)
    with pytest.raises(InputError, match="ftp://host/x cannot be read: only"):
        bench_folder("ftp://host/x", tmp_path)
    with pytest.raises(InputError, match="a web server has no list of its files"):
        bench_folder("https://host/x", tmp_path)
