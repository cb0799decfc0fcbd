"""What several servers have shown, and which pages they have in hand -> who is asked about which page next; pure.

Times are in seconds, of any one clock. A page is asked once, of whoever would be done with it first. It is asked a
second time, of another server, where that is sooner done with it in all likelihood: when no other page waits, which
is at a run's end, or where the first server has been silent for long.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

USUAL_ROOM = 8
"""Pages that a server is asked at once, where neither it nor anybody else says how many."""

SILENT_SECONDS = 60.0
"""A server that has answered nothing for so long, though it was asked, is not waited for alone."""

_SILENT_ANSWERS = 4.0  # nor is one that has for so many times what an answer of its own takes, where that is longer
_WORTH = 1.25  # a second question is asked where it is sooner done by so much, and is never worth less than
_LEAST_GAIN = 1.0  # so many seconds
_LULL = 0.25  # of an answer's time must have passed without a new page: those that are in hand are the last ones
_NEWEST = 0.2  # the share of the newest answer in what a server has shown
_MOST_COPIES = 2


def usual(seconds: float | None, newest: float) -> float:
    """Return what an answer of a server takes, in seconds, after one that took *newest*: an average that forgets."""
    return newest if seconds is None else seconds + _NEWEST * (newest - seconds)


def usual_at_least(seconds: float | None, waited: float) -> float:
    """Return the same after a question that was given up: an answer would have taken longer than it was waited for."""
    return usual(seconds, waited) if seconds is None or waited > seconds else seconds


@dataclass(frozen=True)
class ServerState:
    """A server: how many pages it may have in hand, 0 where it is away, and when it last answered.

    *seconds* is what one answer takes there, None before the first. With the room it tells a rate: by Little's law
    (https://doi.org/10.1287/opre.9.3.383) a server with so many pages in hand answers *room* / *seconds* in a second.
    """

    room: int
    seconds: float | None = None
    heard: float = 0.0


@dataclass(frozen=True)
class PageState:
    """A page that waits for an answer: since when which servers have it in hand, and which of them cannot answer it.

    Pages of one *party* go to one server as long as that is there, except those that wait for it while another one has
    less than half of what it can hold. None is a page for itself.
    """

    asked: tuple[tuple[int, float], ...] = ()
    refused_by: frozenset[int] = frozenset()
    party: Hashable = None


_NOWHERE: Mapping[Hashable, int] = MappingProxyType({})


@dataclass(frozen=True)
class Deal:
    """Whom to ask about which page: places in the two lists.

    Where nobody is to be asked now, there may be more to do at the time *look_again*.
    """

    asks: tuple[tuple[int, int], ...]
    look_again: float | None = None


def deal(
    servers: Sequence[ServerState],
    pages: Sequence[PageState],
    now: float,
    last_page: float,
    homes: Mapping[Hashable, int] = _NOWHERE,
) -> Deal:
    """Return which of *servers* is asked about which of *pages* now.

    Args:
        servers: what is known of each.
        pages: those that have no answer yet; the first is the most urgent.
        now: the time.
        last_page: when the newest of all pages came.
        homes: which server was asked last about a page of each party.
    """
    table = _Table(servers, now, dict(homes))
    for page in pages:
        table.put(page)
    table.open()
    asks, is_waiting = _first_questions(table, pages)
    if asks:
        return Deal(tuple(asks))
    times = list(table.silences())
    if not is_waiting:
        asks, more = _second_questions(table, pages, last_page)
        times += more
    return Deal(tuple(asks), None if asks else min(times, default=None))


def is_silent(server: ServerState, oldest: float | None, now: float) -> bool:
    """Say whether a server that has had a page in hand since *oldest* has been silent for long."""
    return oldest is not None and now >= max(oldest, server.heard) + _patience(server)


def done_in(in_hand: int, seconds: float, room: int) -> float:
    """Return when a server would be done with one more page than it has *in_hand*, by its rate, in seconds."""
    return (in_hand + 1) * seconds / room


def _taken(page: PageState) -> set[int]:
    """Return who need not be asked about a page: who has it in hand, or refused it."""
    return {at for at, _ in page.asked} | page.refused_by


def _patience(server: ServerState) -> float:
    return max(SILENT_SECONDS, _SILENT_ANSWERS * (server.seconds or 0.0))


def _first_questions(table: _Table, pages: Sequence[PageState]) -> tuple[list[tuple[int, int]], bool]:
    """Return who is asked about which page that nobody has in hand, or a silent one, and whether some have to wait."""
    asks: list[tuple[int, int]] = []
    waiting: list[int] = []
    for number, page in enumerate(pages):
        if all(table.is_silent(at) for at, _ in page.asked) and len(page.asked) < _MOST_COPIES:
            at = table.given_to_the_soonest(page)
            if at is not None:
                asks.append((number, at))
            elif not page.asked:
                waiting.append(number)
    for number in waiting:
        at = table.given_to_an_idle_one(pages[number])
        if at is not None:
            asks.append((number, at))
    return asks, bool(waiting)


def _second_questions(
    table: _Table, pages: Sequence[PageState], last_page: float
) -> tuple[list[tuple[int, int]], list[float]]:
    """Return which pages are worth a second question, and when others may be."""
    alone = [number for number, page in enumerate(pages) if len(page.asked) == 1]
    alone.sort(key=lambda number: -table.left(pages[number]))
    asks, times = [], []
    quickest_first = table.free_and_known()
    for number in alone:
        page = pages[number]
        at = table.quickest(page, quickest_first)
        if at is None:
            continue
        when = max(table.worth_from(page, at), last_page + _LULL * table.seconds(at))
        if when <= table.now:
            table.give(at)
            asks.append((number, at))
        else:
            times.append(when)
    return asks, times


@dataclass
class _Table:
    """The servers with what they have in hand, while pages are dealt out. *free* is a heap of those that have room."""

    servers: Sequence[ServerState]
    now: float
    homes: dict[Hashable, int]
    in_hand: list[int] = field(default_factory=list)
    oldest: list[float | None] = field(default_factory=list)
    free: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.in_hand = [0] * len(self.servers)
        self.oldest = [None] * len(self.servers)
        known = [each.seconds for each in self.servers if each.seconds is not None]
        self.usual_seconds = sum(known) / len(known) if known else 1.0

    def put(self, page: PageState) -> None:
        for at, since in page.asked:
            self.in_hand[at] += 1
            before = self.oldest[at]
            self.oldest[at] = since if before is None else min(before, since)

    def open(self) -> None:
        """Begin to deal: all pages that servers have in hand were put."""
        places = range(len(self.servers))
        self.free = [(self._done_in(at), at) for at in places if self._has_room(at) and not self.is_silent(at)]
        heapq.heapify(self.free)

    def give(self, at: int) -> None:
        self.in_hand[at] += 1

    def _has_room(self, at: int) -> bool:
        return self.in_hand[at] < self.servers[at].room

    def is_silent(self, at: int) -> bool:
        return is_silent(self.servers[at], self.oldest[at], self.now)

    def silences(self) -> Iterator[float]:
        """Yield when servers that have pages in hand will have been silent for long."""
        for server, oldest in zip(self.servers, self.oldest, strict=True):
            if oldest is not None and not is_silent(server, oldest, self.now):
                yield max(oldest, server.heard) + _patience(server)

    def given_to_the_soonest(self, page: PageState) -> int | None:
        """Give *page* to who would be done first with it, by its rate; None where nobody has room.

        Where others of its party went to a server that is there, that is the one, or nobody while it has no room.
        """
        home = self.home_of(page)
        if home is None:
            return self._given(page, self._pop_free(_taken(page)))
        return self._given(page, home if self._has_room(home) else None)

    def given_to_an_idle_one(self, page: PageState) -> int | None:
        """Give *page*, whose party's server has no room, to one that has less than half of its room in hand, if any."""
        taken = _taken(page)
        self.free = [each for each in self.free if self._has_room(each[1])]
        idle = (at for _, at in self.free if 2 * self.in_hand[at] < self.servers[at].room and at not in taken)
        return self._given(page, next(idle, None))

    def home_of(self, page: PageState) -> int | None:
        """Return which server has pages of the same party, and is there; None where none is."""
        home = None if page.party is None or page.asked else self.homes.get(page.party)
        is_there = home is not None and self.servers[home].room > 0 and not self.is_silent(home)
        return home if is_there and home not in page.refused_by else None

    def _given(self, page: PageState, at: int | None) -> int | None:
        if at is not None:
            self.give(at)
            if page.party is not None:
                self.homes[page.party] = at
        return at

    def _pop_free(self, taken: set[int]) -> int | None:
        """Return who of the others would be done first with one more page; who has got one since is weighed anew."""
        passed_over, found = [], None
        while self.free and found is None:
            weighed, at = heapq.heappop(self.free)
            if not self._has_room(at):
                continue
            if weighed != self._done_in(at):
                heapq.heappush(self.free, (self._done_in(at), at))
            elif at in taken:
                passed_over.append((weighed, at))
            else:
                found = at
                passed_over.append((weighed, at))
        for each in passed_over:
            heapq.heappush(self.free, each)
        return found

    def _done_in(self, at: int) -> float:
        return done_in(self.in_hand[at], self.seconds(at), self.servers[at].room)

    def free_and_known(self) -> list[int]:
        """Return who has room and has shown how long an answer takes, the quickest first."""
        return sorted((at for _, at in self.free if self.servers[at].seconds is not None), key=self.seconds)

    def quickest(self, page: PageState, quickest_first: list[int]) -> int | None:
        """Return the first of these that has room for *page*."""
        taken = _taken(page)
        return next((at for at in quickest_first if self._has_room(at) and at not in taken), None)

    def seconds(self, at: int) -> float:
        """Return what an answer takes at a server; who has not shown that yet is taken to be as the others are."""
        seconds = self.servers[at].seconds
        return self.usual_seconds if seconds is None else seconds

    def left(self, page: PageState) -> float:
        """Return how much longer a page takes that one server has in hand.

        Past its usual time a page takes as much longer as it is late already: long answers are a few very long ones.
        """
        ((at, since),) = page.asked
        return abs(self.seconds(at) - (self.now - since))

    def worth_from(self, page: PageState, at: int) -> float:
        """Return from when on a second question to *at* is worth it: now, or once the first is too late."""
        ((first, since),) = page.asked
        gain, due = max(_LEAST_GAIN, _WORTH * self.seconds(at)), since + self.seconds(first)
        return self.now if due - self.now >= gain else due + gain


def halved(room: float) -> float:
    """Return the room that a server is given after it was away or overloaded: half, and at least one page."""
    return max(1.0, room / 2)


def grown(room: float, most: int) -> float:
    """Return its room after an answer: one page more when as many were answered as it had in hand."""
    return min(float(most), room + 1 / room)
