"""The state of several servers, and their pages -> which server gets which page next; pure.

Times are in seconds, all of one clock. Each page goes to the server that would finish it first. A page also goes to a
second server if that one would probably finish sooner. This happens at the end of a run, when no other page waits, or
when the first server has been silent for long.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

USUAL_ROOM = 8
"""How many pages to send to a server at once if neither the server nor the user sets a limit."""

SILENT_SECONDS = 60.0
"""A server with pages in hand counts as silent after this time without an answer; its pages may go to others, too."""

_SILENT_ANSWERS = 4.0  # it counts as silent only after this many times its usual answer time, if that is longer
_WORTH = 1.25  # a second request must gain at least this many times the second server's usual answer time,
_LEAST_GAIN = 1.0  # and at least this many seconds
_LULL = 0.25  # of an answer's time without a new page shows that the pages in hand are the last ones
_NEWEST = 0.2  # the weight of the newest answer in a server's usual answer time
_MOST_COPIES = 2


def usual(seconds: float | None, newest: float) -> float:
    """Update a server's usual answer time, in seconds, with one that took *newest*: a moving average."""
    return newest if seconds is None else seconds + _NEWEST * (newest - seconds)


def usual_at_least(seconds: float | None, waited: float) -> float:
    """Update it after an abandoned request, whose answer would have taken longer than the time *waited*."""
    return usual(seconds, waited) if seconds is None or waited > seconds else seconds


@dataclass(frozen=True)
class ServerState:
    """A server: how many pages it may have in hand (0 if it is away), and when it last answered.

    *seconds* is the usual time of one answer, None before the first. It gives the server's rate: by Little's law
    (https://doi.org/10.1287/opre.9.3.383), a server with *room* pages in hand answers *room* / *seconds* per second.
    """

    room: int
    seconds: float | None = None
    heard: float = 0.0


@dataclass(frozen=True)
class PageState:
    """A page that waits for an answer: which servers have it, since when, and which servers cannot answer it.

    Pages of one *party* go to the same server as long as it is there. If they have to wait for it, they go to another
    server that is less than half full. A page whose party is None may go to any server.
    """

    asked: tuple[tuple[int, float], ...] = ()
    refused_by: frozenset[int] = frozenset()
    party: Hashable = None


_NOWHERE: Mapping[Hashable, int] = MappingProxyType({})


@dataclass(frozen=True)
class Deal:
    """Which page goes to which server, as indices into the lists of pages and servers.

    If no page is sent now, there may be more to do at the time *look_again*.
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
    """Return which of *pages* to send to which of *servers* now.

    Args:
        servers: the state of each server.
        pages: the pages without an answer; the first is the most urgent.
        now: the time.
        last_page: when the newest of all pages came.
        homes: the server that last got a page of each party.
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
    """Return whether a server that has had a page in hand since *oldest* has been silent for long."""
    return oldest is not None and now >= max(oldest, server.heard) + _patience(server)


def done_in(in_hand: int, seconds: float, room: int) -> float:
    """Return in how many seconds a server, at its rate, would finish the pages *in_hand* and one more."""
    return (in_hand + 1) * seconds / room


def _taken(page: PageState) -> set[int]:
    """Return the servers that cannot get a page, since they have it in hand or refused it."""
    return {at for at, _ in page.asked} | page.refused_by


def _patience(server: ServerState) -> float:
    return max(SILENT_SECONDS, _SILENT_ANSWERS * (server.seconds or 0.0))


def _first_questions(table: _Table, pages: Sequence[PageState]) -> tuple[list[tuple[int, int]], bool]:
    """Return who gets the pages that are with no server or only with silent ones, and whether some have to wait."""
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
    """Return which pages are worth a second request, and when others may become so."""
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
    """The servers and their pages, while pages are handed out. *free* is a heap of the servers with room."""

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
        """Begin to hand out pages, after all pages that servers already have were put."""
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
        """Yield the times at which servers with pages in hand will count as silent."""
        for server, oldest in zip(self.servers, self.oldest, strict=True):
            if oldest is not None and not is_silent(server, oldest, self.now):
                yield max(oldest, server.heard) + _patience(server)

    def given_to_the_soonest(self, page: PageState) -> int | None:
        """Give *page* to the server that would finish it first, by its rate; return None if no server has room.

        If its party has a server that is there, only that server can get the page, and only if it has room.
        """
        home = self.home_of(page)
        if home is None:
            return self._given(page, self._pop_free(_taken(page)))
        return self._given(page, home if self._has_room(home) else None)

    def given_to_an_idle_one(self, page: PageState) -> int | None:
        """Give *page*, whose party's server has no room, to another server that is less than half full, if any."""
        taken = _taken(page)
        self.free = [each for each in self.free if self._has_room(each[1])]
        idle = (at for _, at in self.free if 2 * self.in_hand[at] < self.servers[at].room and at not in taken)
        return self._given(page, next(idle, None))

    def home_of(self, page: PageState) -> int | None:
        """Return the server that has pages of the same party, or None if it is not there."""
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
        """Return the server not in *taken* that would finish one more page first; this renews outdated entries."""
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
        """Return the servers with room and a known answer time, the quickest first."""
        return sorted((at for _, at in self.free if self.servers[at].seconds is not None), key=self.seconds)

    def quickest(self, page: PageState, quickest_first: list[int]) -> int | None:
        """Return the first of these servers that has room for *page*."""
        taken = _taken(page)
        return next((at for at in quickest_first if self._has_room(at) and at not in taken), None)

    def seconds(self, at: int) -> float:
        """Return a server's usual answer time; one that has not answered yet gets the average of the others."""
        seconds = self.servers[at].seconds
        return self.usual_seconds if seconds is None else seconds

    def left(self, page: PageState) -> float:
        """Return how much longer a page will take that one server has in hand.

        A late page is expected to take as long again as it is late, since few answers are long, and those very long.
        """
        ((at, since),) = page.asked
        return abs(self.seconds(at) - (self.now - since))

    def worth_from(self, page: PageState, at: int) -> float:
        """Return when a second request, to server *at*, becomes worthwhile: now, or once the first is late enough."""
        ((first, since),) = page.asked
        gain, due = max(_LEAST_GAIN, _WORTH * self.seconds(at)), since + self.seconds(first)
        return self.now if due - self.now >= gain else due + gain


def halved(room: float) -> float:
    """Return a server's room after it was away or overloaded: half of *room*, and at least one page."""
    return max(1.0, room / 2)


def grown(room: float, most: int) -> float:
    """Return a server's room after an answer; it grows by one page for every *room* answers."""
    return min(float(most), room + 1 / room)
