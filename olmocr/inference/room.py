"""What answers hold and may grow to -> whether a page may join them, and which must go back to wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_STEP = 256
"""Tokens by which a KV cache grows."""


class Growing(Protocol):
    """A page in work."""

    @property
    def prompt_length(self) -> int:
        """How many tokens its prompt has."""

    @property
    def most_tokens(self) -> int:
        """How many tokens its answer may have."""

    @property
    def length(self) -> int:
        """How many tokens prompt and answer have so far."""


R = TypeVar("R", bound=Growing)
P = TypeVar("P", bound=Growing)


@dataclass(frozen=True)
class Room:
    """The memory for keys and values: *kv_bytes*, of which a token takes *token_bytes*.

    A page is promised memory for *expected_tokens* of its answer. The rows of a batch share one array, so that each
    takes as much as the longest.
    """

    kv_bytes: int
    token_bytes: int
    expected_tokens: int

    @property
    def tokens(self) -> int:
        """For how many tokens there is memory."""
        return self.kv_bytes // self.token_bytes // _STEP * _STEP

    def usual(self, prompt_length: int) -> int:
        """Return for how many tokens a page with such a prompt needs memory, if its answer is as long as expected."""
        return rounded(prompt_length + self.expected_tokens)

    def promised(self, page: Growing) -> int:
        """Return for how many tokens a page has, or will have, memory."""
        return max(grown(page), rounded(page.prompt_length + min(page.most_tokens, self.expected_tokens)))

    def left(self, rows: Sequence[Growing], page: Growing) -> int:
        """Return the bytes that are left when *page* joins *rows*; below 0 where it does not fit."""
        widest = max(map(self.promised, [*rows, page]))
        return (self.tokens - (len(rows) + 1) * widest) * self.token_bytes

    def fits(self, rows: Sequence[Growing], page: Growing) -> bool:
        """Say whether *page* may join *rows*; alone, it always may."""
        return not rows or self.left(rows, page) >= 0

    def taken(self, rows: Sequence[Growing], joining: Growing | None) -> int:
        """Return how many tokens' memory is taken after the next step, with the prompt of the page that joins."""
        return (rounded(joining.length) if joining else 0) + len(rows) * max(map(grown, rows), default=0)

    def spare(self, rows: Sequence[Growing], joining: Growing | None) -> int:
        """Return the bytes that are left after the next step."""
        return max(0, self.tokens - self.taken(rows, joining)) * self.token_bytes

    def sent_back(self, rows: Sequence[R], joining: P | None) -> list[R | P]:
        """Return which pages must go back to wait since the next step would not fit: those that came last, first.

        One page always stays.
        """
        staying, going = list(rows), list[R | P]()
        if joining and rows and self.taken(rows, joining) > self.tokens:
            going, joining = [joining], None
        while len(staying) > 1 and self.taken(staying, joining) > self.tokens:
            going.append(staying.pop())
        return going


def rounded(tokens: int) -> int:
    """Return for how many tokens a cache has memory that holds *tokens*."""
    return -(-tokens // _STEP) * _STEP


def grown(page: Growing) -> int:
    """Return for how many tokens a row needs memory after its next step."""
    return rounded(page.length + 1)
