"""What went wrong -> an HTTP status and an error as OpenAI's clients read it."""

from __future__ import annotations

import math
import re
from typing import Any

from olmocr.errors import InputError, OlmocrError, ServerError, ServerUnavailableError, UsageError

# Folders with what is in them: on this kind of machine, or on Windows.
_PATH = re.compile(r"(?<![\w:/<.])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:()<>]+){2,}[/\\]?")


class RequestError(OlmocrError):
    """A request that is refused: *status* is HTTP's, *param* the wrong field, *code* one word for programs.

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
    """Return the refusal of a request that must be changed before it can succeed."""
    return RequestError(400, message, code=code, param=param)


def refusal_of(error: Exception) -> RequestError:
    """Return the answer to a raised *error*. Of a bug nothing is revealed except that there is one."""
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
    return RequestError(500, "this request hit a bug in this server; the server's log says where", code="bug")


def without_paths(sentence: str) -> str:
    """Return *sentence*, which may name a file of this machine, without the file's folder."""
    return _PATH.sub("…", sentence)


def error_body(refusal: RequestError) -> dict[str, Any]:
    """Return the JSON of an error."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if refusal.status >= 500 else kinds.get(refusal.status, "invalid_request_error")
    return {"error": {"message": str(refusal), "type": kind, "param": refusal.param, "code": refusal.code}}


def error_headers(refusal: RequestError) -> dict[str, str]:
    """Return the headers of an error."""
    headers = {} if refusal.retry_after is None else {"retry-after": str(max(1, math.ceil(refusal.retry_after)))}
    return headers | ({"www-authenticate": "Bearer"} if refusal.status == 401 else {})
