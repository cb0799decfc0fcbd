import dataclasses
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import OutputError
from olmocr.page import PageResponse
from olmocr.workspace.document import PageRecord
from olmocr.workspace.records import RECORDS_FILE, STALE_SECONDS, KnownDocument, Records, this_machine

SHA = "ab" * 32
ANY_TEXT = st.text(st.characters())  # lone surrogates and NUL included
SHARES = st.none() | st.floats(0, 1)


def page(number=1, text="Hello", status="valid", **fields):
    return PageRecord(number, status, PageResponse("en", True, 0, False, False, text), **fields)


def document(key="k", name="a.pdf", state="done", **fields):
    values = {"stat": "1 2 3", "sha256": SHA, "selection": "", "page_count": 1, **fields}
    return KnownDocument(key, name, state=state, **values)


def database(folder):
    return sqlite3.connect(folder / RECORDS_FILE, isolation_level=None)


PAGE_RECORDS = st.builds(
    PageRecord,
    page_number=st.integers(1, 100_000),
    status=st.sampled_from(["valid", "blank", "fallback"]),
    response=st.builds(
        PageResponse,
        primary_language=st.none() | ANY_TEXT,
        is_rotation_valid=st.booleans(),
        rotation_correction=st.sampled_from([0, 90, 180, 270]),
        is_table=st.booleans(),
        is_diagram=st.booleans(),
        natural_text=st.none() | ANY_TEXT,
    ),
    model=st.none() | ANY_TEXT,
    attempts=st.integers(0, 8),
    rejected=st.lists(ANY_TEXT, max_size=3).map(tuple),
    finish_reason=st.none() | st.just("stop"),
    coverage=SHARES,
)


def test_the_model_of_a_workspace_is_known_where_it_is_one(tmp_path):
    with Records(tmp_path) as records:
        assert records.only_model() is None
        records.add_page(SHA, page(1, model="org/one"))
        records.add_page(SHA, page(2, model="org/one"))
        assert records.only_model() == "org/one"
        records.add_page(SHA, page(3, model="org/two"))
        assert records.only_model() is None


@given(PAGE_RECORDS)
def test_a_page_comes_back_as_it_was_whatever_its_text(tmp_path_factory, record):
    folder = tmp_path_factory.mktemp("ws")
    with Records(folder) as records:
        records.add_page(SHA, record)
    with Records(folder) as records:
        assert records.pages(SHA) == {record.page_number: record}


def test_a_document_whose_last_name_leads_to_another_has_none_any_more(tmp_path):
    with Records(tmp_path) as records:
        assert records.led_elsewhere("one", ["link", "one"]) == {"link"}, "what earlier versions called it"
        assert records.led_elsewhere("two", ["link"]) == set(), "it has its own name still"
        assert records.led_elsewhere("two", ["one"]) == {"one"}


def test_by_which_models_and_how_pages_were_read_is_told_of_those_that_have_an_answer(tmp_path):
    with Records(tmp_path) as records:
        for each in (
            page(1, model="a", asked="644 pixels"),
            page(2, model="a", asked="644 pixels"),
            page(3, model="b"),
        ):
            records.add_page(SHA, each)
        records.add_page(SHA, page(4, model="c", status="fallback"))
        records.add_page(SHA, page(5, model="d"))
        records._write("UPDATE pages SET record = '{' WHERE page_number = ?", (5,))
        assert records.readings(SHA) == {("a", "644 pixels"), ("b", "")}


@pytest.mark.parametrize("record", ["", "{", "[]", "null", "7", '"text"', '{"response": {}}', "[" * 5000, '{"a": 1}'])
def test_a_record_that_is_damaged_is_left_out_and_counts_as_not_finished(record, tmp_path):
    with Records(tmp_path) as records:
        records.add_page(SHA, page(1))
        records.add_page(SHA, page(2))
        db = database(tmp_path)
        db.execute("UPDATE pages SET record = ? WHERE page_number = 1", (record,))
        db.close()
        assert list(records.pages(SHA)) == [2]
        assert records.finished_numbers(SHA, with_fallback=True) == {2}


def test_a_record_under_another_pages_number_is_left_out(tmp_path):
    with Records(tmp_path) as records:
        records.add_page(SHA, page(1))
        db = database(tmp_path)
        db.execute("UPDATE pages SET page_number = 2")
        db.close()
        assert records.pages(SHA) == {}


def test_a_document_comes_back_as_it_was_and_the_last_word_on_it_counts(tmp_path):
    failed = document(state="failed", why="it \0 is \x1b[31m broken", sha256=None, page_count=None)
    with Records(tmp_path) as records:
        records.add_document(document())
        records.add_document(failed)
        assert records.document("k") == failed
        assert list(records.documents()) == [failed]
        assert records.document("other") is None


def test_a_name_that_is_not_unicode_can_be_kept(tmp_path):
    with Records(tmp_path) as records:
        records.add_document(document(name="a\udcff.pdf", state="failed", why="\udcff"))
        assert records.document("k") == document(name="a\udcff.pdf", state="failed", why=r"\udcff")


def test_documents_come_by_name(tmp_path):
    with Records(tmp_path) as records:
        for key, name in (("1", "b"), ("2", "a"), ("0", "b")):
            records.add_document(document(key, name))
        assert [(each.name, each.key) for each in records.documents()] == [("a", "2"), ("b", "0"), ("b", "1")]


def lock_of(folder, *, host=None, pid=None):
    """Have somebody else hold the lock "a"."""
    with Records(folder):
        db = database(folder)
        owner = ("a", "somebody", host or this_machine(), os.getpid() if pid is None else pid, 1000.0)
        db.execute("INSERT INTO locks VALUES (?, ?, ?, ?, ?)", owner)
        db.close()


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_free_lock_is_taken_and_ours_can_be_taken_again(tmp_path):
    with Records(tmp_path) as records:
        assert records.lock("a")
        assert records.lock("a")


@pytest.mark.parametrize(
    ("owner", "is_taken"),
    [
        ({}, False),
        ({"pid": "dead"}, True),
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "pid": "dead"}, False),
        ({"host": socket.gethostname(), "pid": "dead"}, False),  # a container that is called as this machine is
    ],
)
def test_a_lock_is_taken_over_from_one_who_is_known_to_be_dead_and_from_nobody_else(owner, is_taken, tmp_path):
    lock_of(tmp_path, **{**owner, "pid": dead_pid() if owner.get("pid") else None})
    with Records(tmp_path) as records:
        assert records.lock("a") is is_taken
        assert records.lock("a") is is_taken


def test_a_lock_whose_heartbeat_stands_still_while_somebody_waits_is_taken_over(tmp_path):
    now = 0.0
    with Records(tmp_path) as ours, Records(tmp_path, clock=lambda: now) as theirs:
        ours.lock("a")
        assert not theirs.lock("a")
        now = STALE_SECONDS - 1
        assert not theirs.lock("a")
        ours.beat()
        now = 2 * STALE_SECONDS
        assert not theirs.lock("a"), "it has moved"
        now = 3 * STALE_SECONDS + 1
        assert theirs.lock("a")


@pytest.mark.parametrize("seconds", [-1e9, 0, 1e9])
def test_no_time_of_day_decides_about_a_lock(seconds, tmp_path, monkeypatch):
    with Records(tmp_path) as ours, Records(tmp_path) as theirs:
        ours.lock("a")
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        assert not theirs.lock("a")


def test_on_a_disk_of_another_machine_no_memory_is_shared_and_it_is_said(tmp_path, caplog):
    with Records(tmp_path, disk_of=lambda folder: "nfs4") as records:
        records.add_page(SHA, page())
        assert records.lock("a")
        assert not list(tmp_path.glob("*-shm"))
    assert "is on a disk of another machine (nfs4), whose locks may not hold" in caplog.text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("SQLITE_PROTOCOL", "this disk lacks the locks that a workspace needs"),
        ("SQLITE_IOERR_LOCK", "this disk lacks the locks that a workspace needs"),
        ("SQLITE_READONLY", "may not be written"),
        ("SQLITE_CANTOPEN", "may not be written"),
    ],
)
def test_what_a_disk_lacks_is_one_sentence(kind, words, tmp_path):
    error = sqlite3.OperationalError("it says no")
    error.sqlite_errorname = kind
    with Records(tmp_path) as records, pytest.raises(OutputError, match=words), records._errors("used"):
        raise error


WRITER = """
import sys
from pathlib import Path
from olmocr.page import PageResponse
from olmocr.workspace.document import PageRecord
from olmocr.workspace.records import Records

with Records(Path(sys.argv[1])) as records:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(1, 201):
        response = PageResponse("en", True, 0, False, False, "x" * 2000)
        records.add_page(sys.argv[2], PageRecord(number, "valid", response))
        if records.lock("turn"):
            records.release("turn")
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, sha], **pipes) for sha in ("one", "two")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    with Records(tmp_path) as records:
        assert [list(records.pages(sha)) for sha in ("one", "two")] == [list(range(1, 201))] * 2
        assert records.lock("turn")


def test_a_process_that_begins_while_another_makes_the_file_waits_for_it(tmp_path):
    other = sqlite3.connect(tmp_path / RECORDS_FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE anything (x)")
    end = threading.Timer(0.2, other.execute, ["COMMIT"])
    end.start()
    with Records(tmp_path) as records:
        records.add_page(SHA, page())
    end.join()
    other.close()


def test_what_a_later_version_wrote_is_left_alone(tmp_path):
    with Records(tmp_path) as records:
        records.add_page(SHA, page())
    db = database(tmp_path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutputError, match="was written by a later version of olmocr; update this one"):
        Records(tmp_path)
    db = database(tmp_path)
    assert db.execute("SELECT count(*) FROM pages").fetchone() == (1,)
    db.close()


def test_a_file_that_is_not_a_database_is_one_sentence_and_is_left_alone(tmp_path):
    (tmp_path / RECORDS_FILE).write_text("my diary " * 1000)
    with pytest.raises(OutputError, match="could not be used: file is not a database; move it away to start again"):
        Records(tmp_path)
    assert (tmp_path / RECORDS_FILE).read_text() == "my diary " * 1000


def test_a_database_that_is_damaged_is_one_sentence(tmp_path):
    with Records(tmp_path) as records:
        for number in range(1, 200):
            records.add_page(SHA, page(number, "x" * 3000))
    content = bytearray((tmp_path / RECORDS_FILE).read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    (tmp_path / RECORDS_FILE).write_bytes(content)
    with (
        pytest.raises(OutputError, match=r"could not be read: .*malformed; move it away"),
        Records(tmp_path) as records,
    ):
        records.pages(SHA)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match=r"could not be used: unable to open database file$"):
        Records(tmp_path / "nowhere")


FULL = """
import resource, signal, sys
from pathlib import Path
from olmocr.errors import OutputError
from olmocr.pipeline.page_records import blank_record
from olmocr.workspace.records import Records

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
records = Records(Path(sys.argv[1])) if sys.argv[2] == "later" else None
resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, resource.RLIM_INFINITY) if records else (100, 100))
try:
    with records or Records(Path(sys.argv[1])) as records:
        for number in range(1, 1000):
            records.add_page("a", blank_record(number))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_full_disk_is_one_sentence_and_what_was_kept_stays(when, tmp_path):
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", FULL, tmp_path, when]
    done = subprocess.run(command, capture_output=True, text=True, env=unmeasured)
    assert done.stderr == ""
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith(f"the disk is full, or fails: {tmp_path / RECORDS_FILE} could not be ")
    assert sentence.endswith("; free some space and run it again")
    with Records(tmp_path) as records:
        assert bool(records.pages("a")) is (when == "later")
        records.add_page("a", page(1000))


def test_a_lock_that_could_not_be_written_leaves_nothing_half_done(tmp_path):
    with Records(tmp_path) as records:
        db = database(tmp_path)
        db.execute("DROP TABLE locks")
        with pytest.raises(OutputError, match="could not be read: no such table: locks"):
            records.lock("a")
        records.add_page(SHA, page())
        assert db.execute("SELECT count(*) FROM pages").fetchone() == (1,)
        db.close()


def test_every_field_of_a_page_is_kept(tmp_path):
    record = page(2, status="fallback", rejected=("why",), model="m", seconds=1.5, guided=True, rotation=90)
    record = dataclasses.replace(record, attempts=8, total_output_tokens=9, temperature=1.0, coverage=0.25)
    with Records(tmp_path) as records:
        records.add_page(SHA, record)
        assert records.pages(SHA)[2] == record
