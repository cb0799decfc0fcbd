import json

import pytest

from olmocr.workspace.objects.claims import Claims
from olmocr.workspace.records import STALE_SECONDS
from tests.workspace.stores import faulty_store, memory_place, objects_at


class Watch:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def place():
    return memory_place()


@pytest.fixture
def watch():
    return Watch()


def machine(place, watch, **plan):
    store, objects, _ = faulty_store(place, **plan)
    return Claims(store, watch), objects


def killed(place, watch, *, host="elsewhere", pid=1):
    """Have a machine take a claim and be heard of no more."""
    claims, objects = machine(place, watch)
    claims.take("a")
    for name in objects.names("state/claims"):
        objects.put(name, json.dumps({**json.loads(objects.get(name)), "host": host, "pid": pid}).encode())
    return claims


def test_of_two_machines_one_has_a_claim(place, watch):
    one, two = machine(place, watch)[0], machine(place, watch)[0]
    assert one.take("a")
    assert not two.take("a")
    one.release("a")
    assert two.take("a")
    two.release_all()
    assert objects_at(place).names("state/claims") == []


def test_a_claim_costs_one_request_to_take_and_two_to_give_back(place, watch):
    claims, objects = machine(place, watch)
    claims.take("a")  # the first one also says that its owner is alive
    objects.counts.clear()
    claims.take("b")
    claims.release("b")
    assert objects.counts == {"create": 1, "names": 1, "remove": 1}


def test_the_claim_of_a_machine_that_was_killed_is_taken_over_once_it_was_seen_silent_for_long(place, watch):
    killed(place, watch)
    one, two = machine(place, watch)[0], machine(place, watch)[0]
    assert not one.take("a")
    assert not two.take("a")
    watch.now = STALE_SECONDS - 1
    assert not one.take("a")
    watch.now = STALE_SECONDS + 1
    assert [one.take("a"), two.take("a")] == [True, False], "by one of those who wait"


def test_a_machine_that_is_slow_but_alive_keeps_its_claim(place, watch):
    slow = killed(place, watch)
    other = machine(place, watch)[0]
    for seconds in range(0, 300, 30):
        watch.now = seconds
        slow.beat()
        assert not other.take("a")


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(place, watch):
    from olmocr.workspace.records import this_machine

    killed(place, watch, host=this_machine(), pid=2**22 + 1)
    assert machine(place, watch)[0].take("a")


def test_one_that_comes_back_after_its_claim_was_taken_over_gives_back_nothing(place, watch):
    slow = killed(place, watch)
    other, third = machine(place, watch)[0], machine(place, watch)[0]
    assert not other.take("a")
    watch.now = STALE_SECONDS + 1
    assert other.take("a")
    slow.release("a")
    other.beat()
    assert not third.take("a")
    other.release("a")
    assert third.take("a")


def test_a_claim_whose_answer_was_lost_is_ours(place, watch):
    claims, _ = machine(place, watch, after=[None, ConnectionResetError()])
    assert claims.take("a")


def test_a_claim_that_no_list_has_yet_keeps_others_out_all_the_same(place, watch):
    assert machine(place, watch)[0].take("a")
    other, objects = machine(place, watch)
    objects.unlisted = {"claims/"}
    assert not other.take("a")


def test_a_claim_that_is_damaged_is_nobodys(place, watch):
    objects_at(place).put("state/claims/a/0000.json", b"{")
    assert machine(place, watch)[0].take("a")


def test_a_machine_has_company_while_another_is_there(place, watch):
    one, two = machine(place, watch)[0], machine(place, watch)[0]
    one.take("a")
    assert not one.has_company()
    assert two.has_company()
    one.release_all()
    assert not two.has_company()
