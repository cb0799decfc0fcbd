"""Several servers, scripted in this process: each failure of theirs, at a gate where it matters when."""

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest
from PIL import Image

from olmocr.backends.client import ServerInfo
from olmocr.backends.fleet import PATIENCE, Fleet, why_apart
from olmocr.backends.server_list import NamedServer
from olmocr.errors import AnswerError, CheckpointError, InputError, ServerError, ServerUnavailableError
from olmocr.page import PageImage, PageRequest
from tests.clocks import run_skipping, skip_until
from tests.pipeline.doubles import answer

IMAGE = PageImage(Image.new("RGB", (4, 4)))
AWAY = ServerUnavailableError("it is away")


def page(number):
    return PageRequest(IMAGE, prompt=str(number))


class Server:
    """Does what its script says, step by step, the last for ever: raises, answers, or waits at a gate and answers.

    *found* is what is found when it is looked at, step by step: an error, or nothing. *asked* are the pages.
    """

    def __init__(self, name, *script, found=(None,), model="m", room=None, weights=None):
        self.url = f"http://{name}/v1"
        self.script = list(script or [answer()])
        self.found = list(found)
        self.model, self.room, self.weights = model, room, weights
        self.asked = []
        self.cancelled = []
        self.looks = 0
        self.open = self.most_at_once = 0

    def look(self):
        self.looks += 1
        fault = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if fault is not None:
            raise fault
        return ServerInfo(self.url, self.model, (self.model,), None, None, None, self.room, self.weights)

    async def ask(self, request):
        self.asked.append(request.prompt)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.open += 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            if isinstance(step, asyncio.Event):
                await step.wait()
                return answer(request.prompt)
        except asyncio.CancelledError:
            self.cancelled.append(request.prompt)
            raise
        finally:
            self.open -= 1
        if isinstance(step, BaseException):
            raise step
        return step


class Clock:
    """Only lets others run instead of waiting, and remembers how long it should have waited."""

    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)


class Held(Clock):
    """Waits until it is let go on."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await self.gate.wait()


def fleet_of(*servers, clock=None, **options):
    by_url = {server.url: server for server in servers}

    @contextlib.asynccontextmanager
    async def connect(named, model):
        server = by_url[named.url]

        async def signed(request):
            return replace(await server.ask(request), server=server.url)

        yield signed, server.look()

    async def look(named, model):
        return by_url[named.url].look()

    named = [NamedServer(server.url) for server in servers]
    return Fleet(named, connect=connect, look=look, sleep=(clock or Clock()).sleep, **options)


async def settle():
    """Let everything happen that can."""
    for _ in range(60):
        await asyncio.sleep(0)


def read(*servers, pages=1, **options):
    """Ask about pages side by side; return what came of each, and the fleet."""

    async def run():
        async with fleet_of(*servers, **options) as fleet:
            asks = [fleet.ask(page(number)) for number in range(pages)]
            return await asyncio.gather(*asks, return_exceptions=True), fleet

    return run_skipping(run())


def read_together(*servers, pages):
    """Do the same where no server answers before all have as many pages in hand as they get."""
    gate = asyncio.Event()
    for server in servers:
        server.script = [gate]

    async def run():
        async with fleet_of(*servers) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(pages)]
            await settle()
            gate.set()
            return await asyncio.gather(*asks), fleet

    return run_skipping(run())


def urls(answers):
    return [each.server if not isinstance(each, Exception) else each for each in answers]


def test_pages_are_shared_by_what_servers_say_that_they_can_hold_and_say_who_answered():
    small, large = Server("small", room=2), Server("large", room=6)
    answers, fleet = read_together(small, large, pages=8)
    assert sorted(urls(answers)) == [large.url] * 6 + [small.url] * 2
    assert (fleet.room, fleet.model) == (8, "m")
    assert fleet.counts()[small.url] == {"asked": 2, "answered": 2, "asked_second": 0, "went_away": 0, "room": 2}


def test_no_server_is_asked_for_more_pages_at_once_than_it_has_room_for():
    servers = [Server("a", room=3), Server("b", room=2)]
    read_together(*servers, pages=30)
    assert [server.most_at_once for server in servers] == [3, 2]


@pytest.mark.parametrize(("told", "given", "room"), [(None, None, 8), (3, None, 3), (500, None, 32), (3, 5, 5)])
def test_room_is_what_is_asked_for_or_told_within_bounds_or_the_usual_one(told, given, room):
    _, fleet = read(Server("a", room=told), room=given)
    assert fleet.room == room


def test_a_server_that_goes_away_is_left_out_and_its_pages_are_asked_elsewhere():
    gone = Server("gone", AWAY, found=[None, AWAY])
    there = Server("there")

    async def run():
        clock = Held()
        async with fleet_of(gone, there, room=2, clock=clock) as fleet:
            answers = await asyncio.gather(*(fleet.ask(page(number)) for number in range(20)))
        return answers, fleet.counts(), clock.waits

    answers, counts, waits = run_skipping(run())
    assert urls(answers) == [there.url] * 20
    assert len(gone.asked) == 2, "those that were in its hands, and no more"
    assert counts[gone.url] == {"asked": 2, "answered": 0, "asked_second": 0, "went_away": 1, "room": 2}
    assert len(waits) == 1


def test_a_server_that_comes_back_answers_one_page_before_it_gets_more(caplog):
    caplog.set_level(logging.INFO)
    gate = asyncio.Event()
    back = Server("back", AWAY, AWAY, gate, answer())
    other = Server("other", gate, gate, answer())

    async def run():
        async with fleet_of(back, other, room=2) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(8)]
            await settle()
            on_trial = list(back.asked)
            gate.set()
            answers = await asyncio.gather(*asks)
        return on_trial, answers

    on_trial, answers = run_skipping(run())
    assert len(on_trial) == 3, "two that it did not answer, and one when it was back"
    assert urls(answers).count(back.url) >= 2
    assert "it is away; it is left out, and tried again in" in caplog.text
    assert f"{back.url} answers again" in caplog.text


def test_a_server_is_tried_again_with_growing_pauses_or_when_it_asks_for_it():
    busy = ServerUnavailableError("busy", retry_after=17.0)
    gone = Server("gone", AWAY, found=[None, AWAY, AWAY, AWAY, busy, AWAY, None])
    clock = Clock()
    gate = asyncio.Event()

    async def run():
        async with fleet_of(gone, Server("there", gate), room=1, clock=clock) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(2)]
            while gone.looks < 7:
                await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*asks)

    run_skipping(run())
    whole = [int(wait) for wait in clock.waits[:6]]
    assert whole == [1, 2, 4, 8, 17, 32]


def test_pages_wait_while_all_are_away():
    servers = [Server(name, AWAY, AWAY, answer(), found=[None, AWAY, None]) for name in "abc"]
    answers, _ = read(*servers, pages=9, room=1)
    assert not [each for each in urls(answers) if isinstance(each, Exception)]


def test_when_all_are_away_for_long_every_page_that_waits_is_told_so_and_later_ones_are_waited_for_anew():
    servers = [Server(name, AWAY, found=[None, AWAY]) for name in "ab"]
    clock = Clock()

    async def run():
        async with fleet_of(*servers, room=1, clock=clock) as fleet:
            first = await asyncio.gather(*(fleet.ask(page(number)) for number in range(5)), return_exceptions=True)
            looks = [server.looks for server in servers]
            fault = fleet.fault()
            later = await asyncio.gather(fleet.ask(page(9)), return_exceptions=True)
            return first, looks, fault, later, [server.looks for server in servers]

    first, looks, fault, later, more = run_skipping(run())
    assert [str(each) for each in first] == ["it is away"] * 5
    assert all(isinstance(each, ServerUnavailableError) for each in [*first, *later, fault])
    assert all(PATIENCE <= each <= 2 * PATIENCE for each in looks)
    assert all(after >= before + PATIENCE - 1 for before, after in zip(looks, more, strict=True))


def test_a_page_that_comes_when_all_have_been_away_for_long_is_waited_for():
    servers = [Server(name, AWAY, AWAY, answer(), found=[None, *[AWAY] * 20, None]) for name in "ab"]

    async def run():
        async with fleet_of(*servers, room=1) as fleet:
            with contextlib.suppress(ServerUnavailableError):
                await fleet.ask(page(0))
            while servers[0].looks < 18:
                await asyncio.sleep(0)
            return await fleet.ask(page(1))

    assert run_skipping(run()).server in {server.url for server in servers}


def test_while_a_server_is_there_nothing_is_amiss():
    _, fleet = read(Server("gone", found=[AWAY]), Server("there"))
    assert fleet.fault() is None


def test_a_server_that_is_away_at_the_start_is_used_when_it_comes():
    late = Server("late", found=[AWAY, AWAY, None])
    gate = asyncio.Event()

    async def run():
        async with fleet_of(late, Server("there", gate), room=1) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(3)]
            while len(late.asked) < 2:
                await asyncio.sleep(0)
            gate.set()
            return await asyncio.gather(*asks)

    assert late.url in urls(run_skipping(run()))


def test_where_none_is_there_at_the_start_nothing_begins():
    with pytest.raises(ServerUnavailableError, match="a is away; b is away"):
        read(*(Server(name, found=[ServerUnavailableError(f"{name} is away")]) for name in "ab"))


def test_servers_with_other_models_are_named_and_nothing_begins():
    servers = [Server("a", model="x"), Server("b", model="y"), Server("c", model="x")]
    with pytest.raises(ServerError) as caught:
        read(*servers)
    assert str(caught.value) == (
        "the servers do not have the same model: x at http://a/v1, http://c/v1; y at http://b/v1; name one that all "
        "have with `model`"
    )
    assert not isinstance(caught.value, ServerUnavailableError)
    assert [server.asked for server in servers] == [[], [], []]


def test_servers_with_other_weights_under_the_same_name_are_named():
    servers = [Server("a", weights="safetensors 111"), Server("b", weights="safetensors 222"), Server("c")]
    with pytest.raises(ServerError, match="different weights of the model m: 111 at http://a/v1; 222 at http://b/v1"):
        read(*servers)


def test_hashes_of_different_things_are_not_compared():
    infos = [ServerInfo("u", "m", ("m",), None, None, None, None, f"{what} 1{what}") for what in ("a", "b")]
    assert why_apart(infos) is None
    assert why_apart([]) is None


@pytest.mark.parametrize(
    "refusal", [ServerError("it refuses the API key"), ServerError("it does not have the model m")], ids=str
)
def test_a_server_that_cannot_be_used_at_the_start_ends_it_all(refusal):
    with pytest.raises(ServerError, match=str(refusal)):
        read(Server("a"), Server("b", found=[refusal]))


def test_all_who_cannot_be_used_are_told_at_once():
    with pytest.raises(ServerError, match="a has no such model; c has no such model"):
        read(
            *(
                Server(name, found=[ServerError(f"{name} has no such model")] if name != "b" else [None])
                for name in "abc"
            )
        )


def test_a_server_that_comes_back_with_another_model_is_left_out_for_good(caplog):
    changed = Server("changed", AWAY)
    there = Server("there")

    async def run():
        async with fleet_of(changed, there, room=1) as fleet:
            changed.model = "other"
            return await asyncio.gather(*(fleet.ask(page(number)) for number in range(9)))

    assert urls(run_skipping(run())) == [there.url] * 9
    assert "other at http://changed/v1" in caplog.text
    assert "http://changed/v1 is left out from now on" in caplog.text
    assert len(changed.asked) == 1


def test_a_server_that_loses_its_model_is_left_out_for_good_and_its_page_is_asked_elsewhere():
    lost, there = Server("lost", ServerError("no such model")), Server("there")
    answers, _ = read(lost, there, pages=9, room=1)
    assert urls(answers) == [there.url] * 9
    assert (len(lost.asked), lost.looks) == (1, 1)


def test_when_all_are_left_out_for_good_pages_are_told_so():
    answers, _ = read(*(Server(name, ServerError(f"{name} has no model")) for name in "ab"), pages=3, room=1)
    assert all(type(each) is ServerError for each in answers)
    assert "a has no model; b has no model" in str(answers[0])


@pytest.mark.parametrize("fault", [AnswerError("no text"), InputError("no image")], ids=["nonsense", "refusal"])
def test_a_page_that_one_server_cannot_answer_is_asked_of_another_before_that_is_believed(fault):
    bad, good = Server("bad", fault), Server("good")
    answers, _ = read(bad, good, pages=1, room=1)
    assert urls(answers) == [good.url]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_page_that_two_servers_or_all_there_are_cannot_answer_has_no_answer(count):
    servers = [Server(name, InputError("no image")) for name in "abc"[:count]]
    answers, _ = read(*servers, pages=1)
    assert str(answers[0]) == "no image"
    assert sum(len(server.asked) for server in servers) == min(count, 2)


def test_a_server_that_only_talks_nonsense_does_not_get_all_pages_for_being_quick(caplog):
    quick, good = Server("quick", AnswerError("no text")), Server("good")

    async def run():
        async with fleet_of(quick, good, room=1, clock=Held()) as fleet:
            return await asyncio.gather(*(fleet.ask(page(number)) for number in range(20)))

    assert urls(run_skipping(run())) == [good.url] * 20
    assert len(quick.asked) == 3
    assert "gave 3 invalid answers in a row, the last: no text" in caplog.text


def test_a_page_over_which_servers_go_away_again_and_again_is_given_up_and_the_others_are_read():
    class Poisoned(Server):
        async def ask(self, request):
            if request.prompt == "poison":
                self.asked.append(request.prompt)
                raise AWAY
            return await super().ask(request)

    servers = [Poisoned(name) for name in "ab"]

    async def run():
        async with fleet_of(*servers, room=1) as fleet:
            poison = asyncio.ensure_future(fleet.ask(page("poison")))
            answers = []
            while not poison.done():
                answers.append(await fleet.ask(page(len(answers))))
            return poison.exception(), answers

    fault, answers = run_skipping(run())
    assert isinstance(fault, ServerUnavailableError)
    assert sum(server.asked.count("poison") for server in servers) >= PATIENCE
    assert len(answers) >= PATIENCE


def test_the_last_page_is_asked_twice_the_first_answer_counts_and_the_other_is_cancelled():
    never, gate = asyncio.Event(), asyncio.Event()
    slow, quick = Server("slow", never), Server("quick", gate, answer())

    async def run():
        async with fleet_of(slow, quick, room=1) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(2)]
            await settle()
            asyncio.get_running_loop().skip(20)
            gate.set()
            await settle()
            assert ([each.done() for each in asks], quick.asked) == ([False, True], ["1"]), "20 s are not late yet"
            asyncio.get_running_loop().skip(30)
            answers = await asyncio.gather(*asks)
        return answers, fleet.counts()

    answers, counts = run_skipping(run())
    assert urls(answers) == [quick.url] * 2
    assert slow.cancelled == ["0"]
    assert counts[quick.url]["asked_second"] == 1
    assert counts[slow.url]["answered"] == 0


def test_the_slow_answer_counts_where_it_comes_first_after_all():
    first, second = asyncio.Event(), asyncio.Event()
    slow, quick = Server("slow", first), Server("quick", answer(), second)

    async def run():
        async with fleet_of(slow, quick, room=1) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(2)]
            await settle()
            asyncio.get_running_loop().skip(50)
            while len(quick.asked) < 2:
                await asyncio.sleep(0.001)
            first.set()
            return await asyncio.gather(*asks)

    assert urls(run_skipping(run())) == [slow.url, quick.url]
    assert quick.cancelled == ["0"]


def test_a_server_that_is_silent_for_long_keeps_no_page_though_others_wait_and_gets_none():
    never, gate = asyncio.Event(), asyncio.Event()
    stopped, there = Server("stopped", never, found=[None, AWAY]), Server("there", gate, answer())

    async def run():
        clock = Held()
        async with fleet_of(stopped, there, room=1, clock=clock) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(5)]
            await settle()
            asyncio.get_running_loop().skip(100)
            gate.set()
            answers = await asyncio.gather(*asks)
        return answers, fleet.counts(), clock.waits

    answers, counts, waits = run_skipping(run())
    assert urls(answers) == [there.url] * 5
    assert stopped.asked == stopped.cancelled == ["0"]
    assert counts[stopped.url]["went_away"] == 1
    assert len(waits) == 1, "it is tried again"


def test_a_page_that_nobody_waits_for_any_more_is_taken_back():
    gate = asyncio.Event()
    server = Server("a", gate, answer())

    async def run():
        async with fleet_of(server, Server("b", gate), room=1) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(3)]
            await settle()
            asks[0].cancel()
            return (await asyncio.gather(*asks[2:]))[0]

    assert run_skipping(run()).server == server.url
    assert server.cancelled == ["0"]


def test_what_nobody_foresaw_is_raised_where_the_page_is_asked_for():
    answers, _ = read(Server("a", ZeroDivisionError("a bug")), Server("b", ZeroDivisionError("a bug")))
    assert isinstance(answers[0], ZeroDivisionError)


def joining(*servers, clock=None):
    """Return a fleet of none, and a server's name by the server, to let it join."""
    fleet = fleet_of(*servers, clock=clock)
    names = {server: NamedServer(server.url) for server in servers}
    fleet._members.clear()
    return fleet, names


def test_servers_join_as_they_come_and_a_page_waits_for_the_first():
    late, later = Server("late", room=1), Server("later", asyncio.Event(), room=1)

    async def run():
        fleet, names = joining(late, later)
        async with fleet:
            fleet.join(names[later])
            await fleet.somebody()
            held = asyncio.ensure_future(fleet.ask(page(0)))
            await settle()
            waiting = asyncio.ensure_future(fleet.ask(page(1)))
            await settle()
            assert not waiting.done()
            fleet.join(names[late])
            answers = [await waiting]
            later.script[0].set()
            return [*answers, await held]

    assert urls(run_skipping(run())) == [late.url, later.url]


def test_one_that_joins_with_another_model_is_left_out_and_the_others_go_on(caplog):
    one, other = Server("one"), Server("other", model="another")

    async def run():
        fleet, names = joining(one, other)
        async with fleet:
            fleet.join(names[one])
            await fleet.somebody()
            fleet.join(names[other])
            await settle()
            return await asyncio.gather(*(fleet.ask(page(number)) for number in range(4)))

    assert urls(run_skipping(run())) == [one.url] * 4
    assert "do not have the same model" in caplog.text


def test_where_nobody_can_be_used_that_joins_what_is_wrong_with_the_model_is_raised_as_it_is():
    fault = CheckpointError("there is no such model")
    servers = [Server("a", found=[ServerError("it refuses")]), Server("b", found=[fault])]

    async def run():
        fleet, names = joining(*servers)
        async with fleet:
            for server in servers:
                fleet.join(names[server])
            await fleet.somebody()

    with pytest.raises(CheckpointError, match="there is no such model"):
        run_skipping(run())


def test_one_that_rests_finishes_what_it_has_in_hand_and_gets_nothing_new():
    gate = asyncio.Event()
    resting, other = Server("resting", gate, room=2), Server("other", gate, room=2)

    async def run():
        fleet, names = joining(resting, other)
        async with fleet:
            fleet.join(names[resting])
            await fleet.somebody()
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(6)]
            await settle()
            fleet.join(names[other])
            fleet.rest(names[resting])
            await settle()
            gate.set()
            return await asyncio.gather(*asks)

    answers = run_skipping(run())
    assert urls(answers) == [resting.url] * 2 + [other.url] * 4
    assert (resting.asked, resting.cancelled) == (["0", "1"], [])


def test_what_one_had_in_hand_that_is_dismissed_is_asked_of_others():
    gone, other = Server("gone", asyncio.Event(), room=2), Server("other", room=2)

    async def run():
        fleet, names = joining(gone, other)
        async with fleet:
            fleet.join(names[gone])
            await fleet.somebody()
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(2)]
            await settle()
            fleet.join(names[other])
            fleet.dismiss(names[gone], ServerError("its machine is gone"))
            return await asyncio.gather(*asks)

    assert urls(run_skipping(run())) == [other.url] * 2
    assert gone.cancelled == ["0", "1"]


def test_pages_of_one_party_go_to_one_server_while_that_is_there():
    servers = [Server(name, room=2) for name in "abc"]

    async def run():
        fleet, names = joining(*servers)
        async with fleet:
            for server in servers:
                fleet.join(names[server])
            await settle()
            asks = [fleet.ask(page(number), party=number % 3) for number in range(30)]
            together = urls(await asyncio.gather(*asks))
            home = next(server for server in servers if server.url == together[0])
            fleet.dismiss(names[home], ServerError("its machine is gone"))
            moved = urls(await asyncio.gather(*(fleet.ask(page(number), party=0) for number in range(2))))
            return together, moved

    together, moved = run_skipping(run())
    assert [len(set(together[party::3])) for party in range(3)] == [1, 1, 1]
    assert len(set(together)) == 3
    assert len(set(moved)) == 1
    assert moved[0] != together[0]


def test_what_is_asked_beside_pages_says_nothing_of_how_fast_a_server_is():
    server = Server("a")

    async def run():
        async with fleet_of(server) as fleet:
            await fleet.ask(page(0), is_page=False)
            return fleet._members[0].seconds, fleet.counts()[server.url]

    seconds, counts = run_skipping(run())
    assert (seconds, counts["asked"], counts["answered"]) == (None, 0, 0)


def test_of_many_servers_whoever_has_answered_gets_the_page_that_has_waited_longest():
    """With hundreds of pages not all are weighed against all servers each time: room is used as soon as it is free."""
    servers = [Server(str(number), asyncio.Event(), room=1) for number in range(100)]

    async def run():
        async with fleet_of(*servers) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(150)]
            await settle()
            before = [len(server.asked) for server in servers]
            gate, servers[70].script = servers[70].script[0], [asyncio.Event()]
            gate.set()
            await settle()
            after = list(servers[70].asked)
            for server in servers:
                server.script[0].set()
            return before, after, await asyncio.gather(*asks)

    before, after, answers = run_skipping(run())
    assert before == [1] * 100
    assert after[1:] == ["100"]
    assert len(answers) == 150
    assert max(server.most_at_once for server in servers) == 1


def test_of_many_servers_some_may_go_away_or_refuse_and_each_page_is_answered_once():
    servers = [Server(str(number), room=3) for number in range(60)]
    for number in (3, 30, 33):
        servers[number].script = [AWAY, AWAY, answer()]
    for number in (4, 40):
        servers[number].script = [AnswerError("that is none"), answer()]
    answers, fleet = read(*servers, pages=600)
    assert [type(each).__name__ for each in answers] == ["ModelResponse"] * 600
    assert sum(each["answered"] for each in fleet.counts().values()) == 600
    assert max(server.most_at_once for server in servers) <= 3


def test_of_many_servers_one_that_is_silent_for_long_keeps_no_page():
    never = Server("never", asyncio.Event(), room=2)
    gate = asyncio.Event()
    others = [Server(str(number), gate, room=2) for number in range(50)]

    async def run():
        async with fleet_of(never, *others) as fleet:
            asks = [asyncio.ensure_future(fleet.ask(page(number))) for number in range(200)]
            await settle()
            gate.set()
            await settle()
            await skip_until(asyncio.ensure_future(asyncio.wait(asks)), 20)
            return [task.result() for task in asks]

    answers = run_skipping(run())
    assert never.url not in urls(answers)
    assert len(never.asked) == 2, "those that it had from the first"
