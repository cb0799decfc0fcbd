"""A workspace in S3, as moto's server speaks it on the loopback interface, behind what fails by plan."""

import asyncio
import json

import pytest

from olmocr import PipelineConfig, run_pipeline
from olmocr.errors import OutputError
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.objects.store import ObjectStore, open_objects, open_store
from olmocr.workspace.stats import read_stats
from tests.pipeline.doubles import Reader, write_numbered_pdf
from tests.rendered_here import PoolHere
from tests.workspace.s3_server import s3_server

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

PAGES = [1, 2, 11, 12]


def refusal(status, code):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret=hunter2</Message></Error>".encode()

    def answer(environ, start_response, app):
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


def lost(environ, start_response, app):
    """Do what is asked, and lose the answer to it."""
    b"".join(app(environ, lambda *answer: None))
    return refusal("500 Internal Server Error", "InternalError")(environ, start_response, app)


SLOW_DOWN = refusal("503 Slow Down", "SlowDown")
EXPIRED = refusal("400 Bad Request", "ExpiredToken")


@pytest.fixture(scope="module")
def server():
    with s3_server("scans") as bucket:
        yield bucket


@pytest.fixture
def bucket(server):
    yield server
    server.plan, server.always = {}, None


@pytest.fixture
def place(bucket, request):
    return StorePlace(f"s3://scans/{abs(hash(request.node.name))}")


@pytest.fixture
def pdfs(tmp_path):
    return [write_numbered_pdf(tmp_path / f"{at}.pdf", [10 * at + 1, 10 * at + 2]) for at in range(2)]


def run(place, pdfs):
    reader = Reader()
    config = PipelineConfig(workspace=place, pdfs=pdfs, target_longest_image_dim=64, model="m", markdown=True)
    return asyncio.run(run_pipeline(config, ask=reader.ask, open_pool=PoolHere)), sorted(reader.asked)


def texts(place):
    store = open_store(place)
    lines = [json.loads(data) for data in store.get_all(store.names("results")).values()]
    store.close()
    return sorted(line["text"] for line in lines)


def patient(place):
    return ObjectStore(place, open_objects(place), wait=lambda seconds: False)


def test_a_run_in_a_bucket_is_done_once(place, pdfs):
    summary, asked = run(place, pdfs)
    assert (summary.done, asked) == (2, PAGES)
    assert texts(place) == ["page 1\npage 2", "page 11\npage 12"]
    summary, asked = run(place, pdfs)
    assert (summary.skipped, asked) == (2, [])
    assert read_stats(place).pages == {"valid": 4}


@pytest.mark.slow
def test_a_bucket_that_slows_down_and_loses_answers_changes_nothing(bucket, place, pdfs):
    # Each but the first few, so that no request is refused so often that minutes are waited.
    bucket.plan = {"PUT": [None, SLOW_DOWN, None, lost, None] * 8, "GET": [None, SLOW_DOWN, None, None] * 4}
    summary, asked = run(place, pdfs)
    assert (summary.done, asked) == (2, PAGES)
    bucket.plan = {}
    assert texts(place) == ["page 1\npage 2", "page 11\npage 12"]
    store = open_store(place)
    assert store.names("state/claims") == store.names("state/alive") == []
    store.close()


def test_of_two_who_want_what_is_not_there_one_has_it_though_answers_are_lost(bucket, place):
    one, two = patient(place), patient(place)
    bucket.plan = {"PUT": [lost, SLOW_DOWN]}
    assert one.create("claim", b"one")
    assert not two.create("claim", b"two")
    assert one.get("claim") == b"one"
    one.close()
    two.close()


def test_credentials_that_have_expired_are_one_sentence_without_secrets(bucket, place):
    store = patient(place)
    bucket.always = EXPIRED
    with pytest.raises(OutputError, match=r"a cannot be written: ExpiredToken \(the credentials have exp") as error:
        store.put("a", b"x")
    assert "hunter2" not in str(error.value)
    store.close()


def test_a_bucket_that_stays_away_is_one_sentence(bucket, place):
    store = patient(place)
    bucket.always = SLOW_DOWN
    with pytest.raises(OutputError, match="SlowDown; the store could not be reached; run it again later"):
        store.get("a")
    store.close()


def test_a_bucket_that_is_not_there_is_one_sentence(bucket, pdfs):
    with pytest.raises(OutputError, match=r"s3://nobodys/ws is in a bucket that does not exist; create it first"):
        run(StorePlace("s3://nobodys/ws"), pdfs)
