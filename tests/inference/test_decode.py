import asyncio
import json
from concurrent.futures import Future

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from olmocr.errors import InputError
from olmocr.inference.byte_cache import Kept
from olmocr.inference.decode import BatchLimits, Counts, Scheduler, decode
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine
from olmocr.inference.model import load_model
from olmocr.inference.prompt import make_inputs
from olmocr.inference.row import Asked, Generation
from olmocr.inference.sampling import NOT_FINITE, Draw, choose
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest
from tests.conftest import DEVICE, PAGES
from tests.inference.random_models import random_model
from tests.inference.test_engine import page_image

TOKEN_BYTES = 2 * 32 * 4
"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model"))


def picture(number, size=(56, 84)):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return PageImage(Image.fromarray(pixels))


def request(number, **options):
    return PageRequest(picture(number), seed=number, **{"temperature": 1.0, "max_tokens": 40, **options})


def together(engine, requests, pauses=()):
    """Ask for all *requests*; before each of the first ones, let the event loop run so many times."""

    async def gather():
        tasks = []
        for number, each in enumerate(requests):
            for _ in range(pauses[number] if number < len(pauses) else 0):
                await asyncio.sleep(0.001)
            tasks.append(asyncio.ensure_future(engine.ask(each)))
        return await asyncio.gather(*tasks)

    return asyncio.run(gather())


def alone(engine, requests):
    return [asyncio.run(engine.ask(each)) for each in requests]


MIXED = [
    request(number, temperature=temperature, max_tokens=most, guided=number % 3 == 0)
    for number, (temperature, most) in enumerate(
        [(0.0, 40), (1.0, 90), (0.0, 7), (0.5, 60), (2.0, 25), (0.0, 90), (1.0, 1), (0.8, 60), (0.0, 33), (1.0, 50)]
    )
]


@pytest.mark.parametrize("pauses", [(), (0, 3, 9, 1, 4)])
def test_pages_of_any_temperature_seed_length_and_guidance_are_answered_in_a_batch_as_alone(folder, pauses):
    with Engine(folder, DEVICE, most_pages=4, drafted_pages=0) as engine:
        assert together(engine, MIXED, pauses) == alone(engine, MIXED)


def test_pages_that_are_written_together_share_passes(folder):
    with Engine(folder, DEVICE, most_pages=8, drafted_pages=0) as engine:
        together(engine, [request(number) for number in range(8)])
        counts = engine.counts
    assert counts.tokens == 8 * 40
    assert counts.steps < 2 * 40 + 8


def test_a_prompt_is_read_in_steps_of_any_size_with_the_same_answer(folder):
    answers = []
    for step in (7, 64, 4096):
        with Engine(folder, DEVICE, prompt_step=step) as engine:
            answers += together(engine, [PageRequest(picture(1, (280, 420)), max_tokens=20)])
    assert answers[0].input_tokens > 200
    assert answers[0] == answers[1] == answers[2]


def test_others_go_on_while_a_long_prompt_is_read(folder):
    limits = BatchLimits(2, 10_000 * TOKEN_BYTES, prompt_step=16, drafted_pages=0)
    scheduler = Scheduler(load_model(folder, DEVICE), limits, None)
    first = Asked(request(1, max_tokens=3000), Future())
    long = Asked(PageRequest(picture(3, (560, 840)), max_tokens=1), Future())  # read in more than 20 steps
    scheduler.add(first)
    while not scheduler.counts.tokens:
        scheduler.advance()
    before = scheduler.counts.tokens
    scheduler.add(long)
    while not long.answer.done():
        scheduler.advance()
    assert scheduler.counts.tokens - before >= 20
    assert not first.answer.done()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A model that writes, whatever it is asked, `---\\n` `primary` `_language` `\\n`, and that again."""
    written = [198, 290, 342, 338, 198]  # a prompt ends with 198, a new line

    def change(tensors):
        def put(name, entries):
            _, shape, _ = tensors[name]
            values = np.zeros(shape, np.float32)
            for place in entries:
                values[place] = 1.0
            tensors[name] = ("F32", shape, values.tobytes())

        put("lm_head.weight", [(token, place) for place, token in enumerate(written[1:])])
        put("model.embed_tokens.weight", [(token, place) for place, token in enumerate(written[:-1])])
        put("model.norm.weight", [...])
        put("model.layers.0.self_attn.o_proj.weight", [])
        put("model.layers.0.mlp.down_proj.weight", [])
        return tensors

    return load_model(ModelFolder(random_model(tmp_path_factory.mktemp("chain") / "model", change=change)), DEVICE)


def finished(scheduler, *requests):
    """Answer *requests*; each is counted when it has ended."""
    pages = [Asked(each, Future()) for each in requests]
    for page in pages:
        page.answer.add_done_callback(scheduler.counts.count_end)
        scheduler.add(page)
    while not scheduler.is_idle:
        scheduler.advance()
    return [page.answer.result() for page in pages]


def test_passes_tokens_and_drafts_are_counted(chain):
    """Drafts are the usual front matter, which goes on with `: en`; they have at most what is left of the answer."""
    limits = BatchLimits(1, 10_000 * TOKEN_BYTES, 512, drafted_pages=1, costs=Costs({1: 1.0, 64: 1.6}))
    scheduler = Scheduler(chain, limits, None)
    short, long = finished(scheduler, PageRequest(picture(1), max_tokens=3), PageRequest(picture(2), max_tokens=6))
    assert short.tokens == (290, 342, 338)  # one pass: two tokens of a draft, and one behind it
    assert long.tokens == (290, 342, 338, 198, 290, 342)  # 3 of 5 were right, then 0 of 1, then there was no draft
    ids = make_inputs(chain.processor, PageRequest(picture(1))).input_ids[0].tolist()
    assert scheduler.counts == Counts(
        prompt_tokens=2 * (len(ids) - 1) - ids.index(chain.model.config.image_token_id),  # the text is read once
        steps=1 + 3,
        row_steps=1 + 3,
        tokens=3 + 6,
        drafts=1 + 2,
        drafted=2 + 6,
        accepted=2 + 3,
        ended_length=2,
    )
    assert scheduler.counts.steps_a_token == 4 / 9
    assert scheduler.counts.accepted_a_draft == 5 / 3


def test_a_page_that_is_sent_back_is_counted_once_for_each_time_and_its_passes_too(chain):
    limits = BatchLimits(2, 600 * TOKEN_BYTES, 512, drafted_pages=0, expected_tokens=1)
    scheduler = Scheduler(chain, limits, None)
    finished(scheduler, *(PageRequest(picture(number), max_tokens=200) for number in range(2)))
    counts = scheduler.counts
    assert (counts.sent_back, counts.ended_length, counts.drafts, counts.drafted, counts.accepted) == (1, 2, 0, 0, 0)
    assert counts.row_steps == counts.tokens > 2 * 200
    assert counts.steps < counts.row_steps


def test_pages_are_counted_by_how_they_ended():
    counts = Counts()
    for number, end in enumerate(("stop", "length", "loop", "time", "cancelled", InputError("no")), start=1):
        for _ in range(number):
            answer = Future()
            if end == "cancelled":
                answer.cancel()
            elif isinstance(end, str):
                answer.set_result(Generation("", (), end, 1))
            else:
                answer.set_exception(end)
            counts.count_end(answer)
    assert counts == Counts(ended_stop=1, ended_length=2, ended_loop=3, ended_time=4, cancelled=5, failed=6)
    assert (counts.steps_a_token, counts.accepted_a_draft) == (0, 0)


def test_pages_wait_where_there_is_no_memory_for_their_keys_and_values_and_all_are_answered(folder):
    requests = [request(number) for number in range(6)]
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        expected = alone(engine, requests)
    with Engine(folder, DEVICE, kv_budget=600 * TOKEN_BYTES, drafted_pages=0) as engine:
        assert together(engine, requests) == expected
        assert engine.counts.sent_back == 0
        assert engine.counts.steps > 2 * 40  # two at a time at the most: each may grow to 256 tokens


def test_answers_that_outgrow_the_memory_are_sent_back_and_written_again_the_same(folder):
    loaded = load_model(folder, DEVICE)
    requests = [request(number, max_tokens=200) for number in range(2)]
    limits = BatchLimits(4, 700 * TOKEN_BYTES, prompt_step=512, drafted_pages=0, expected_tokens=50)
    scheduler = Scheduler(loaded, limits, is_looping=lambda text: False)
    pages = [Asked(each, Future()) for each in requests]
    for page in pages:
        scheduler.add(page)
    while not scheduler.is_idle:
        scheduler.advance()
    assert scheduler.counts.sent_back == 1
    assert [page.answer.result() for page in pages] == [decode(loaded, each) for each in requests]


def test_a_page_that_fits_into_no_memory_is_refused(folder):
    with Engine(folder, DEVICE, kv_budget=256 * TOKEN_BYTES) as engine:
        assert together(engine, [request(1)])[0].output_tokens == 40
        with pytest.raises(InputError, match="the model has room for 256"):
            alone(engine, [PageRequest(picture(1, (560, 420)))])


def test_keys_and_values_stay_within_their_budget(folder):
    requests = [request(number, max_tokens=100) for number in range(8)]
    with Engine(folder, DEVICE, kv_budget=1000 * TOKEN_BYTES, drafted_pages=0) as engine:
        alone(engine, requests[:1])
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        together(engine, requests)
        together(engine, [request(number) for number in range(100, 112)])  # what is kept of these is bounded, too
        assert mx.get_active_memory() < before + 1000 * TOKEN_BYTES + 2_000_000  # and images' features


def test_a_page_that_is_asked_again_is_not_read_again(folder):
    with Engine(folder, DEVICE, prompt_step=32, drafted_pages=0) as engine:
        big = [PageRequest(picture(1, (560, 420)), temperature=1.0, seed=seed, max_tokens=3) for seed in (1, 2, 3, 1)]
        first = alone(engine, big[:1])
        read = engine.counts.prompt_tokens
        rest = alone(engine, big[1:])
        assert read > 300
        assert engine.counts.prompt_tokens == read
        assert rest[2] == first[0] != rest[0]


def test_the_text_before_the_image_is_read_once_for_all_pages(folder):
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        one, two = alone(engine, [request(1)])[0], request(2)
        read = engine.counts.prompt_tokens
        alone(engine, [two])
        assert engine.counts.prompt_tokens - read < one.input_tokens / 4


@pytest.mark.slow
def test_demo_pages_are_read_in_a_batch_as_alone_and_with_drafts_as_without(converted):
    """On a CPU in float32 there is no page with another token; 16-bit arithmetic may differ where two are as likely."""
    entries = json.loads((PAGES / "pages.json").read_text())
    requests = [PageRequest(page_image(entry["pdf"], entry["page"]), max_tokens=2000) for entry in entries]
    folder = ModelFolder(converted("8bit"))
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        expected = together(engine, requests)
    with Engine(folder, DEVICE, drafted_pages=0) as engine:
        assert alone(engine, requests[::4]) == expected[::4]
    drafted = [
        PageRequest(each.image, max_tokens=2000, draft_text=entry["natural_text"])
        for each, entry in zip(requests, entries, strict=True)
    ]
    with Engine(folder, DEVICE, most_pages=3, costs=Costs({1: 1.0, 64: 2.0})) as engine:
        assert together(engine, drafted) == expected
        assert engine.counts.steps_a_token < 0.3


def test_the_least_recently_used_value_goes_first():
    kept = Kept(10)
    for name in "abc":
        kept.put(name, name.upper(), 3)
    assert kept.get("a") == "A"
    kept.put("d", "D", 3)
    kept.put("too large", "E", 11)
    assert [kept.get(name) for name in ("a", "b", "c", "d", "too large")] == ["A", None, "C", "D", None]
    kept.shrink(3)
    assert [kept.get(name) for name in "acd"] == [None, None, "D"]


def test_a_token_is_drawn_as_often_as_softmax_says():
    logits = mx.broadcast_to(mx.array([[1.0, 0.0, 2.0, -1.0]]), (20000, 4))
    drawn = np.array(choose(logits, [Draw(2.0, seed, index) for seed in range(200) for index in range(100)]))
    expected = np.exp(np.array([1.0, 0.0, 2.0, -1.0]) / 2)
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), expected / expected.sum(), atol=0.012)


def test_a_broken_row_of_logits_is_told_from_the_others_and_what_is_not_allowed_is_not_chosen():
    logits = mx.array([[0.0, 3.0, 1.0], [float("nan"), 1.0, 2.0], [0.0, 3.0, 1.0]])
    allowed = mx.array([[True] * 3, [True] * 3, [True, False, True]])
    draws = [Draw(0.0, 0, 0)] * 3
    assert choose(logits, draws, allowed).tolist() == [1, NOT_FINITE, 2]
