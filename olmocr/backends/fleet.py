"""Several servers -> one ask: each page goes to a server with room, and no page is lost with its server."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Self, TypeVar

from olmocr.backends.backoff import pause
from olmocr.backends.client import ServerInfo
from olmocr.backends.faults import plain
from olmocr.backends.server_list import NamedServer
from olmocr.backends.sharing import (
    USUAL_ROOM,
    Deal,
    PageState,
    ServerState,
    deal,
    done_in,
    grown,
    halved,
    is_silent,
    usual,
    usual_at_least,
)
from olmocr.errors import AnswerError, InputError, OlmocrError, ServerError, ServerUnavailableError

log = logging.getLogger(__name__)

MOST_ROOM = 32
"""The most pages to send to a server at once, even if it reports more room: each page is a picture in memory."""

PATIENCE = 8
"""How many attempts each server gets, about two minutes, while all are away; also, how often a server may go away over
one page before that page is given up."""

_STRIKES = 3  # invalid answers in a row after which a server counts as away
_MANY = 64  # with more pages, not every answer compares each page with each server, which would take all the time
_PAUSE = 1e-4  # seconds per page until all are compared again; ten times as long while pages wait for room
_OPINIONS = 2  # servers that must find that a page cannot be answered

_MOST_HOMES = 100_000  # parties whose server is remembered; the oldest are forgotten

Q = TypeVar("Q")
"""The types of a request and its answer: mostly PageRequest and ModelResponse."""

A = TypeVar("A")

AskOne = Callable[[Q], Awaitable[A]]

Open = Callable[[NamedServer, str | None], AbstractAsyncContextManager[tuple[AskOne[Q, A], ServerInfo]]]
"""Connects to a server, which must have the model of this name, if one is named."""

Look = Callable[[NamedServer, str | None], Awaitable[ServerInfo]]
"""Looks at such a server again."""


def why_apart(infos: Iterable[ServerInfo]) -> str | None:
    """Return which servers differ in their model, by its name or the hash of its weights; None if they agree."""
    models: dict[str, list[str]] = defaultdict(list)
    weights: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for info in infos:
        models[info.model].append(info.url)
        if info.weights:
            what, _, digest = info.weights.partition(" ")
            weights[what][digest].append(info.url)
    if len(models) > 1:
        return f"the servers do not have the same model: {_places(models)}; name one that all have with `model`"
    for found in weights.values():
        if len(found) > 1:
            (model,) = models
            shown = {digest[:12]: urls for digest, urls in found.items()}
            return (
                f"the servers have different weights of the model {plain(model)}: {_places(shown)}; "
                "use the same weights on all"
            )
    return None


def _places(found: dict[str, list[str]]) -> str:
    return "; ".join(f"{plain(what)} at {', '.join(urls)}" for what, urls in found.items())


Status = Literal["ready", "on trial", "away", "resting", "left out"]


@dataclass
class _Member(Generic[Q, A]):
    """One of the servers, with the index *at*. *room* is how many pages it may have now, *most* the upper limit.

    *in_hand* contains its pages and when it got each, the oldest first; *queue* the pages that wait for it because it
    has others of their party.
    *in_a_row* counts its failures since its last answer, *in_vain* those since pages began to wait.
    """

    at: int
    server: NamedServer
    most: int
    room: float = 1.0
    ask: AskOne[Q, A] | None = None
    info: ServerInfo | None = None
    status: Status = "away"
    fault: OlmocrError | None = None
    seconds: float | None = None
    heard: float = 0.0
    in_a_row: int = 0
    in_vain: int = 0
    strikes: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    in_hand: dict[_AskedPage[Q, A], float] = field(default_factory=dict)
    queue: dict[_AskedPage[Q, A], None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.info.url if self.info else self.server.url

    @property
    def is_usable(self) -> bool:
        return self.status in ("ready", "on trial")

    @property
    def room_now(self) -> int:
        if self.status == "ready":
            return int(self.room)
        return 1 if self.status == "on trial" else 0

    def state(self) -> ServerState:
        return ServerState(self.room_now, self.seconds, self.heard)

    def is_silent(self, now: float) -> bool:
        """Return whether it has had pages, but has not answered, for long."""
        return is_silent(self.state(), next(iter(self.in_hand.values()), None), now)

    def begin(self, now: float) -> None:
        """Accept pages from *now* on, without limits."""
        self.status, self.room, self.heard = "ready", float(self.most), now

    def answered(self, seconds: float | None, now: float) -> None:
        """Record an answer, and how long it took if it was a page's; a server on trial has passed."""
        self.heard = now
        self.strikes = 0
        if seconds is not None:
            self.seconds = usual(self.seconds, seconds)
            self.tally["answered"] += 1
        if self.status == "on trial":
            self.status = "ready"
            log.info("%s answers again", self.url)
        if self.status == "ready":
            self.in_a_row = self.in_vain = 0
            self.room = grown(self.room, self.most)

    def failed(self, fault: ServerUnavailableError) -> None:
        self.status, self.fault = "away", fault
        self.room = halved(self.room)
        self.strikes = 0
        self.in_a_row += 1
        self.in_vain += 1


@dataclass
class _Copy:
    """A server's copy of a page: the task that waits for the answer, and since when the server has it."""

    task: asyncio.Task[None]
    since: float


@dataclass(eq=False)
class _AskedPage(Generic[Q, A]):
    """A page that waits for its answer. *copies* and *refusals* have the index of the server as their key."""

    request: Q
    answer: asyncio.Future[A]
    party: Hashable = None
    is_page: bool = True
    copies: dict[int, _Copy] = field(default_factory=dict)
    refusals: dict[int, OlmocrError] = field(default_factory=dict)
    failures: int = 0

    def state(self) -> PageState:
        asked = tuple((at, copy.since) for at, copy in self.copies.items())
        return PageState(asked, frozenset(self.refusals), self.party)


class Fleet(Generic[Q, A]):
    """Sends requests to several servers. Use it as an async context manager.

    A server that is away is left out and retried, with growing pauses; its pages go to the others. When it is back, it
    must answer one page before it gets more. A server that has another model or refuses its key is left out for good.
    While all are away, pages wait for about two minutes.

    Servers may also join later, rest (they get no new pages), and be dismissed.
    """

    def __init__(
        self,
        servers: Sequence[NamedServer],
        *,
        connect: Open[Q, A],
        look: Look,
        model: str | None = None,
        room: int | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Store the arguments; nothing is sent yet.

        Args:
            servers: the servers; if there are none, add some with :meth:`join` before the first request.
            connect: opens a connection to a server.
            look: looks again at a server that was connected before.
            model: the name of the model to request; None: the one that all servers have.
            room: pages at once for each server; None: what it reports, or :data:`USUAL_ROOM`.
            sleep: waits for a server that is away.
        """
        self._members: list[_Member[Q, A]] = [
            _Member(at, server, room or USUAL_ROOM) for at, server in enumerate(servers)
        ]
        self._room = room
        self._connect_to = connect
        self._look_at = look
        self._model = model
        self._sleep = sleep
        self._questions: dict[_AskedPage[Q, A], None] = {}  # in this order
        self._waiting: dict[_AskedPage[Q, A], None] = {}  # the questions that no server has in hand
        self._for_anybody: dict[_AskedPage[Q, A], None] = {}  # waiting questions that are not in a server's queue
        self._refused_pages: dict[_AskedPage[Q, A], None] = {}
        self._homes: dict[Hashable, int] = {}
        self._free: list[tuple[float, int]] = []  # a heap of servers, by when each would finish one more page
        self._perhaps_free: set[int] = set()  # the servers in this heap: all that have room, and others
        self._last_page = 0.0
        self._weigh_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()
        self._is_known = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._is_open = False

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(self._stack)
            if self._members:
                await self._connect_all()
            stack.pop_all()
        self._is_open = True
        for member in self._members:
            if not member.is_usable:
                self._bring_back_later(member)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._returning, *(copy.task for each in self._questions for copy in each.copies.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.__aexit__(*exception)

    def join(self, server: NamedServer) -> None:
        """Add one more server, which gets pages as soon as it is there."""
        member: _Member[Q, A] = _Member(len(self._members), server, self._room or USUAL_ROOM)
        self._members.append(member)
        self._keep(self._bring_in(member))

    def rest(self, server: NamedServer) -> None:
        """Send no new pages to a server; it finishes those that it has."""
        member = self._member_of(server)
        if member.status != "left out":
            member.status = "resting"
            self._weigh_all()

    def dismiss(self, server: NamedServer, why: OlmocrError) -> None:
        """Leave out a server for good, since it is gone; its pages go to others."""
        member = self._member_of(server)
        self._leave_out(member, why)
        for question in list(member.in_hand):
            copy = question.copies[member.at]
            self._is_back(question, member.at)
            copy.task.cancel()
        self._weigh_all()

    async def somebody(self) -> None:
        """Wait until a server is there.

        Raises:
            OlmocrError: no server is there, and none will come back.
        """
        await self._is_known.wait()
        if self._are_all_left_out():
            raise self._end()

    def _member_of(self, server: NamedServer) -> _Member[Q, A]:
        return next(member for member in self._members if member.server == server)

    def _are_all_left_out(self) -> bool:
        return all(member.status == "left out" for member in self._members)

    def _end(self) -> OlmocrError:
        """Return why no server is left; an error of the model itself comes first, since all servers share it."""
        faults = [member.fault for member in self._members if member.fault is not None]
        own = next((fault for fault in faults if not isinstance(fault, ServerError)), None)
        return own or ServerError("; ".join(dict.fromkeys(map(str, faults))) or "no server is left")

    async def _bring_in(self, member: _Member[Q, A]) -> None:
        """Connect to a server that joins."""
        try:
            await self._connect(member)
            if why := why_apart(self.infos()):
                raise ServerError(why)
        except ServerUnavailableError as error:
            if member.status == "away":
                member.failed(error)
                self._bring_back_later(member)
        except OlmocrError as error:
            self._leave_out(member, error)
        else:
            if member.status == "away":
                self._model = self._model or self.infos()[0].model
                member.begin(asyncio.get_running_loop().time())
                self._may_be_free(member.at)
                self._is_known.set()
        if self._are_all_left_out():
            self._is_known.set()
        self._weigh_all()

    @property
    def model(self) -> str:
        """The name of the model to request from all servers."""
        return self._model or ""

    @property
    def room(self) -> int:
        """How many pages all servers together may have in hand."""
        return sum(member.most for member in self._members)

    def infos(self) -> list[ServerInfo]:
        """Return what is known of all servers that have been there and are not left out for good."""
        return [each.info for each in self._members if each.info is not None and each.status != "left out"]

    def fault(self) -> ServerUnavailableError | None:
        """Return why no server is there now, or None if one is."""
        if any(member.is_usable for member in self._members):
            return None
        return ServerUnavailableError("; ".join(dict.fromkeys(str(each.fault) for each in self._members)))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of each server, by its address.

        ``asked`` and ``answered`` count pages, ``asked_second`` the pages that another server already had in hand, and
        ``went_away`` how often the server went away. ``room`` is how many pages it may have in hand.
        """
        names = ("asked", "answered", "asked_second", "went_away")
        return {
            member.url: {**{name: member.tally[name] for name in names}, "room": member.most}
            for member in self._members
        }

    async def ask(self, request: Q, party: Hashable = None, *, is_page: bool = True) -> A:
        """Answer *request*.

        Args:
            request: the request.
            party: requests of the same party go to the same server, as long as it is there.
            is_page: whether it is a page, whose time shows how fast a server is.

        Raises:
            ServerUnavailableError: no server answers for now.
            ServerError: no server is left.
            InputError: two servers refuse the page, or all servers that there are.
            AnswerError: two servers, or all that there are, sent something that is not an answer.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            for member in self._members:
                member.in_vain = 0
        question: _AskedPage[Q, A] = _AskedPage(request, loop.create_future(), party, is_page)
        self._questions[question] = None
        self._let_wait(question)
        self._last_page = loop.time()
        self._deal()
        try:
            return await question.answer
        finally:
            if question in self._questions:  # the caller no longer waits for it
                self._take_back(question)
                self._deal()

    async def _connect_all(self) -> None:
        found = await asyncio.gather(*map(self._connect, self._members), return_exceptions=True)
        faults = [each for each in found if isinstance(each, BaseException)]
        refusals = [each for each in faults if not isinstance(each, ServerUnavailableError)]
        for refusal in refusals:
            if len(refusals) == 1 or not isinstance(refusal, ServerError):
                raise refusal
        if refusals:
            raise ServerError("; ".join(map(str, refusals)))
        if why := why_apart(self.infos()):
            raise ServerError(why)
        now = asyncio.get_running_loop().time()
        for member, fault in zip(self._members, found, strict=True):
            if isinstance(fault, ServerUnavailableError):
                member.failed(fault)
            else:
                member.begin(now)
                self._may_be_free(member.at)
        if len(faults) == len(self._members):
            raise self.fault() or faults[0]
        self._model = self.infos()[0].model

    async def _connect(self, member: _Member[Q, A]) -> None:
        if member.ask is None:
            opening = self._connect_to(member.server, self._model)
            member.ask, info = await self._stack.enter_async_context(opening)
        else:
            info = await self._look_at(member.server, self._model)
        member.info = info
        member.most = self._room or min(info.room or USUAL_ROOM, MOST_ROOM)
        member.room = min(member.room, float(member.most))

    def _deal(self) -> None:
        """Send all pages that can be sent now, and look again when there may be more."""
        if not self._is_open:
            return
        self._give_up_what_nobody_can_answer()
        loop = asyncio.get_running_loop()
        if len(self._questions) > _MANY and loop.time() < self._weigh_at:
            self._hand_out(loop.time())
            self._look_again(self._weigh_at)
            return
        found = self._dealt(loop.time())
        while found.asks:
            questions = list(self._questions)
            for number, at in found.asks:
                self._send(questions[number], at, loop.time())
            found = self._dealt(loop.time())
        self._weigh_at = loop.time() + len(self._questions) * _PAUSE * (10 if self._waiting else 1)
        if found.look_again is None or len(self._questions) <= _MANY:
            self._look_again(found.look_again)
        else:
            self._look_again(max(found.look_again, self._weigh_at))

    def _weigh_all(self) -> None:
        """Compare all pages with all servers again, since servers came or went."""
        self._weigh_at = 0.0
        self._deal()

    def _let_wait(self, question: _AskedPage[Q, A]) -> None:
        """Record that no server has a page in hand, and which server it waits for."""
        self._waiting[question] = None
        home = None if question.party is None else self._homes.get(question.party)
        is_there = home is not None and self._members[home].is_usable and home not in question.refusals
        queue = self._members[home].queue if home is not None and is_there else self._for_anybody
        queue[question] = None

    def _wait_no_more(self, question: _AskedPage[Q, A]) -> None:
        if question in self._waiting:
            del self._waiting[question]
            home = None if question.party is None else self._homes.get(question.party)
            queues = [self._for_anybody, *([] if home is None else [self._members[home].queue])]
            for queue in queues:
                queue.pop(question, None)

    def _look_again(self, when: float | None) -> None:
        """Deal again at the time *when*; None cancels that."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if when is not None and self._timer.when() == when > loop.time():
                return
            self._timer.cancel()
        self._timer = None if when is None else loop.call_at(when, self._deal)

    def _hand_out(self, now: float) -> None:
        """Send waiting pages, in their order, as long as a server has room; each server takes from its queue first.

        Pages that wait for a server that is now away, while others have little to do, wait until all are compared.
        """
        for own in [at for at in self._perhaps_free if self._members[at].queue]:
            for question in list(self._members[own].queue):
                if not self._has_room(own, now):
                    break
                self._send(question, own, now)
        for question in list(self._for_anybody) if self._free else ():
            if question not in self._for_anybody:  # moved to a queue when another page of its party was sent
                continue
            refused = []
            at = self._soonest_done(now)
            while at is not None and at in question.refusals:
                refused.append(at)
                at = self._soonest_done(now)
            if at is not None:
                self._send(question, at, now)
                self._may_be_free(at)
            for each in refused:
                self._may_be_free(each)
            if not self._free:
                break

    def _may_be_free(self, at: int) -> None:
        """Add a server to those that are checked for room when a page waits."""
        if at not in self._perhaps_free:
            self._perhaps_free.add(at)
            heapq.heappush(self._free, (self._done_in(at), at))

    def _soonest_done(self, now: float) -> int | None:
        """Take, from the servers that may be free, the one that would finish one more page first; None if none is."""
        while self._free:
            when, at = heapq.heappop(self._free)
            self._perhaps_free.discard(at)
            if self._has_room(at, now):
                if self._done_in(at) <= when:
                    return at
                self._may_be_free(at)  # it has got pages since it was put into the heap
        return None

    def _has_room(self, at: int, now: float) -> bool:
        member = self._members[at]
        return len(member.in_hand) < member.room_now and not member.is_silent(now)

    def _done_in(self, at: int) -> float:
        member = self._members[at]
        seconds = self._usual_seconds() if member.seconds is None else member.seconds
        return done_in(len(member.in_hand), seconds, max(1, member.room_now))

    def _usual_seconds(self) -> float:
        known = [member.seconds for member in self._members if member.seconds is not None]
        return sum(known) / len(known) if known else 1.0

    def _dealt(self, now: float) -> Deal:
        servers = [member.state() for member in self._members]
        pages = [question.state() for question in self._questions]
        return deal(servers, pages, now, self._last_page, self._homes)

    def _send(self, question: _AskedPage[Q, A], at: int, now: float) -> None:
        member = self._members[at]
        member.tally["asked"] += question.is_page
        member.tally["asked_second"] += bool(question.copies)
        self._wait_no_more(question)
        if question.party is not None and not question.copies:
            self._move_home(question.party, at)
        member.in_hand[question] = now
        question.copies[at] = _Copy(asyncio.ensure_future(self._ask_at(question, at)), now)

    def _move_home(self, party: Hashable, at: int) -> None:
        """Record which server has a party; its pages that wait for another server now wait for this one."""
        before = self._homes.pop(party, None)
        self._homes[party] = at
        if before != at:
            queue = self._for_anybody if before is None else self._members[before].queue
            for question in [each for each in queue if each.party == party]:
                del queue[question]
                self._members[at].queue[question] = None
        if len(self._homes) > _MOST_HOMES:
            oldest = next(iter(self._homes))
            queue = self._members[self._homes.pop(oldest)].queue
            for question in [each for each in queue if each.party == oldest]:
                del queue[question]
                self._for_anybody[question] = None

    async def _ask_at(self, question: _AskedPage[Q, A], at: int) -> None:
        member, loop = self._members[at], asyncio.get_running_loop()
        started = loop.time()
        assert member.ask is not None
        try:
            try:
                answer = await member.ask(question.request)
            finally:
                self._is_back(question, at)
        except ServerUnavailableError as error:
            self._failed_over(question, member, error)
        except ServerError as error:
            self._leave_out(member, error)
        except (AnswerError, InputError) as error:
            self._refused(question, at, error)
        except Exception as error:
            self._settle(question, error)
        else:
            member.answered(loop.time() - started if question.is_page else None, loop.time())
            self._answer(question, answer)
        self._deal()

    def _is_back(self, question: _AskedPage[Q, A], at: int) -> None:
        """Record that a server no longer has a page in hand."""
        if question.copies.pop(at, None) is None:
            return
        self._members[at].in_hand.pop(question, None)
        self._may_be_free(at)
        if question in self._questions and not question.copies:
            self._let_wait(question)

    def _answer(self, question: _AskedPage[Q, A], answer: A) -> None:
        """Give a page its answer, the first that comes."""
        if question not in self._questions:
            return
        now = asyncio.get_running_loop().time()
        silent = [self._members[at] for at in question.copies if self._members[at].is_silent(now)]
        self._take_back(question)
        if question.answer.done():
            return
        question.answer.set_result(answer)
        for member in silent:
            self._went_away(member, ServerUnavailableError(f"{member.url} has not answered for a long time"))

    def _settle(self, question: _AskedPage[Q, A], why: Exception) -> None:
        """Give a page the error that explains why it has no answer."""
        if question in self._questions:
            self._take_back(question)
            if not question.answer.done():
                question.answer.set_exception(why)

    def _take_back(self, question: _AskedPage[Q, A]) -> None:
        """Take a page back from all servers."""
        self._wait_no_more(question)
        for pages in (self._questions, self._refused_pages):
            pages.pop(question, None)
        now = asyncio.get_running_loop().time()
        for at, copy in question.copies.items():
            member = self._members[at]
            member.in_hand.pop(question, None)
            self._may_be_free(at)
            member.seconds = usual_at_least(member.seconds, now - copy.since)
            copy.task.cancel()

    def _failed_over(self, question: _AskedPage[Q, A], member: _Member[Q, A], error: ServerUnavailableError) -> None:
        """Send a page elsewhere, after the others, since it may be the reason why its server went away."""
        question.failures += member.status == "ready"
        self._went_away(member, error)
        if question.failures >= PATIENCE:
            self._settle(question, error)
        elif question in self._questions:
            del self._questions[question]
            self._questions[question] = None
            if question in self._waiting:
                self._wait_no_more(question)
                self._let_wait(question)

    def _refused(self, question: _AskedPage[Q, A], at: int, error: OlmocrError) -> None:
        """Record that a server cannot answer a page. Another one may, and the fault may be the server's."""
        member = self._members[at]
        question.refusals[at] = error
        if question in self._questions:
            self._refused_pages[question] = None
        if len(question.refusals) >= _OPINIONS and not question.copies:
            self._settle(question, error)
        member.strikes += 1
        others = [each for each in self._members if each.is_usable and each is not member]
        if member.strikes >= _STRIKES and others:
            why = f"{member.url} gave {member.strikes} invalid answers in a row, the last: {error}"
            self._went_away(member, ServerUnavailableError(why))

    def _went_away(self, member: _Member[Q, A], error: ServerUnavailableError) -> None:
        if not member.is_usable:  # already recorded, for another of its pages
            return
        member.failed(error)
        member.tally["went_away"] += 1
        self._bring_back_later(member)

    def _leave_out(self, member: _Member[Q, A], error: OlmocrError) -> None:
        if member.status != "left out":
            member.status, member.fault = "left out", error
            log.warning("%s; %s is left out from now on", error, member.url)

    def _bring_back_later(self, member: _Member[Q, A]) -> None:
        self._keep(self._bring_back(member))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in the background until this fleet is closed."""
        task = asyncio.ensure_future(work)
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _bring_back(self, member: _Member[Q, A]) -> None:
        """Retry a server until it is there and has the same model as the others."""
        is_told = False
        while isinstance(fault := member.fault, ServerUnavailableError):  # that is, not dismissed meanwhile
            seconds = pause(member.in_a_row - 1, fault.retry_after)
            level = logging.DEBUG if is_told else logging.WARNING
            log.log(level, "%s; it is left out, and tried again in %.0f s", fault, seconds)
            is_told = True
            await self._sleep(seconds)
            try:
                await self._connect(member)
                if why := why_apart(self.infos()):
                    raise ServerError(why)
            except ServerUnavailableError as error:
                if member.status == "away":
                    member.failed(error)
            except OlmocrError as error:
                self._leave_out(member, error)
                break
            else:
                if member.status == "away":
                    member.status = "on trial"
                    member.heard = asyncio.get_running_loop().time()
                    self._may_be_free(member.at)
                    self._is_known.set()
                break
            self._deal()
        self._deal()

    def _give_up_what_nobody_can_answer(self) -> None:
        """Settle pages that all present servers refused, and all waiting pages if all servers were away for long."""
        if any(member.is_usable for member in self._members):
            for question in [each for each in self._refused_pages if not each.copies]:
                if all(member.at in question.refusals for member in self._members if member.is_usable):
                    self._settle(question, list(question.refusals.values())[-1])
        elif all(member.status == "left out" or member.in_vain >= PATIENCE for member in self._members):
            fault = None if self._are_all_left_out() else self.fault()
            for question in list(self._waiting):
                self._settle(question, fault or self._end())
