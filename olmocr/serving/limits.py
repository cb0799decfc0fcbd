"""How much one server takes on, and from one request."""

from __future__ import annotations

from dataclasses import dataclass, fields

from olmocr.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What is past these is refused, with a sentence.

    Attributes:
        at_once: questions that are with the model.
        waiting: requests that may wait besides; more are sent away.
        request_bytes: of one request's body.
        pages: to be read of one document.
        stall_seconds: between two pieces of a body that comes or goes.
        answer_seconds: for one answer, from when the model begins with it; None is no limit.

    Raises:
        UsageError: a value is out of its range.
    """

    at_once: int = 8
    waiting: int = 64
    request_bytes: int = 64 << 20
    pages: int = 1000
    stall_seconds: float = 30.0
    answer_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or (value == 0 and field.name != "waiting")):
                raise UsageError(f"{field.name} cannot be {value!r}; choose a larger number")
