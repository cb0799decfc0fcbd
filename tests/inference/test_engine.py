""""""

import asyncio
import itertools
import math
import threading
import time

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from olmocr.errors import InputError, ServerError
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine, pages_that_pay, set_limits
from olmocr.inference.prompt import make_inputs
from olmocr.inference.row import GrowingText
from olmocr.model_folder import ModelFolder
from olmocr.page import PageImage, PageRequest, chat_prompt, parse_page_response
from olmocr.pipeline.repetition import is_looping
from olmocr.runtime.device import Device
from tests.conftest import CHECKPOINT, DEVICE
from tests.inference.asked import page_image, small
from tests.inference.random_models import random_model


@pytest.fixture(scope="module")
def engine(converted):
    with Engine(ModelFolder(converted("8bit")), DEVICE) as engine:
        yield engine


def ask(engine, **options):
    return asyncio.run(engine.ask(PageRequest(**{"image": page_image(), **options})))


def test_a_page_is_read(engine, truth):
    response = ask(engine)
    assert response.finish_reason == "stop"
    assert parse_page_response(response.text, "strict").natural_text == truth["sparse_14.pdf", 1]["natural_text"]


def test_tokens_are_counted_with_the_stop_token(engine):
    whole = ask(engine)
    assert ask(engine, max_tokens=whole.output_tokens) == whole
    cut = ask(engine, max_tokens=whole.output_tokens - 1)
    assert (cut.finish_reason, cut.text) == ("length", whole.text)


def test_an_answer_that_reaches_the_limit_says_so(engine):
    response = ask(engine, max_tokens=5)
    assert (response.finish_reason, response.output_tokens) == ("length", 5)
    assert response.text.startswith("---\npri")


def test_what_is_written_is_told_as_it_grows_in_the_callers_loop(engine):
    told, threads = [], set()

    def on_text(text):
        told.append(text)
        threads.add(threading.get_ident())

    whole = asyncio.run(engine.ask(PageRequest(page_image()), on_text))
    assert threads == {threading.get_ident()}
    assert len(set(told)) > 10
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(told))
    assert whole.text.startswith(told[-1])


def test_two_greedy_answers_are_the_same(engine):
    assert ask(engine, max_tokens=40, seed=1) == ask(engine, max_tokens=40, seed=2)


def test_a_sampled_answer_depends_on_its_seed_and_on_nothing_else(engine):
    answers = [ask(engine, temperature=8.0, max_tokens=12, seed=seed).text for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_does_not_depend_on_the_page_before(engine):
    alone = ask(engine, max_tokens=40)
    ask(engine, image=page_image("scan_18.pdf"), max_tokens=3)
    assert ask(engine, max_tokens=40) == alone


def test_requests_at_the_same_time_are_answered_each_for_itself(engine):
    async def both():
        requests = [PageRequest(page_image(name), max_tokens=40) for name in ("sparse_14.pdf", "scan_18.pdf")]
        return await asyncio.gather(*map(engine.ask, requests))

    first, second = asyncio.run(both())
    assert first == ask(engine, max_tokens=40)
    assert first.text != second.text


def test_an_image_of_impossible_proportions_is_refused_and_the_next_one_is_read(engine):
    with pytest.raises(InputError, match="cannot take this page's image"):
        ask(engine, image=PageImage(Image.new("RGB", (3000, 4))))
    assert ask(engine, max_tokens=5).output_tokens == 5


def test_the_prompt_has_the_same_token_ids_as_transformers_makes_with_the_text_first(loaded):
    request = PageRequest(page_image())
    inputs = make_inputs(loaded.processor, request)
    pixels = AutoImageProcessor.from_pretrained(CHECKPOINT)(images=[request.image.pixels], return_tensors="np")
    count = int(np.prod(pixels["image_grid_thw"][0])) // 4
    text = chat_prompt().replace("<|image_pad|>", "<|image_pad|>" * count)
    assert inputs.input_ids.tolist()[0] == AutoTokenizer.from_pretrained(CHECKPOINT).encode(text)
    assert inputs.image_grid_thw.tolist() == pixels["image_grid_thw"].tolist()
    np.testing.assert_allclose(np.array(inputs.pixel_values), pixels["pixel_values"], atol=1e-5)


async def while_being_written(engine, act, **options):
    """Ask for an endless answer, *act* on the task when it is under way, and return the task."""
    asked = asyncio.ensure_future(engine.ask(PageRequest(page_image(), temperature=9.0, max_tokens=10**6, **options)))
    await engine.ask(PageRequest(page_image("scan_18.pdf"), max_tokens=2))  # by now the other is being written, too
    assert not asked.done()
    act(asked)
    return asked


def test_leaving_the_engine_stops_the_answer_in_the_making(converted):
    async def leave_early():
        with Engine(ModelFolder(converted("8bit")), DEVICE) as engine:
            asked = await while_being_written(engine, lambda asked: None)
        with pytest.raises(ServerError, match="the model was closed before this page was answered"):
            await asked
        with pytest.raises(ServerError, match="closed"):
            await engine.ask(PageRequest(page_image()))

    asyncio.run(leave_early())


def memory_at_rest(enough=0):
    """Return MLX's memory when it no longer falls: the last rows are let go just after their answers are given.

    Where that takes long, wait until it is *enough*.
    """
    least = mx.get_active_memory()
    for looked in range(3000):
        if looked >= 20 and least < (enough or math.inf):
            break
        time.sleep(0.01)
        least = min(least, mx.get_active_memory())
    return least


def test_a_page_that_is_cancelled_gives_its_memory_back_and_the_next_ones_are_read(engine):
    async def cancel():
        asked = await while_being_written(engine, lambda asked: asked.cancel())
        with pytest.raises(asyncio.CancelledError):
            await asked

    ask(engine, image=page_image("scan_18.pdf"), max_tokens=20)
    alone = ask(engine, max_tokens=20)  # what is kept of both prompts is there before and after
    before = memory_at_rest()
    asyncio.run(cancel())
    assert ask(engine, max_tokens=20) == alone
    assert memory_at_rest(before + 200_000) < before + 200_000  # a row of this model takes 5 MB


def test_a_page_that_is_cancelled_while_it_waits_is_never_begun(engine):
    async def cancel():
        tasks = [asyncio.ensure_future(engine.ask(PageRequest(page_image(), max_tokens=3))) for _ in range(12)]
        await asyncio.sleep(0)
        for task in tasks[2:]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(cancel())
    assert [type(answer).__name__ for answer in answers] == ["ModelResponse"] * 2 + ["CancelledError"] * 10


@pytest.fixture(scope="module")
def nonsense(tmp_path_factory):
    """Yield an engine whose model writes nonsense, each token by the last one alone, so that it goes round in circles.

    If the prompt has a Z in it, its logits are no numbers.
    """
    (letter,) = AutoTokenizer.from_pretrained(CHECKPOINT).encode("Z", add_special_tokens=False)

    def change(tensors):
        dtype, shape, data = tensors["model.embed_tokens.weight"]
        rows = np.frombuffer(data, np.uint16).reshape(shape).copy()
        rows[letter] = 0x7FC0
        tensors = {**tensors, "model.embed_tokens.weight": (dtype, shape, rows.tobytes())}
        for name in ("model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"):
            dtype, shape, data = tensors[name]
            tensors[name] = (dtype, shape, bytes(len(data)))
        return tensors

    folder = random_model(tmp_path_factory.mktemp("random") / "model", change=change)
    with Engine(ModelFolder(folder), DEVICE, is_looping=is_looping) as engine:
        yield engine


def all_at_once(engine, requests):
    async def gather():
        return await asyncio.gather(*map(engine.ask, requests), return_exceptions=True)

    return asyncio.run(gather())


def test_a_page_whose_arithmetic_gives_no_numbers_fails_alone(nonsense):
    bad = small(prompt="Z", max_tokens=30)
    answers = all_at_once(nonsense, [small(1, max_tokens=30), bad, small(2, max_tokens=30)])
    assert isinstance(answers[1], InputError)
    assert "gave no numbers for this page" in str(answers[1])
    assert [answer.output_tokens for answer in (answers[0], answers[2])] == [30, 30]


def test_a_page_whose_image_is_refused_fails_alone(nonsense):
    answers = all_at_once(nonsense, [small(1, max_tokens=9), PageRequest(PageImage(Image.new("RGB", (3000, 4))))])
    assert answers[0].output_tokens == 9
    assert isinstance(answers[1], InputError)


def test_a_page_whose_prompt_is_longer_than_the_model_knows_positions_fails_alone(nonsense):
    answers = all_at_once(nonsense, [small(prompt="word " * 5000), small(1, max_tokens=9)])
    assert isinstance(answers[0], InputError)
    assert "the model has room for 4096" in str(answers[0])
    assert answers[1].output_tokens == 9


def test_an_answer_ends_where_the_model_knows_no_positions_any_more(nonsense):
    (answer,) = all_at_once(nonsense, [small(prompt="word " * 3950, temperature=1.0, max_tokens=9000)])
    assert answer.finish_reason == "length"
    assert answer.input_tokens + answer.output_tokens == 4096


def test_an_answer_that_goes_round_in_circles_is_ended(nonsense):
    looping, other = all_at_once(nonsense, [small(max_tokens=9000), small(1, temperature=1.0, max_tokens=200)])
    assert looping.finish_reason == "loop"
    assert is_looping(looping.text)
    assert not is_looping(looping.text[: len(looping.text) // 2])
    assert (other.finish_reason, other.output_tokens) == ("length", 200)


def test_letters_whose_bytes_are_in_several_tokens_do_not_hide_a_loop():
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    tokens = tokenizer.encode("🦊é ñ " * 40, add_special_tokens=False)
    growing = GrowingText(tokenizer)
    for count in range(0, len(tokens) + 1, 3):
        growing.update(tokens[:count])
    assert growing.update(tokens) == "🦊é ñ " * 40


def test_a_letter_is_told_when_all_of_its_bytes_are_there(loaded):
    tokenizer, letters = loaded.processor.tokenizer, "🦊é ñ漢"
    tokens = [tokenizer.convert_tokens_to_ids(bytes_to_unicode()[byte]) for byte in letters.encode()]
    growing, told = GrowingText(tokenizer), []
    for count in range(1, len(tokens) + 1):
        growing.update(tokens[:count])
        told.append(growing.settled)
    assert list(dict.fromkeys(told)) == [letters[:end] for end in range(len(letters) + 1)]


def test_an_engine_after_another_has_its_thread_which_a_process_ends_without(tmp_path):
    def owners():
        return {thread.ident: thread.daemon for thread in threading.enumerate() if thread.name == "olmocr-mlx"}

    folder = ModelFolder(random_model(tmp_path / "model"))
    texts, first = [], {}
    for _ in range(2):
        with Engine(folder, DEVICE) as engine:
            texts.append(all_at_once(engine, [small(max_tokens=4)])[0].text)
        first = first or owners()
    assert texts[0] == texts[1]
    assert owners() == first
    assert all(first.values())


class Limited:
    """Keeps what limits it is given, by the names that MLX's own functions have."""

    def __init__(self):
        self.limits = {}

    def device_info(self):
        return {"max_recommended_working_set_size": 12 << 30, "memory_size": 16 << 30}

    def __getattr__(self, name):
        assert callable(getattr(mx, name)), "MLX has none of that name"
        return lambda nbytes: self.limits.update({name: nbytes})


FLAT = Costs(dict.fromkeys((1, 8, 16, 32, 64), 1.0))
STEEP = Costs({8: 1.0, 16: 1.4, 32: 2.8, 64: 5.6})


@pytest.mark.parametrize(
    ("costs", "tokens", "expected"),
    [(None, 1 << 30, 8), (FLAT, 1 << 30, 32), (STEEP, 1 << 30, 16), (FLAT, 2 * 16 * 3072, 16), (FLAT, 1000, 8)],
)
def test_as_many_pages_are_written_at_once_as_pay_on_a_gpu_and_have_room(costs, tokens, expected):
    assert pages_that_pay(costs, tokens) == expected


def test_an_engine_tells_how_many_pages_it_writes_at_once(engine):
    assert engine.most_pages >= 1


def test_on_metal_memory_is_wired_and_bounded_and_elsewhere_left_to_mlx():
    mac, other = Limited(), Limited()
    set_limits(Device("metal", None, "0"), mac)
    set_limits(Device("cuda", None, "0"), other)
    assert mac.limits == {"set_wired_limit": 12 << 30, "set_memory_limit": 12 << 30, "set_cache_limit": 3 << 29}
    assert other.limits == {}
