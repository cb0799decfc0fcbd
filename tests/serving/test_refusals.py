import pytest

from olmocr.errors import (
    AnswerError,
    InputError,
    OlmocrError,
    OutputError,
    ServerError,
    ServerUnavailableError,
    UsageError,
)
from olmocr.serving.refusals import (
    RequestError,
    bad_request,
    error_body,
    error_headers,
    refusal_of,
    without_paths,
)

BUG = "this request hit a bug in this server; the server's log says where"


def of_client(code, message, param=None, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def of_server(code, message):
    return of_client(code, message, kind="server_error")


@pytest.mark.parametrize(
    ("error", "status", "body", "headers"),
    [
        (bad_request("no", "n"), 400, of_client("invalid_value", "no", "n"), {}),
        (bad_request("no", code="odd"), 400, of_client("odd", "no"), {}),
        (InputError("thin"), 400, of_client("unreadable_input", "thin"), {}),
        (UsageError("odd"), 400, of_client("unreadable_input", "odd"), {}),
        (
            RequestError(401, "who?", code="k"), 401, of_client("k", "who?", kind="authentication_error"),
            {"www-authenticate": "Bearer"},
        ),
        (RequestError(403, "not you", code="k"), 403, of_client("k", "not you", kind="permission_error"), {}),
        (RequestError(404, "no", code="k", param="model"), 404, of_client("k", "no", "model"), {}),
        (
            RequestError(429, "full", code="k", retry_after=2.1), 429, of_client("k", "full", kind="rate_limit_error"),
            {"retry-after": "3"},
        ),
        (RequestError(429, "full", code="k", retry_after=0.0), 429,
         of_client("k", "full", kind="rate_limit_error"), {"retry-after": "1"}),
        (AnswerError("no words"), 500, of_server("failed", "no words"), {}),
        (OutputError("disk full"), 500, of_server("failed", "disk full"), {}),
        (OlmocrError("odd"), 500, of_server("failed", "odd"), {}),
        (ServerError("closed"), 503, of_server("unavailable", "closed"), {"retry-after": "1"}),
        (ServerUnavailableError("away", 7), 503, of_server("unavailable", "away"), {"retry-after": "7"}),
        (ServerUnavailableError("away"), 503, of_server("unavailable", "away"), {"retry-after": "1"}),
        (ZeroDivisionError("secret page text"), 500, of_server("bug", BUG), {}),
    ],
)  # fmt: skip
def test_what_went_wrong_has_a_status_a_body_and_headers(error, status, body, headers):
    refusal = refusal_of(error)
    assert (refusal.status, error_body(refusal), error_headers(refusal)) == (status, body, headers)


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("/home/me/model/config.json is damaged", "… is damaged"),
        ("the disk is full: '/var/tmp/olmocr-x/ab' could not be written", "the disk is full: '…' could not be written"),
        ("C:\\Users\\me\\model is damaged", "… is damaged"),
        ("~/models/x is damaged", "… is damaged"),
        ("http://127.0.0.1:8000/v1/chat gave no answer", "http://127.0.0.1:8000/v1/chat gave no answer"),
        ("page 1/2 has <b>a</b> and 3/4 of text", "page 1/2 has <b>a</b> and 3/4 of text"),
        ("mine.pdf is a damaged PDF", "mine.pdf is a damaged PDF"),
    ],
)
def test_no_path_of_this_machine_is_told(sentence, told):
    assert without_paths(sentence) == told
    if sentence != told:
        for kind in (InputError, ServerError, AnswerError, OutputError):
            assert told in error_body(refusal_of(kind(sentence)))["error"]["message"]
