import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.workspace.objects import index as indices
from olmocr.workspace.objects.index import MOST_LOOSE, ShardedIndex
from tests.workspace.stores import faulty_store, memory_place


def an_index(place, **plan):
    store, objects, _ = faulty_store(place, **plan)
    return ShardedIndex(store, "state/documents", clock=lambda: 0.0), objects


@pytest.fixture
def place():
    return memory_place()


def names_at(place):
    store, objects, _ = faulty_store(place)
    names = objects.names("state/documents")
    store.close()
    return names


def test_an_entry_comes_back_and_the_last_word_counts(place):
    index, _ = an_index(place)
    index.put("aa1", {"name": "a", "why": None})
    index.put("aa1", {"name": "b"})
    assert index.get("aa1") == an_index(place)[0].get("aa1") == {"key": "aa1", "name": "b", "version": 2}
    assert index.get("aa2") is None
    assert len(names_at(place)) == 1, "what was said before is removed"


def test_a_shard_with_many_entries_becomes_one_object_and_nothing_is_lost(place):
    index, _ = an_index(place)
    for number in range(3 * MOST_LOOSE):
        index.put(f"aa{number:03}", {"name": f"{number:03}"})
    assert len(names_at(place)) <= MOST_LOOSE + 1
    assert [each["name"] for each in an_index(place)[0].entries()] == [
        f"{number:03}" for number in range(3 * MOST_LOOSE)
    ]


def test_a_list_of_many_documents_is_read_in_few_requests(place):
    index, _ = an_index(place)
    for number in range(400):
        index.put(f"{number % 8:02x}{number:06}", {"name": str(number)})
    for shard in range(8):
        index.compact(f"{shard:02x}")
    other, objects = an_index(place)
    assert sum(1 for _ in other.entries()) == 400
    assert objects.counts == {"names": 1, "get": 8}
    other.get("00000000")
    other.get("07nothing")
    assert objects.counts == {"names": 1, "get": 8}, "what was read is not read again"


def test_who_comes_after_a_run_has_few_objects_to_read(place):
    index, _ = an_index(place)
    for number in range(40):
        index.put(f"{'aa' if number < 30 else 'bb'}{number}", {"name": f"{number:02}"})
    other, _ = an_index(place)
    other.put("bb99", {"name": "99"})
    index.tidy()
    assert len(names_at(place)) == 2
    late, _ = an_index(place)
    late.tidy()
    late.put("bb98", {"name": "98"})
    late.tidy()
    assert len(names_at(place)) == 3, "a few may stay as they are"
    assert len(list(an_index(place)[0].entries())) == 42


def test_who_reads_a_list_whose_objects_are_put_together_meanwhile_looks_again(place):
    index, _ = an_index(place)
    for number in range(5):
        index.put(f"aa{number}", {"name": str(number)})
    reader, _ = an_index(place)
    reader._all()  # it has the list, and has read nothing yet
    index.compact("aa")
    assert [each["name"] for each in reader.entries()] == ["0", "1", "2", "3", "4"]


def test_two_who_put_a_shard_together_at_once_lose_nothing(place):
    one, _ = an_index(place)
    two, _ = an_index(place)
    one.put("aa1", {"name": "1"})
    two.put("aa2", {"name": "2"})
    two._look("aa", None)
    one.compact("aa")
    two.compact("aa")
    assert [each["name"] for each in an_index(place)[0].entries()] == ["1", "2"]


def test_what_no_list_has_yet_is_there_later_and_is_not_removed(place):
    one, _ = an_index(place)
    one.put("aa1", {"name": "1"})
    late, objects = an_index(place)
    objects.unlisted = {"aa1-"}
    assert late.get("aa1") is None
    late.put("aa2", {"name": "2"})
    late.compact("aa")
    objects.unlisted = set()
    assert late.get("aa1", no_older_than=0)["name"] == "1"
    assert [each["name"] for each in an_index(place)[0].entries()] == ["1", "2"]


def test_a_damaged_object_is_left_out(place):
    index, objects = an_index(place)
    index.put("aa1", {"name": "1"})
    for name, data in {"aa2-1-x.json": b"{", "all-x.jsonl.gz": b"\x1f\x8bno", "aa3-1-x.json": b"[]\n7\n{}"}.items():
        objects.put(f"state/documents/aa/{name}", data)
    assert [each["name"] for each in an_index(place)[0].entries()] == ["1"]


KEYS = [f"{shard}{number}" for shard in ("aa", "bb") for number in range(3)]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["put", "compact", "look", "crash"]),
        st.sampled_from(KEYS),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_whatever_several_machines_do_in_any_order_all_see_the_same_in_the_end_and_no_key_is_lost(steps):
    place = memory_place()
    machines = [an_index(place)[0] for _ in range(3)]
    written = {}
    for at, (machine, what, key) in enumerate(steps):
        index = machines[machine]
        if what == "put":
            index.put(key, {"name": key, "at": at})
            written.setdefault(key, set()).add(at)
        elif what == "compact":
            index.compact(key[:2])
        elif what == "look":
            index.get(key, no_older_than=0)
        else:
            machines[machine] = an_index(place)[0]
    for index in machines:
        for key in KEYS:
            index.get(key, no_older_than=0)
    views = [{each["key"]: each["at"] for each in index.entries()} for index in (*machines, an_index(place)[0])]
    assert views[0].keys() == written.keys()
    assert all(view == views[0] for view in views)
    assert all(at in written[key] for key, at in views[0].items())


@pytest.mark.parametrize("killed_after", range(1, 7))
def test_one_who_is_killed_while_it_puts_a_shard_together_loses_nothing(killed_after, place):
    index, objects = an_index(place)
    for number in range(4):
        index.put(f"aa{number}", {"name": str(number)})

    class KilledError(BaseException):
        pass

    objects.before = [None] * killed_after + [KilledError()] * 100
    with contextlib.suppress(KilledError):
        index.compact("aa")
    assert [each["name"] for each in an_index(place)[0].entries()] == ["0", "1", "2", "3"]


def test_lines_are_plain_json_for_other_tools(place):
    index, objects = an_index(place)
    index.put("aa1", {"name": "1"})
    (name,) = names_at(place)
    assert json.loads(objects.get(name)) == {"key": "aa1", "name": "1", "version": 1}
    assert indices.MOST_LOOSE == 64
