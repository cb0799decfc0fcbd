"""What a model server sends instead of an answer -> the error that shows what can help: nothing, time, or a person."""

from __future__ import annotations

import datetime
import email.utils
import json
import re
from collections.abc import Mapping
from typing import Any

from olmocr.errors import InputError, OlmocrError, ServerError, ServerUnavailableError
from olmocr.text import one_line

_LONGEST_DETAIL = 300  # characters of a server's own message in one of ours
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{100,}")

# Servers answer these with 500, too, although they work.
_ABOUT_THE_PAGE = re.compile(
    r"(load|decode|process|identify|open|read)\b.{0,20}\bimage|image.{0,40}\b(truncated|corrupt|invalid)"
    r"|context (length|window|size|tokens)|exceed_context_size|(prompt|input) is too long|too many tokens",
    re.IGNORECASE,
)
# Some servers answer 400 or 500, not 404, if they do not know a model's name.
_ABOUT_THE_MODEL = re.compile(
    r"failed to load model|model\b.{0,200}\b(not found|not exist|not loaded|unknown)|no models? loaded"
    r"|(invalid|unknown) model\b",
    re.IGNORECASE,
)


def fault_of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, model: str, has_key: bool
) -> OlmocrError:
    """Return the error for an HTTP status other than 200; *url* is the server's, *model* the requested model."""
    detail = detail_of(body)
    if status in (401, 403):
        key = "refuses the API key; give the right one" if has_key else "requires an API key; give it"
        return ServerError(f"{url} {key} with `api_key` (it says: {detail})")
    if status in (408, 425, 429):
        return ServerUnavailableError(
            f"{url} is overloaded (HTTP {status}: {detail})", parse_retry_after(headers.get("retry-after"))
        )
    if 300 <= status < 400:
        target = plain(headers.get("location", "another address"))
        return ServerError(f"{url} redirects to {target}; give that address")
    if status in (404, 405) and not re.search("model", detail, re.IGNORECASE):
        return ServerError(
            f"{url} does not offer this API (HTTP {status}: {detail}); check the address, which often ends in /v1, "
            "or choose the other `api`"
        )
    return _fault_in_words(status, detail, parse_retry_after(headers.get("retry-after")), url=url, model=model)


def fault_in_answer(error: Any, *, url: str, model: str) -> OlmocrError:
    """Return the error for a fault reported under status 200: in a stream that had begun, or as the answer's JSON."""
    try:
        detail = _detail_in({"error": error})
    except RecursionError:
        detail = "no readable reason"
    return _fault_in_words(500, detail, None, url=url, model=model)


def _fault_in_words(status: int, detail: str, retry_after: float | None, *, url: str, model: str) -> OlmocrError:
    if status == 404 or _ABOUT_THE_MODEL.search(detail):
        return ServerError(
            f"{url} does not have the model {plain(model)} ({detail}); name one that it has: {url}/models lists them"
        )
    if status in (400, 413, 422) or _ABOUT_THE_PAGE.search(detail):
        return InputError(f"the server refuses the page: {detail}")
    if status >= 500:
        return ServerUnavailableError(f"{url} failed (HTTP {status}: {detail})", retry_after)
    return ServerError(f"{url} answered with an unexpected HTTP {status} ({detail}); check the address")


def detail_of(body: bytes) -> str:
    """Return a server's own message about a fault, from any of the usual places, in a form that can be shown."""
    try:
        return _detail_in(json.loads(body))
    except (ValueError, RecursionError):
        return plain(body[:100_000].decode("utf-8", "replace"))


def _detail_in(body: Any) -> str:
    if isinstance(body, dict):
        error = body.get("error")
        nested = error.get("message") if isinstance(error, dict) else error
        body = nested or body.get("detail") or body.get("message") or body
    if isinstance(body, list):  # FastAPI's: each item says what and where; the input that it repeats is left out
        body = "; ".join(_where_and_what(each) for each in body[:3])
    return plain(body if isinstance(body, str) else json.dumps(body))


def _where_and_what(fault: Any) -> str:
    if not isinstance(fault, dict):
        return str(fault)
    place = fault.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{where}: {fault.get('msg')}" if where else str(fault.get("msg"))


def plain(text: str) -> str:
    """Return *text* on one line, without base64 images, cut at 300 characters."""
    text = _BASE64.sub("…", text[:100_000])
    return one_line(text, _LONGEST_DETAIL) or "no reason given"


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header requests, as a number or a date; None if it is not valid."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{0,9})?\s*", value, re.ASCII):
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
        if until.tzinfo is None:
            until = until.replace(tzinfo=datetime.UTC)
        return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
