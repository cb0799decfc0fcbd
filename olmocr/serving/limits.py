"""How much one server accepts, in all and from one request."""

from __future__ import annotations

from dataclasses import dataclass, fields

from olmocr.errors import UsageError

_MiB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What exceeds these is refused, with a sentence, or waits. docs/serve.md gives the sum of them.

    Attributes:
        at_once: questions that the model has at a time.
        waiting: more requests that may wait; any others are refused.
        connections: open at a time, whatever they do; if there are more, the slowest is closed.
        request_bytes: of one request's body.
        held_bytes: of all questions' bodies and pictures, in memory; at least one request's.
        upload_bytes: of all documents' bodies, on the disk; at least one request's.
        picture_bytes: of pixels in memory, for questions' pictures and documents' pages.
        figure_bytes: of one page's figures, as PNG, on the disk; more are left out and reported.
        pages: to be read of one document.
        pages_in_hand: of all documents being read, which limits the text kept; at least one document's.
        stall_seconds: how long to wait for a client: for a request's head, and in all for its body and its answer
            unless it moves *least_rate* bytes a second.
        least_rate: as above.
        answer_seconds: for one answer, from when the model begins it; None means no limit.

    Raises:
        UsageError: a value is out of its range.
    """

    at_once: int = 8
    waiting: int = 64
    connections: int = 2048
    request_bytes: int = 64 * _MiB
    held_bytes: int = 128 * _MiB
    upload_bytes: int = 2048 * _MiB
    picture_bytes: int = 256 * _MiB
    figure_bytes: int = 16 * _MiB
    pages: int = 1000
    pages_in_hand: int = 4000
    stall_seconds: float = 30.0
    least_rate: int = 16 << 10
    answer_seconds: float | None = 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or (value == 0 and field.name != "waiting")):
                raise UsageError(f"{field.name} cannot be {value!r}; choose a larger number")
