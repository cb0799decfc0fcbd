""""""

import asyncio
import base64
import io
import socket
import threading
from dataclasses import replace

import pytest
from PIL import Image

from olmocr.backends.client import ServerClient, connected, probe, server_url
from olmocr.backends.wire import LONGEST_TEXT
from olmocr.errors import ServerError, ServerUnavailableError, UsageError
from olmocr.page import FRONT_MATTER_REGEX, PAGE_PROMPT, PageRequest
from tests.backends.asked import READ, REQUEST, WHOLE, apis, ask, ask_server
from tests.backends.model_server import (
    TEXT,
    ModelServer,
    chat_body,
    chat_pieces,
    chat_stream,
    cut,
    events,
    fault,
    late,
    model_list,
    reset,
    responses_body,
    whole,
)
from tests.clocks import run_skipping


def asked(*, request=REQUEST, **options):
    """Return (path, headers, JSON) of what a server is sent."""
    with ModelServer(whole(WHOLE[options.get("api", "chat")]())) as server:
        ask_server(server, request, **options)
        return server.requests[0]


def test_chat_completions_asks_as_the_contract_says():
    path, _, body = asked()
    text, image = body["messages"][0]["content"]
    assert path == "/v1/chat/completions"
    assert text == {"type": "text", "text": PAGE_PROMPT}
    assert image["type"] == "image_url"
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("olmocr", 50, 0.2, 3)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_responses_asks_as_the_contract_says_and_has_nothing_stored():
    path, _, body = asked(api="responses")
    text, image = body["input"][0]["content"]
    assert path == "/v1/responses"
    assert text == {"type": "input_text", "text": PAGE_PROMPT}
    assert image["type"] == "input_image"
    assert (body["max_output_tokens"], body["temperature"], body["seed"], body["store"]) == (50, 0.2, 3, False)
    assert body["stream"] is True


@apis
def test_the_image_is_sent_as_the_pixels_that_it_is(api):
    body = asked(api=api)[2]
    image = body["messages"][0]["content"][1]["image_url"]["url"] if api == "chat" else None
    data = image or body["input"][0]["content"][1]["image_url"]
    kind, _, content = data.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).tobytes() == REQUEST.image.pixels.tobytes()


def test_the_key_is_a_bearer_token():
    assert asked(api_key="secret")[1]["authorization"] == "Bearer secret"
    assert "authorization" not in asked()[1]


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(UsageError) as caught:
        ServerClient("localhost", model="olmocr", api_key=key)
    assert key not in str(caught.value)


GUIDED = PageRequest(REQUEST.image, guided=True)


def test_a_guided_question_tells_vllm_the_expression_in_both_of_its_ways():
    body = asked(request=GUIDED, guide="vllm")[2]
    assert (body["guided_regex"], body["structured_outputs"]) == (FRONT_MATTER_REGEX, {"regex": FRONT_MATTER_REGEX})


@apis
def test_a_guided_question_tells_mlx_vlm_the_expression_as_a_schema(api):
    body = asked(request=GUIDED, guide="mlx-vlm", api=api)[2]
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == {"x-regex": FRONT_MATTER_REGEX}


@pytest.mark.parametrize(("request_", "guide"), [(REQUEST, "vllm"), (REQUEST, "mlx-vlm"), (GUIDED, None)])
def test_a_question_that_is_not_guided_or_cannot_be_is_sent_plain(request_, guide):
    assert not {"guided_regex", "structured_outputs", "response_format"} & set(asked(request=request_, guide=guide)[2])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:1234", "http://localhost:1234/v1"),
        ("http://localhost:1234/", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1/chat/completions", "http://localhost:1234/v1"),
        ("https://example.org/v1/openai/responses/", "https://example.org/v1/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_may_be_given_in_part_or_with_more(given, url):
    assert server_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["", "ftp://localhost", "http://", "localhost:port", "localhost:99999", "http://me:secret@host", "http://h/v1?k=1"],
)
def test_what_is_not_an_address_is_refused(given):
    with pytest.raises(UsageError, match="not the address of a model server") as caught:
        server_url(given)
    assert "secret" not in str(caught.value)
    assert "no reason given" not in str(caught.value)


def test_a_proxy_for_the_outside_world_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert ask(whole(chat_body())) == READ


def test_an_answer_that_takes_more_than_its_time_is_ended_where_it_is():
    with ModelServer(events(*chat_pieces(), end="hang")) as server:
        response = ask_server(server, replace(REQUEST, time_limit=1.0), timeout=60)
        assert server.hung_up.wait(30)
    assert (response.finish_reason, response.text) == ("time", TEXT)
    assert response.output_tokens == len(chat_pieces())


EMPTY = {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}


@pytest.mark.parametrize("begun", [[], [EMPTY]])
def test_time_that_a_question_waits_before_there_is_any_text_does_not_count(begun):
    waiting, is_over = threading.Event(), threading.Event()

    def wait():
        waiting.set()
        assert is_over.wait(60)

    async def run(server):
        async with ServerClient(server.url, model="olmocr", timeout=10_000) as client:
            asking = asyncio.create_task(client.ask(replace(REQUEST, time_limit=100.0)))
            while not waiting.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # what has begun is read
            asyncio.get_running_loop().skip(1000)
            is_over.set()
            return await asking

    with ModelServer(chat_stream(before=[*begun, wait])) as server:
        assert run_skipping(run(server)) == READ


def test_a_server_that_is_given_up_for_its_own_slowness_is_not_taken_for_an_answer_out_of_time():
    asked = replace(REQUEST, time_limit=5.0)
    with pytest.raises(ServerUnavailableError, match="no complete answer"):
        ask(events(*chat_pieces(), end="hang"), request=asked, timeout=0.1)


@apis
def test_an_answer_that_loops_is_not_waited_for(api):
    pieces = chat_pieces("ha " * 400)
    if api == "responses":
        pieces = [{"type": "response.output_text.delta", "delta": "ha ha "} for _ in range(200)]
    with ModelServer(events(*pieces, end="hang")) as server:
        response = ask_server(server, api=api, is_looping=lambda text: text.count("ha") > 100)
        assert server.hung_up.wait(30)
    assert response.finish_reason == "loop"
    assert 300 < len(response.text) <= 1200
    assert response.output_tokens > 40


def without(body, *names):
    """Return an answer's JSON without what it says under these names, wherever it stands."""
    if isinstance(body, list):
        return [without(each, *names) for each in body]
    kept = {name: value for name, value in body.items() if name not in names} if isinstance(body, dict) else body
    return {name: without(value, *names) for name, value in kept.items()} if isinstance(kept, dict) else kept


@pytest.mark.parametrize(
    ("step", "api"),
    [
        (whole(without(chat_body(), "finish_reason")), "chat"),
        (whole(without(responses_body(), "status")), "responses"),
        *(
            (whole(chat_body(finish_reason=said)), "chat")
            for said in (None, "", "STOP", " stop", "eos_token", "end_turn")
        ),
        *(
            (whole(responses_body(status=said, incomplete_details=None)), "responses")
            for said in (None, "", "Completed")
        ),
        (whole(responses_body(incomplete_details={})), "responses"),
        (chat_stream(finish_reason=None), "chat"),
        (chat_stream(finish_reason=""), "chat"),
        (events(*chat_pieces(), b"[DONE]"), "chat"),
        (events({"type": "response.output_text.done", "text": TEXT}, b"[DONE]"), "responses"),
        (events({"type": "response.output_text.delta", "delta": TEXT}, {"type": "response.completed"}), "responses"),
        (events({"type": "response.completed", "response": without(responses_body(), "status")}), "responses"),
    ],
)
def test_an_answer_that_does_not_say_how_it_ended_is_complete(step, api):
    answer = ask(step, api=api)
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize(
    ("step", "api"),
    [
        (whole(chat_body(finish_reason=None, usage=(100, 50))), "chat"),  # at the limit of 50 tokens
        (whole(chat_body(finish_reason="max_tokens")), "chat"),
        (whole(responses_body(status=None, incomplete_details={"reason": "max_output_tokens"})), "responses"),
        (whole(responses_body(status=None, output=[{"content": TEXT, "status": "incomplete"}])), "responses"),
        (events({"type": "response.incomplete", "response": responses_body(status=None)}), "responses"),
    ],
)
def test_an_answer_that_was_cut_and_does_not_say_so_at_the_usual_place_is_cut(step, api):
    assert ask(step, api=api).finish_reason == "length"


HALVES = [{"type": "text", "text": TEXT[:9]}, {"type": "thinking", "text": "hm"}, {"text": TEXT[9:]}]


@pytest.mark.parametrize(
    ("step", "api"),
    [
        (whole(chat_body(HALVES)), "chat"),
        (events({"choices": [{"delta": {"content": HALVES}, "finish_reason": "stop"}]}), "chat"),
        (events({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}), "chat"),
        (chat_stream(before=[{"choices": [{"delta": {"reasoning_content": "hm"}}]}, {"choices": []}]), "chat"),
        (whole({"choices": [{"message": {"content": None, "reasoning_content": TEXT}}]}), "chat"),
        (events({"choices": [{"delta": {"content": "", "reasoning": TEXT}}]}, b"[DONE]"), "chat"),
        (whole({"choices": [{"message": {"content": TEXT, "reasoning_content": "hm"}}]}), "chat"),
        (whole({"output": [{"type": "message", "content": TEXT}]}), "responses"),
        (whole({"output_text": "", "output": responses_body()["output"]}), "responses"),
        (whole({"choices": [{"message": {"content": TEXT}}]}, content_type="Text/Plain"), "chat"),
    ],
)
def test_the_text_is_found_wherever_servers_put_it(step, api):
    answer = ask(step, api=api)
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize(
    "usage", [None, [], "20", {"completion_tokens": None}, {"completion_tokens": -1}, {"completion_tokens": 10**400}]
)
def test_counts_that_are_none_count_as_nothing(usage):
    answer = ask(whole(chat_body() | {"usage": usage}))
    assert (answer.text, answer.input_tokens, answer.output_tokens) == (TEXT, 0, 0)


def test_halves_of_characters_are_joined_or_replaced_so_that_every_text_can_be_written():
    assert ask(whole(chat_body("a\ud83d\ude00b\udc00"))).text == "a😀b�"
    pieces = [{"choices": [{"delta": {"content": half}}]} for half in ("a\ud83d", "\ude00b")]
    assert ask(events(*pieces, b"[DONE]")).text == "a😀b"


@apis
def test_an_answer_that_is_longer_than_any_page_is_cut(api):
    answer = ask(whole(WHOLE[api]("x" * (LONGEST_TEXT + 1))), api=api)
    assert (len(answer.text), answer.finish_reason) == (LONGEST_TEXT, "length")


def test_a_stream_that_is_longer_than_any_page_is_not_waited_for():
    with ModelServer(events(*chat_pieces("x" * 2 * LONGEST_TEXT, 1 << 16), end="hang")) as server:
        answer = ask_server(server)
        assert server.hung_up.wait(30)
    assert (len(answer.text), answer.finish_reason) == (LONGEST_TEXT, "length")


def test_what_is_looked_at_of_a_long_stream_is_its_end_alone():
    looked_at = []
    text = "".join(f"{number} " for number in range(8000))

    def is_looping(tail):
        looked_at.append(len(tail))
        return tail.endswith("7999 ")

    with ModelServer(events(*chat_pieces(text, 200), b"[DONE]")) as server:
        ask_server(server, is_looping=is_looping)
    assert max(looked_at) == 1 << 14
    assert len(looked_at) <= len(text) / 256


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_server_that_is_not_there_is_unavailable():
    async def ask():
        async with ServerClient(f"127.0.0.1:{closed_port()}", model="olmocr") as client:
            await client.ask(REQUEST)

    with pytest.raises(ServerUnavailableError, match="is the server running"):
        asyncio.run(ask())


@pytest.mark.parametrize("step", [reset, cut(chat_body()), events(*chat_pieces(), end="reset")])
def test_a_server_that_dies_before_or_in_mid_answer_is_unavailable(step):
    with pytest.raises(ServerUnavailableError, match="broke off"):
        ask(step)


def test_a_server_that_is_too_slow_is_unavailable():
    is_given_up = threading.Event()
    with pytest.raises(ServerUnavailableError, match=r"no complete answer in 0\.1 s"):
        ask(late(is_given_up), timeout=0.1)
    is_given_up.set()


def test_a_page_that_takes_too_long_is_given_up_on_the_server_too():
    with ModelServer(events(*chat_pieces(), end="hang")) as server:
        with pytest.raises(ServerUnavailableError):
            ask_server(server, timeout=0.1)
        assert server.hung_up.wait(30)


def test_a_page_that_is_cancelled_is_given_up_on_the_server_too():
    async def run(server):
        async with ServerClient(server.url, model="olmocr") as client:
            asking = asyncio.create_task(client.ask(REQUEST))
            while not server.requests:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    with ModelServer(events(*chat_pieces(), end="hang")) as server:
        asyncio.run(run(server))
        assert server.hung_up.wait(30)


def look(server, **options):
    return asyncio.run(probe(server.url, **options))


def test_the_one_model_that_a_server_has_is_taken():
    with ModelServer(models=["some/model"]) as server:
        info = look(server)
    assert (info.model, info.kind, info.guide) == ("some/model", None, None)


def test_of_what_mlx_vlm_lists_the_loaded_model_is_taken():
    with ModelServer(models=[{"id": "on-disk", "loaded": False}, {"id": "here", "loaded": True}]) as server:
        assert look(server).model == "here"


def test_several_models_and_none_named_is_an_error_that_lists_them():
    with ModelServer(models=["a", "b"]) as server, pytest.raises(ServerError, match="`model`: a, b"):
        look(server)


def test_a_model_is_asked_for_by_its_exact_name_or_refused_with_a_list():
    with ModelServer(models=["a", *(f"m{n}" for n in range(20))]) as server:
        assert look(server, model="m7").model == "m7"
        with pytest.raises(ServerError, match=r"does not have the model olmocr; it has: a, m0.* and 13 more$"):
            look(server, model="olmocr")


def test_a_server_without_models_is_an_error():
    with ModelServer(models=[]) as server, pytest.raises(ServerError, match="no model loaded"):
        look(server)


@pytest.mark.parametrize("page", [{"hello": 1}, [], {"data": [1, {"id": 5}]}])
def test_something_other_than_a_list_of_models_is_not_a_crash(page):
    with ModelServer(pages={"/v1/models": page}) as server, pytest.raises(ServerError, match="no model"):
        look(server)


@pytest.mark.parametrize("page", [whole(b"<html>router</html>"), fault(404, "no models here"), fault(400), fault(418)])
def test_what_is_not_a_model_server_is_named(page):
    with (
        ModelServer(pages={"/v1/models": page}) as server,
        pytest.raises(ServerError, match="not a model server") as caught,
    ):
        look(server)
    assert not isinstance(caught.value, ServerUnavailableError)


def test_a_server_that_has_trouble_while_it_is_looked_at_is_unavailable():
    with ModelServer(pages={"/v1/models": fault(503)}) as server, pytest.raises(ServerUnavailableError):
        look(server)


def test_a_server_that_is_looked_at_through_another_address_is_not_followed():
    moved = whole(b"", 301, headers=[("Location", "http://elsewhere/v1")])
    with ModelServer(pages={"/v1/models": moved}) as server, pytest.raises(ServerError, match="elsewhere"):
        look(server)


@pytest.mark.parametrize(
    ("pages", "kind", "version", "guide"),
    [
        ({"/v1/models": model_list("m", owned_by="vllm"), "/version": {"version": "0.12.0"}}, "vLLM", "0.12.0", "vllm"),
        ({"/v1/models": model_list("m", owned_by="llamacpp")}, "llama.cpp", None, None),
        ({"/v1/models": model_list("m", owned_by="organization_owner")}, "LM Studio", None, None),
        (
            {"/v1/models": model_list("m", owned_by="library"), "/api/version": {"version": "0.9"}},
            "Ollama",
            "0.9",
            None,
        ),
        ({"/health": {"status": "healthy", "loaded_model": "m"}}, "mlx-vlm", None, None),
        ({"/health": {"loaded_model": "m"}, "/olmocr/guidance": {"regex": True}}, "mlx-vlm", None, "mlx-vlm"),
        ({"/health": {"status": "ok"}, "/version": {"version": 5}}, None, None, None),
    ],
)
def test_a_servers_kind_is_recognised(pages, kind, version, guide):
    with ModelServer(models=["m"], pages=pages) as server:
        info = look(server)
    assert (info.kind, info.version, info.guide) == (kind, version, guide)
    assert (kind or "not known") in str(info)


CACHE = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="5000",swap_space="4"} 1.0
"""


@pytest.mark.parametrize(
    ("pages", "room", "weights"),
    [
        (
            {"/v1/models": model_list("m", owned_by="olmocr", max_concurrent_pages=3, weights_sha256="ab" * 32)},
            3,
            f"safetensors {'ab' * 32}",
        ),
        ({"/v1/models": model_list("m", owned_by="olmocr", max_concurrent_pages="3", weights_sha256=7)}, None, None),
        ({"/v1/models": model_list("m", owned_by="vllm"), "/metrics": CACHE}, 80_000 // 4096, None),
        ({"/v1/models": model_list("m", owned_by="vllm"), "/metrics": b"vllm:cache_config_info{} 1.0"}, None, None),
        ({"/v1/models": model_list("m", owned_by="vllm")}, None, None),
        ({"/v1/models": model_list("m", owned_by="llamacpp"), "/props": {"total_slots": 4}}, 4, None),
        (
            {
                "/v1/models": model_list("m", owned_by="library"),
                "/api/version": {"version": "0.9"},
                "/api/tags": {"models": [{"name": "n", "digest": "no"}, {"name": "m", "digest": "0a1b"}]},
            },
            None,
            "ollama 0a1b",
        ),
        ({"/v1/models": model_list("m", owned_by="organization_owner", max_concurrent_pages=3)}, None, None),
    ],
)
def test_what_a_server_can_hold_and_the_hash_of_its_weights_are_taken_from_those_that_tell(pages, room, weights):
    with ModelServer(pages=pages) as server:
        info = look(server)
    assert (info.room, info.weights) == (room, weights)


def test_a_key_opens_the_list_of_models():
    with ModelServer(api_key="secret") as server:
        assert look(server, api_key="secret").model == "olmocr"
        with pytest.raises(ServerError, match="requires an API key"):
            look(server)


def test_a_server_that_is_found_can_be_asked():
    async def run(url):
        async with connected(url) as (ask, info):
            return info.model, await ask(REQUEST)

    with ModelServer(chat_stream()) as server:
        assert asyncio.run(run(server.url)) == ("olmocr", READ)
