import re
import threading

import pytest

from olmocr.errors import ExitCode, MissingDependencyError, OutputError
from olmocr.workspace.objects.place import MARK, StorePlace
from olmocr.workspace.objects.store import FolderObjects, ObjectStore, open_objects, open_store
from tests.workspace.stores import FaultyObjects, StoreError, expired, faulty_store, memory_place, objects_at, slow_down

SECRETS = ("hunter2", "AKIA", "secret=")


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    place = memory_place() if request.param == "memory" else StorePlace((tmp_path / "ws").as_uri())
    store = ObjectStore(place, open_objects(place))
    yield store
    store.close()


def test_objects_are_written_read_listed_and_removed(store):
    store.put_all({"a/1": b"one", "a/b/2": b"two", "c": b"three"})
    assert store.names("a") == ["a/1", "a/b/2"]
    assert store.names("nothing") == []
    assert store.names("c") == ["c"], "an object is its own folder"
    assert store.get_all(["a/1", "c", "gone"]) == {"a/1": b"one", "c": b"three"}
    store.remove(["a/1", "gone"])
    assert store.get("a/1") is None


def test_of_two_who_write_what_is_not_there_one_has_it(store):
    assert store.claim("c", b"one") == "ours"
    assert store.claim("c", b"one") == "ours before"
    assert store.claim("c", b"two") == "another's"
    assert store.get("c") == b"one"


def test_of_many_threads_that_want_one_name_one_has_it(store):
    found = []
    threads = [
        threading.Thread(target=lambda at=at: found.append(store.create("c", str(at).encode()))) for at in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]


def test_a_store_that_slows_us_down_is_asked_again_later_and_later():
    store, objects, waits = faulty_store(before=[slow_down] * 4)
    store.put("a", b"x")
    assert objects.counts == {"put": 5}
    assert len(waits) == 4
    assert all(0.1 * 2**at <= wait <= 0.2 * 2**at for at, wait in enumerate(waits))
    assert store.get("a") == b"x"


@pytest.mark.parametrize(
    "error",
    [slow_down(), TimeoutError(), ConnectionResetError(), StoreError("InternalError", 500), StoreError("", 503)],
)
def test_what_passes_is_waited_for(error):
    store, _, waits = faulty_store(before=[error])
    store.put("a", b"x")
    assert len(waits) == 1


def test_a_store_that_stays_away_is_one_sentence_and_is_not_waited_for_twice():
    store, objects, waits = faulty_store()
    objects.always = slow_down
    with pytest.raises(OutputError) as error:
        store.put("a", b"x")
    assert str(error.value) == (
        f"the workspace {store.place}: a cannot be written: SlowDown; "
        "the store could not be reached; run it again later"
    )
    with pytest.raises(OutputError):
        store.get("a")
    assert len(waits) == 4
    objects.always = None
    assert store.get("a") is None, "it is back"
    objects.before = [slow_down] * 2
    store.put("a", b"x")
    assert len(waits) == 6


def test_credentials_that_have_expired_are_one_sentence_without_secrets_and_not_waited_for():
    store, objects, waits = faulty_store(before=[expired])
    with pytest.raises(OutputError) as error:
        store.put("a", b"x")
    assert error.value.exit_code == ExitCode.OUTPUT
    assert "ExpiredToken (the credentials have expired); check the credentials" in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)
    assert (waits, objects.counts) == ([], {"put": 1})


@pytest.mark.parametrize(
    "said",
    [
        "https://user:hunter2@host/x is no place",
        "https://host/c?sig=hunter2%3D&se=2026 is gone",
        "key AKIAHUNTER2HUNTER2 is unknown",
        "token=hunter2 is no good",
        "the signature wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY0 is not ours",
    ],
)
def test_no_secret_that_a_library_tells_is_told(said):
    store, _, _ = faulty_store(before=[ValueError(said)])
    with pytest.raises(OutputError) as error:
        store.get("a")
    assert not re.search("hunter2|HUNTER2|wJalr", str(error.value))


def test_an_answer_that_is_lost_after_a_write_changes_nothing():
    store, objects, _ = faulty_store(after=[ConnectionResetError()])
    assert store.create("claim", b"ours"), "what is there already is ours"
    objects.after = [ConnectionResetError()]
    store.put("a", b"x")
    assert store.get("a") == b"x"
    assert not store.create("claim", b"theirs")


def test_what_is_waited_for_ends_when_the_run_is_ended():
    place = memory_place()
    objects = FaultyObjects(objects_at(place))
    objects.always = slow_down
    store = ObjectStore(place, objects)
    thread = threading.Thread(target=store.end_waiting)
    thread.start()
    with pytest.raises(OutputError, match="the run was ended meanwhile"):
        store.put("a", b"x")
    thread.join()
    store.close()


class WithoutConditions(FaultyObjects):
    """A store that answers 501 to a write that has a condition."""

    class FileSystem:
        def __init__(self, filesystem):
            self.filesystem = filesystem

        def pipe_file(self, path, data, mode="overwrite"):
            if mode == "create":
                raise StoreError("NotImplemented", 501)
            self.filesystem.pipe_file(path, data)

        def __getattr__(self, name):
            return getattr(self.filesystem, name)


def test_a_store_that_knows_no_conditions_lets_the_first_have_it_as_far_as_it_can():
    place = memory_place()
    objects = objects_at(place)
    objects._filesystem = WithoutConditions.FileSystem(objects._filesystem)
    store = ObjectStore(place, objects)
    assert store.create("c", b"one")
    assert not store.create("c", b"two")
    assert store.get("c") == b"one"
    store.close()


def test_a_file_is_whole_from_the_first_moment(tmp_path):
    objects = FolderObjects(tmp_path)
    objects.put("a/b", b"x" * 1000)
    (tmp_path / "a/.half.partial").write_bytes(b"x")
    assert objects.names("a") == ["a/b"], "what somebody is writing is not there yet"


def test_a_folder_that_is_empty_goes_and_who_writes_there_just_then_does_not_mind(tmp_path):
    objects = FolderObjects(tmp_path)

    def write(number):
        for turn in range(100):
            objects.create(f"claims/a/{number}-{turn}", b"x")
            objects.remove(f"claims/a/{number}-{turn}")

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    objects.put("claims/b/0", b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "claims",
        "claims/b",
        "claims/b/0",
    ]


# Opening.


def test_a_workspace_is_marked_and_one_of_a_later_version_is_left_alone():
    place = memory_place()
    open_store(place).close()
    assert b'"format": 1' in objects_at(place).get(MARK)
    objects_at(place).put(MARK, b'{"format": 99}')
    with pytest.raises(OutputError, match="was written by a later version of olmocr; update this one"):
        open_store(place)


def test_nothing_is_made_where_a_workspace_is_only_read():
    place = memory_place()
    open_store(place, to_read=True).close()
    assert objects_at(place).names("") == []


def test_a_workspace_of_one_machine_is_not_made_one_of_several(tmp_path):
    (tmp_path / "workspace.sqlite").touch()
    with pytest.raises(OutputError, match="is a workspace of one machine: name its path, or another folder"):
        open_store(StorePlace(tmp_path.as_uri()))


@pytest.mark.parametrize(("url", "extra"), [("gs://bucket/ws", "gcs"), ("az://box/ws", "azure")])
def test_a_store_whose_extra_is_missing_is_one_sentence(url, extra):
    if __import__("importlib.util", fromlist=["util"]).find_spec({"gcs": "gcsfs", "azure": "adlfs"}[extra]):
        pytest.skip("this one has it")
    with pytest.raises(MissingDependencyError, match=rf"needs an extra of this package: .*{extra}"):
        open_objects(StorePlace(url))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "ws").write_text("a file")
    with pytest.raises(OutputError, match=r"could not be written|cannot be"):
        open_store(StorePlace((tmp_path / "ws").as_uri()))
