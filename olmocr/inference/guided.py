"""An expression -> the tokens with which an answer may continue, and those with which it must."""

from __future__ import annotations

from typing import Any

import llguidance.hf
import llguidance.numpy
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from olmocr.page import FRONT_MATTER_REGEX

Words = npt.NDArray[np.int32]

_CLOSED = "\n---\n"


def vocabulary(tokenizer: Any, stop_tokens: list[int] | None = None) -> Any:
    """Return the tokens in llguidance's form; reading a large vocabulary takes it a second."""
    return llguidance.hf.from_tokenizer(tokenizer, eos_token=stop_tokens)


def grammar(expression: str, tokens: Any) -> str:
    """Return *expression* as a grammar.

    Raises:
        ValueError: it is not a valid regular expression.
    """
    found: str = LLMatcher.grammar_from_regex(expression)
    if fault := LLMatcher.validate_grammar(found, tokens):
        raise ValueError(f"it is not a valid regular expression: {fault}")
    return found


class FrontMatter:
    """The form of a front matter, for the tokens of one model; *stop_tokens* end an answer."""

    def __init__(self, tokenizer: Any, stop_tokens: list[int]) -> None:
        self._tokenizer = tokenizer
        self._tokens = vocabulary(tokenizer, stop_tokens)
        self._grammar = grammar(FRONT_MATTER_REGEX, self._tokens)

    def begin(self) -> Guide:
        """Return the guide of one answer."""
        return Guide(LLMatcher(self._tokens, self._grammar), self._tokenizer, self._tokens.vocab_size)


class Guide:
    """Guides one answer through the front matter. Once the body has begun, every token is allowed."""

    def __init__(self, matcher: Any, tokenizer: Any, size: int) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._size = size
        self._taken: list[int] = []

    def take(self, token: int) -> None:
        """Continue with *token*, which must be allowed.

        Raises:
            ValueError: *token* is not allowed here.
        """
        self._taken.append(token)
        if not self._matcher.consume_token(token):
            raise ValueError(f"token {token} is not allowed here: {self._matcher.get_error()}")

    def forced(self) -> list[int]:
        """Return the tokens that must come next, since no others are allowed."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def is_over(self) -> bool:
        """Whether the body has begun: the answer has the closing line and something after it."""
        text: str = self._tokenizer.decode(self._taken, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        end = text.find(_CLOSED, len(_CLOSED) - 1)
        return 0 <= end < len(text) - len(_CLOSED)

    def allowed(self, size: int) -> npt.NDArray[np.bool_]:
        """Return, for each of the *size* logits, whether its token may come next."""
        words = llguidance.numpy.allocate_token_bitmask(1, self._size)
        llguidance.numpy.fill_next_token_bitmask(self._matcher, words, 0)
        row: npt.NDArray[np.bool_] = unpacked(words, size)[0]
        return row


def unpacked(words: Words, size: int) -> npt.NDArray[np.bool_]:
    """Return the first *size* bits of each row of *words* (rows, words of 32 bits); missing bits are 0."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")[:, :size]
    found: npt.NDArray[np.bool_] = np.pad(bits, [(0, 0), (0, size - bits.shape[1])]).astype(np.bool_)
    return found
