"""What a server refuses or breaks is told as the fault that it is."""

import base64
import datetime
import email.utils

import pytest

from olmocr.errors import InputError, ServerError, ServerUnavailableError
from tests.backends.asked import apis, ask
from tests.backends.model_server import events, fault, whole

BLOB = base64.b64encode(bytes(range(256)) * 40).decode()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_server_that_has_trouble_is_unavailable(status):
    with pytest.raises(ServerUnavailableError, match="CUDA error") as caught:
        ask(fault(status, "CUDA error"))
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [429, 503])
def test_how_long_a_server_wants_to_be_left_alone_is_kept(status):
    with pytest.raises(ServerUnavailableError) as caught:
        ask(fault(status, headers=[("Retry-After", "7")]))
    assert caught.value.retry_after == 7


def test_retry_after_may_be_a_date():
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    with pytest.raises(ServerUnavailableError) as caught:
        ask(fault(429, headers=[("Retry-After", email.utils.format_datetime(then, usegmt=True))]))
    assert 80 < caught.value.retry_after <= 90


@pytest.mark.parametrize("value", ["soon", "-3", "1e999", "nan", "Wed, 99 Nov 2026 00:00:00 GMT"])
def test_a_retry_after_that_makes_no_sense_is_ignored(value):
    with pytest.raises(ServerUnavailableError) as caught:
        ask(fault(429, headers=[("Retry-After", value)]))
    assert caught.value.retry_after is None


@pytest.mark.parametrize(("key", "words"), [(None, "requires an API key"), ("wrong", "refuses the API key")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_another_key_says_what_to_do(status, key, words):
    with pytest.raises(ServerError, match=f"{words}.*`api_key`") as caught:
        ask(fault(status), api_key=key)
    assert not isinstance(caught.value, ServerUnavailableError)


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (404, "The model `olmocr` does not exist."),
        (404, "model 'olmocr' not found, try pulling it first"),
        (404, "this model is not offered any more"),
        (400, "Failed to load model: olmocr"),
        (500, "Failed to load model: olmocr"),
    ],
)
def test_a_model_that_the_server_does_not_have_ends_the_run(status, detail):
    with pytest.raises(ServerError, match="does not have the model olmocr") as caught:
        ask(fault(status, detail))
    assert not isinstance(caught.value, ServerUnavailableError)


@pytest.mark.parametrize("status", [404, 405])
def test_an_api_that_the_server_does_not_speak_ends_the_run(status):
    with pytest.raises(ServerError, match="other `api`"):
        ask(whole({"detail": "Not Found"}, status))


def test_a_server_that_sends_its_callers_on_is_not_followed_with_the_key():
    with pytest.raises(ServerError, match="http://elsewhere/v1; give that address"):
        ask(whole(b"", 307, headers=[("Location", "http://elsewhere/v1")]), api_key="secret")


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "anything"),
        (413, "too large"),
        (422, "wrong"),
        (500, "An unexpected error occurred: Failed to load image from source"),
        (500, "the request exceeds the available context size"),
        (500, "This model's maximum context length is 4096 tokens"),
    ],
)
def test_a_page_that_the_server_refuses_is_an_input_error(status, detail):
    with pytest.raises(InputError, match=detail):
        ask(fault(status, detail))


@pytest.mark.parametrize(
    ("detail", "error"), [("Failed to load image", InputError), ("Metal ran out of memory", ServerUnavailableError)]
)
@apis
def test_a_fault_that_comes_in_a_stream_is_told_by_its_words(api, detail, error):
    chat = {"error": detail}
    responses = {"type": "response.failed", "response": {"status": "failed", "error": {"message": detail}}}
    with pytest.raises(error, match=detail):
        ask(events(chat if api == "chat" else responses), api=api)


def test_a_fault_that_comes_as_an_answer_is_one():
    with pytest.raises(ServerUnavailableError, match="busy"):
        ask(whole({"error": {"message": "busy"}}))


@pytest.mark.parametrize(
    "body",
    [
        {"detail": f"Failed to load image from {BLOB}"},
        {"detail": [{"loc": ["body", "messages"], "msg": "field required", "input": BLOB}]},
        f"Failed to load image data:image/png;base64,{BLOB}".encode(),
        ("Failed to load image \x1b[31m\u202e" + "é " * 5000).encode(),
    ],
)
def test_a_servers_words_are_short_and_hold_no_image_and_nothing_for_a_terminal(body):
    with pytest.raises(InputError) as caught:
        ask(whole(body, 422))
    message = str(caught.value)
    assert len(message) < 400
    assert BLOB[:60] not in message
    assert message.isprintable()
