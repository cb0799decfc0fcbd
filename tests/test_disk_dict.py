import pickle
import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.disk_dict import DiskDict
from olmocr.errors import OutputError


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | st.floats(allow_nan=False) | st.text())))
def test_it_holds_what_a_dict_holds_in_the_same_order(entries):
    there, expected = DiskDict(), {}
    for key, value in entries:
        there[key] = expected[key] = value
    assert list(there.values()) == list(expected.values())
    assert len(there) == len(expected)
    for place, (key, value) in enumerate(expected.items()):
        assert (there.get(key), there.place(key), key in there) == (value, place, True)


def test_a_key_that_did_not_come_has_no_value_and_no_place():
    there = DiskDict()
    there["a"] = 1
    assert (there.get("b"), "b" in there) == (None, False)
    with pytest.raises(KeyError):
        there.place("b")


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 2500), (700, 2100), (2499, None), (2500, None)])
def test_values_can_be_had_from_one_place_to_another(start, end):
    there = DiskDict()
    for number in range(2500):
        there[str(number)] = number
    assert list(there.values(start, end)) == list(range(2500))[start:end]


def test_what_comes_while_values_are_looked_at_is_among_them():
    there = DiskDict()
    there["a"] = 1
    found = []
    for value in there.values():
        found.append(value)
        if value < 3:
            there[str(value)] = value + 1
    assert found == [1, 2, 3]


def test_any_thread_may_use_it():
    there = DiskDict()
    threads = [threading.Thread(target=lambda n=n: there.__setitem__(str(n), n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(there.values()) == list(range(8))


def test_a_disk_that_fails_is_a_sentence():
    class Failing:
        def execute(self, *statement):
            raise sqlite3.OperationalError("database or disk is full")

    there = DiskDict()
    there._db = Failing()
    with pytest.raises(OutputError, match=r"a temporary file could not be used \(database or disk is full\); free"):
        there["a"] = pickle.HIGHEST_PROTOCOL
