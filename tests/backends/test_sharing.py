"""Who is asked about which page: rules that hold for any servers and pages, and runs that are simulated."""

import heapq
import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from olmocr.backends.sharing import (
    SILENT_SECONDS,
    PageState,
    ServerState,
    deal,
    grown,
    halved,
    is_silent,
    usual,
    usual_at_least,
)

NOW = 1000.0

SERVER = st.builds(
    ServerState,
    room=st.integers(0, 5),
    seconds=st.none() | st.floats(0.01, 500),
    heard=st.floats(0, NOW),
)


@st.composite
def tables(draw):
    """Draw servers, and pages in their hands or in nobody's; nobody has more in hand than there is room for."""
    servers = draw(st.lists(SERVER, min_size=1, max_size=4))
    free = [server.room for server in servers]
    pages = []
    for _ in range(draw(st.integers(0, 12))):
        places = draw(st.sets(st.sampled_from(range(len(servers))), max_size=2))
        asked = tuple((at, draw(st.floats(0, NOW))) for at in sorted(places) if free[at] > 0)
        for at, _ in asked:
            free[at] -= 1
        refused = draw(st.sets(st.sampled_from(range(len(servers))), max_size=2)) - {at for at, _ in asked}
        pages.append(PageState(asked, frozenset(refused)))
    return servers, pages


def silent_ones(servers, pages):
    oldest = {at: min(since for page in pages for s, since in page.asked if s == at) for at in places(pages)}
    return {at for at, since in oldest.items() if is_silent(servers[at], since, NOW)}


def places(pages):
    return {at for page in pages for at, _ in page.asked}


def free_after(servers, pages, asks):
    free = [server.room for server in servers]
    for page in pages:
        for at, _ in page.asked:
            free[at] -= 1
    for _, at in asks:
        free[at] -= 1
    return free


@given(tables(), st.floats(0, NOW))
def test_no_server_is_asked_for_more_than_it_has_room_for_nor_one_that_is_away_or_silent(table, last_page):
    servers, pages = table
    asks = deal(servers, pages, NOW, last_page).asks
    assert min(free_after(servers, pages, asks)) >= 0
    assert not {at for _, at in asks} & silent_ones(servers, pages)


@given(tables(), st.floats(0, NOW))
def test_no_page_is_asked_of_one_server_twice_nor_of_more_than_two_nor_of_one_that_refused_it(table, last_page):
    servers, pages = table
    asks = deal(servers, pages, NOW, last_page).asks
    assert len({number for number, _ in asks}) == len(asks), "once in a deal"
    for number, at in asks:
        assert at not in {asked for asked, _ in pages[number].asked} | pages[number].refused_by
        assert len(pages[number].asked) < 2


@given(tables(), st.floats(0, NOW))
def test_no_page_waits_while_a_server_that_may_have_it_has_room(table, last_page):
    servers, pages = table
    asks = deal(servers, pages, NOW, last_page).asks
    silent, free = silent_ones(servers, pages), free_after(servers, pages, asks)
    dealt = {number for number, _ in asks}
    for number, page in enumerate(pages):
        if not page.asked and number not in dealt:
            assert [at for at, room in enumerate(free) if room and at not in page.refused_by | silent] == []


@given(tables(), st.floats(0, NOW))
def test_where_pages_wait_none_is_asked_twice_unless_its_server_is_silent(table, last_page):
    servers, pages = table
    asks = dict(deal(servers, pages, NOW, last_page).asks)
    assume(any(not page.asked and number not in asks for number, page in enumerate(pages)))
    silent = silent_ones(servers, pages)
    for number in asks:
        assert {at for at, _ in pages[number].asked} <= silent


@given(tables(), st.floats(0, NOW))
def test_the_first_in_order_is_the_first_to_be_asked(table, last_page):
    servers, pages = table
    fresh = [replace(page, refused_by=frozenset()) for page in pages]
    asks = dict(deal(servers, fresh, NOW, last_page).asks)
    waiting = [number for number, page in enumerate(fresh) if not page.asked]
    asked = [number in asks for number in waiting]
    assert asked == sorted(asked, reverse=True)


@given(tables(), st.floats(0, NOW))
def test_where_nothing_comes_to_pass_there_is_soon_nothing_more_to_do(table, last_page):
    servers, pages = table
    now = NOW
    for _ in range(100):
        found = deal(servers, pages, now, last_page)
        fresh = dict(found.asks)
        pages = [replace(p, asked=(*p.asked, (fresh[n], now))) if n in fresh else p for n, p in enumerate(pages)]
        if found.look_again is None and not found.asks:
            break
        assert found.look_again is None or found.look_again > now
        now = found.look_again or now
    else:
        pytest.fail("there is no end to it")


def test_a_page_goes_to_whoever_is_done_with_it_first():
    quick, slow = ServerState(2, seconds=1.0), ServerState(8, seconds=20.0)
    asks = deal([slow, quick], [PageState()] * 5, NOW, NOW).asks
    assert asks == ((0, 1), (1, 1), (2, 0), (3, 0), (4, 0)), "0.5 s and 1 s, then 2.5 s and more"


def test_servers_that_have_shown_nothing_get_pages_by_what_they_can_hold():
    asks = deal([ServerState(2), ServerState(6)], [PageState()] * 4, NOW, NOW).asks
    assert [at for _, at in asks].count(1) == 3


def test_the_last_page_is_asked_twice_where_another_server_is_sooner_done_with_it():
    servers = [ServerState(4, seconds=100.0, heard=NOW), ServerState(4, seconds=10.0, heard=NOW)]
    early, late = PageState(((0, NOW - 5),)), PageState(((0, NOW - 95),))
    assert deal(servers, [early], NOW, last_page=NOW - 50).asks == ((0, 1),), "95 s are left, 10 s would do"
    found = deal(servers, [late], NOW, last_page=NOW - 50)
    assert (found.asks, found.look_again) == ((), NOW + 5 + 12.5), "5 s are left; but if it does not come …"
    assert deal(servers, [late], NOW + 17.5, last_page=NOW - 50).asks == ((0, 1),)


def test_before_a_lull_nobody_knows_which_pages_are_the_last():
    servers = [ServerState(4, seconds=100.0, heard=NOW), ServerState(4, seconds=10.0, heard=NOW)]
    found = deal(servers, [PageState(((0, NOW - 5),))], NOW, last_page=NOW)
    assert (found.asks, found.look_again) == ((), NOW + 2.5)


def test_the_pages_of_a_server_that_is_silent_are_asked_elsewhere_though_others_wait():
    silent = ServerState(1, seconds=2.0, heard=NOW - 300)
    servers = [silent, ServerState(1, seconds=2.0, heard=NOW)]
    pages = [PageState(((0, NOW - SILENT_SECONDS),)), PageState()]
    assert deal(servers, pages, NOW, NOW).asks == ((0, 1),)
    assert deal(servers, pages, NOW - 1, NOW).asks == ((1, 1),), "a second before it was not silent for long"


def test_what_an_answer_takes_is_an_average_that_forgets():
    assert usual(None, 8.0) == 8.0
    assert usual(8.0, 3.0) == pytest.approx(7.0)
    assert usual_at_least(8.0, 3.0) == 8.0, "that it was given up after 3 s says nothing"
    assert usual_at_least(8.0, 13.0) == pytest.approx(9.0)
    assert usual_at_least(None, 13.0) == 13.0


@given(st.integers(1, 100), st.integers(0, 400))
def test_room_is_halved_at_once_and_grows_page_by_page_to_what_it_was(most, answers):
    room = halved(most)
    assert max(1, most / 2) == room
    for _ in range(answers):
        before, room = room, grown(room, most)
        assert before <= room <= most
        assert room - before <= 1


def simulated(servers, pages, *, seconds):
    """Return when the last of *pages* is answered, and how many each server answered; *seconds* of each one's answers.

    A server that is None never answers.
    """
    states = list(servers)
    waiting = {number: PageState() for number in range(pages)}
    ends, order = [], itertools.count()
    now, done = 0.0, [0] * len(servers)
    last_page = 0.0
    while waiting:
        numbers = list(waiting)
        found = deal(states, [waiting[number] for number in numbers], now, last_page)
        for place, at in found.asks:
            number = numbers[place]
            waiting[number] = replace(waiting[number], asked=(*waiting[number].asked, (at, now)))
            if seconds[at] is not None:
                heapq.heappush(ends, (now + seconds[at], next(order), number, at))
        if found.asks:
            continue
        times = [ends[0][0]] if ends else []
        times += [found.look_again] if found.look_again is not None else []
        assert times, "nothing will ever happen again"
        now = min(times)
        while ends and ends[0][0] <= now:
            _, _, number, at = heapq.heappop(ends)
            if number not in waiting:
                continue  # cancelled
            for other, since in waiting.pop(number).asked:
                state = states[other]
                told = usual if other == at else usual_at_least
                heard = now if other == at else state.heard
                states[other] = replace(state, seconds=told(state.seconds, now - since), heard=heard)
            done[at] += 1
    return now, done


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.floats(0.5, 20)), min_size=1, max_size=4),
    st.integers(1, 100),
)
def test_a_run_ends_soon_after_the_best_that_all_servers_could_do_together(servers, pages):
    """However slow the slowest is: what it has in hand at the end is asked of others, too."""
    states = [ServerState(room) for room, _ in servers]
    took, done = simulated(states, pages, seconds=[seconds for _, seconds in servers])
    assert sum(done) == pages
    together = pages / sum(room / seconds for room, seconds in servers)
    quickest = min(seconds for _, seconds in servers)
    rooms = sum(room for room, _ in servers)
    # Besides: the first pages, when nothing is known, and the last, each of which is asked again within 2.5 answers.
    again = math.ceil(rooms / min(room for room, seconds in servers if seconds == quickest))
    assert took <= together + (4 + again) * quickest + max(seconds for _, seconds in servers) * (pages < 2 * rooms)


@settings(max_examples=10)
@given(st.lists(st.floats(1, 10), min_size=2, max_size=4))
def test_each_server_gets_pages_by_its_rate(seconds):
    _, done = simulated([ServerState(4) for _ in seconds], 300, seconds=seconds)
    rates = [1 / each for each in seconds]
    for count, rate in zip(done, rates, strict=True):
        assert count == pytest.approx(300 * rate / sum(rates), rel=0.1, abs=12)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 60))
def test_a_server_that_never_answers_keeps_no_page(room, pages):
    took, done = simulated([ServerState(room), ServerState(room)], pages, seconds=[None, 2.0])
    assert done == [0, pages]
    assert took <= 2.0 * pages / room + SILENT_SECONDS + 10


def test_pages_of_a_party_wait_for_the_server_that_has_it_and_others_go_past_them():
    servers = [ServerState(2), ServerState(2)]
    in_hand = [PageState(((0, NOW),), party="a"), PageState(((0, NOW),), party="a")]
    pages = [*in_hand, PageState(party="a"), PageState(party="b"), PageState(party="b"), PageState(party="b")]
    assert deal(servers, pages, NOW, NOW, {"a": 0}).asks == ((3, 1), (4, 1))


@pytest.mark.parametrize("state", [ServerState(0), ServerState(2, heard=NOW - 1000)], ids=["away", "silent"])
def test_pages_of_a_party_go_elsewhere_where_its_server_is_not_there_any_more(state):
    pages = [PageState(((0, NOW - 1000),), party="a")] if state.room else []
    asks = deal([state, ServerState(2)], [*pages, PageState(party="a")], NOW, NOW, {"a": 0}).asks
    assert asks[-1] == (len(pages), 1)


def test_a_page_of_a_party_does_not_wait_while_somebody_has_less_than_half_of_what_it_can_hold():
    pages = [PageState(((0, NOW),), party="a"), PageState(party="a"), PageState(party="a"), PageState(party="b")]
    assert deal([ServerState(1), ServerState(2)], pages, NOW, NOW, {"a": 0}).asks == ((3, 1),), (
        "who has no server first"
    )
    assert deal([ServerState(1), ServerState(2)], pages[:3], NOW, NOW, {"a": 0}).asks == ((1, 1),), (
        "and one to begin with"
    )


@pytest.mark.parametrize(("in_hand", "moved"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_who_has_half_of_what_it_can_hold_leaves_pages_to_the_server_that_has_their_party(in_hand, moved):
    own = [PageState(((0, NOW),), party=party) for party in "abc"]
    others = [PageState(((1, NOW),))] * in_hand
    waiting = [PageState(party=party) for party in "abcabc"]
    asks = deal([ServerState(3), ServerState(5)], [*own, *others, *waiting], NOW, NOW, dict.fromkeys("abc", 0)).asks
    assert asks[:moved] == tuple((3 + in_hand + number, 1) for number in range(moved))
