"""How long answers are and may become -> whether a page may join them, and which pages must wait again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_STEP = 256
"""The tokens by which a KV cache grows."""


class Growing(Protocol):
    """A page that is being read."""

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
    """The memory for keys and values: *kv_bytes* in all, *token_bytes* for each token.

    A page is promised memory for *expected_tokens* of its answer. The rows of a batch share one array, so each row
    takes as much memory as the longest. *allocated* says how many tokens there is memory for, given the number of rows
    and of the tokens that the longest needs; a batch may have more than it needs.
    """

    kv_bytes: int
    token_bytes: int
    expected_tokens: int
    allocated: Callable[[int, int], int] = operator.mul

    @property
    def tokens(self) -> int:
        """How many tokens fit into memory."""
        return self.kv_bytes // self.token_bytes // _STEP * _STEP

    def usual(self, prompt_length: int) -> int:
        """Return how many tokens of memory a page with this prompt needs, if its answer is as long as expected."""
        return rounded(prompt_length + self.expected_tokens)

    def promised(self, page: Growing) -> int:
        """Return how many tokens of memory a page has or is promised."""
        return max(grown(page), rounded(page.prompt_length + min(page.most_tokens, self.expected_tokens)))

    def left(self, rows: Sequence[Growing], page: Growing) -> int:
        """Return the bytes that are left when *page* joins *rows*; the result is below 0 if it does not fit."""
        widest = max(map(self.promised, [*rows, page]))
        return (self.tokens - self.allocated(len(rows) + 1, widest)) * self.token_bytes

    def fits(self, rows: Sequence[Growing], page: Growing) -> bool:
        """Return whether *page* may join *rows*; alone, it always may."""
        return not rows or self.left(rows, page) >= 0

    def taken(self, rows: Sequence[Growing], joining: Growing | None) -> int:
        """Return how many tokens of memory are used after the next step, including the prompt of the *joining* page."""
        batch = self.allocated(len(rows), max(map(grown, rows))) if rows else 0
        return (rounded(joining.length) if joining else 0) + batch

    def spare(self, rows: Sequence[Growing], joining: Growing | None) -> int:
        """Return the bytes that are left after the next step."""
        return max(0, self.tokens - self.taken(rows, joining)) * self.token_bytes

    def sent_back(self, rows: Sequence[R], joining: P | None) -> list[R | P]:
        """Return the pages that must wait again because the next step would not fit, beginning with the newest.

        One page always stays.
        """
        staying, going = list(rows), list[R | P]()
        if joining and rows and self.taken(rows, joining) > self.tokens:
            going, joining = [joining], None
        while len(staying) > 1 and self.taken(staying, joining) > self.tokens:
            going.append(staying.pop())
        return going


def rounded(tokens: int) -> int:
    """Return how many tokens of memory a cache with *tokens* tokens has."""
    return -(-tokens // _STEP) * _STEP


def grown(page: Growing) -> int:
    """Return how many tokens of memory a row needs after its next step."""
    return rounded(page.length + 1)
