"""What went wrong -> an HTTP status and an error as OpenAI's clients read it."""

from __future__ import annotations

import math
import re
from typing import Any

from olmocr.errors import InputError, OlmocrError, ServerError, ServerUnavailableError, UsageError

# Folders, with what is in them: of this machine's kind, or of Windows.
_PATH = re.compile(r"(?<![\w:/<.])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:()<>]+){2,}[/\\]?")


class RequestError(OlmocrError):
    """A request that is not answered: *status* is HTTP's, *param* the field at fault, *code* one word for programs.

    *retry_after* is in seconds: asking again then may help.
    """

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> RequestError:
    """Return the refusal of a request that would have to be another one."""
    return RequestError(400, message, code=code, param=param)


def refusal_of(error: Exception) -> RequestError:
    """Return what to answer where *error* was raised. Of a bug nothing is told but that there is one."""
    match error:
        case RequestError():
            return error
        case InputError() | UsageError():
            return bad_request(without_paths(str(error)), code="unreadable_input")
        case ServerUnavailableError():
            again = error.retry_after or 1.0
            return RequestError(503, without_paths(str(error)), code="unavailable", retry_after=again)
        case ServerError():
            return RequestError(503, without_paths(str(error)), code="unavailable", retry_after=1.0)
        case OlmocrError():
            return RequestError(500, without_paths(str(error)), code="failed")
    return RequestError(500, "this server has failed at this request, which is a bug; its log says where", code="bug")


def without_paths(sentence: str) -> str:
    """Return *sentence*, which may be about a file of this machine's, without where that lies."""
    return _PATH.sub("…", sentence)


def error_body(refusal: RequestError) -> dict[str, Any]:
    """Return the JSON of an answer that is an error."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if refusal.status >= 500 else kinds.get(refusal.status, "invalid_request_error")
    return {"error": {"message": str(refusal), "type": kind, "param": refusal.param, "code": refusal.code}}


def error_headers(refusal: RequestError) -> dict[str, str]:
    """Return the headers that go with it."""
    headers = {} if refusal.retry_after is None else {"retry-after": str(max(1, math.ceil(refusal.retry_after)))}
    return headers | ({"www-authenticate": "Bearer"} if refusal.status == 401 else {})
