"""One unfinished answer: its tokens, what must come next, and why it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from olmocr.errors import AnswerError, InputError, OlmocrError, reason_of
from olmocr.inference.draft import CLOSER, Beside, Drafter
from olmocr.inference.guided import Guide
from olmocr.inference.passes.cache import PromptCache
from olmocr.inference.prompt_reader import Prefill
from olmocr.inference.sampling import NOT_FINITE, Draw
from olmocr.page import FinishReason, PageRequest

_LOOKED_AT = 32
"""The tokens between two checks for a loop."""

_ROUND, _LONGEST_BLOCK = 4096, 64


@dataclass(frozen=True)
class Generation:
    """What a model wrote; *tokens* do not include the stop token."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    input_tokens: int
    passes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Asked:
    """A page, and where its answer goes. A caller who no longer wants the answer cancels the future.

    *on_text* is called after each step with all text so far, up to the last complete character. *written* are the
    tokens of its answer that existed when it had to wait again.
    """

    request: PageRequest
    answer: Future[Generation]
    on_text: Callable[[str], None] | None = None
    written: tuple[int, ...] = ()

    def give(self, result: Generation | Exception) -> None:
        """Answer the page, if its caller still wants that."""
        if not self.answer.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)

    @contextmanager
    def failing(self) -> Iterator[list[Exception]]:
        """Give errors in the block to this page only; yield a list that will contain them."""
        failed: list[Exception] = []
        try:
            yield failed
        except OlmocrError as error:
            failed.append(error)
        except ValueError as error:  # from the processor, the vision tower or a guide: this page does not fit
            failed.append(InputError(f"the model cannot read this page: {reason_of(error)}"))
        except Exception as error:  # for example out of memory, which may be over next time
            failed.append(AnswerError(f"the model failed at this page: {reason_of(error)}"))
        for reason in failed:
            self.give(reason)


class Row:
    """An answer in a running batch.

    ``ids`` are the prompt's tokens and the answer's. The model has been given the first ``given`` of them, and also the
    next token while its value is not known yet. ``prompt_cache`` has the keys and values of the prompt until the
    batch's cache has them. ``ends_at`` is the deadline, and ``passes`` the number of steps in which it took part.
    """

    def __init__(
        self,
        asked: Asked,
        prefill: Prefill,
        *,
        most_tokens: int,
        stop_tokens: frozenset[int],
        text: GrowingText,
        guide: Guide | None,
        drafter: Drafter | None,
        is_looping: Callable[[str], bool] | None,
        ends_at: float = math.inf,
    ) -> None:
        self.asked = asked
        self.key, self.rope_delta = prefill.key, prefill.rope_delta
        self.prompt_cache: PromptCache | None = prefill.cache
        self.given = prefill.cache.length
        self.ends_at = ends_at
        self.passes = 0
        self.ids = list(prefill.ids)
        self.prompt_length = prefill.prompt_length
        self.finish_reason: FinishReason | None = None
        self.guide = guide
        self._drafter = drafter
        self.most_tokens = most_tokens
        self._stop_tokens = stop_tokens
        self._text = text
        self._is_looping = is_looping
        self._next_look = _LOOKED_AT
        self._beside: Beside | None = None  # what else was in the pass for which tokens were proposed
        if guide:
            self._lead(guide)
        self._append_forced()

    @property
    def length(self) -> int:
        """How many tokens the prompt and the answer have together."""
        return len(self.ids)

    @property
    def written(self) -> int:
        """How many tokens the answer has."""
        return len(self.ids) - self.prompt_length

    @property
    def unread(self) -> list[int]:
        """The tokens that the model has not been given yet."""
        return self.ids[self.given :]

    @property
    def is_drafting(self) -> bool:
        """Whether tokens are proposed for it; this needs the value of its last token."""
        return self._drafter is not None and not self._drafter.is_resting

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text.update(self.ids[self.prompt_length :])

    @property
    def body(self) -> str:
        """The answer so far without its front matter; empty until the front matter is closed."""
        return self.text.partition(CLOSER)[2]

    @property
    def drafter(self) -> Drafter | None:
        """What proposes tokens in the next pass; None if nothing does."""
        return self._drafter if self.is_drafting and not self.guide else None

    @property
    def confidence(self) -> float:
        """The probability that a proposed token is right; 0 if none is proposed."""
        return self._drafter.right if self._drafter and self.is_drafting else 0.0

    def propose(self, beside: Beside, most: float = math.inf) -> list[int]:
        """Return up to *most* tokens that may come next, in a pass with others *beside* it; the model checks them."""
        if self._drafter is None or self._drafter.is_resting or self.guide:
            return []
        self._beside = beside
        return self._drafter.propose(self.text, beside, int(min(most, self.most_tokens - self.written - 1)))

    def expected(self, proposed: int) -> float:
        """Return how many of *proposed* tokens will probably be right, judged by earlier drafts."""
        return self._drafter.expected(proposed) if self._drafter else 0.0

    def take_all(self, chosen: list[int], draft: list[int], rows: int) -> int:
        """Take the tokens chosen after the last token and after each *draft* token; return how many of the draft fit.

        A token chosen after one that the model would not have written itself is not taken, and counts as not given.

        Raises:
            InputError: a taken token stands for logits that are not numbers.
        """
        accepted = 0
        self.take(chosen[0])
        while accepted < len(draft) and self.finish_reason is None and chosen[accepted] == draft[accepted]:
            accepted += 1
            self.take(chosen[accepted])
        self.given -= len(draft) - accepted
        if self._drafter and self._drafter.is_resting:
            self._drafter.rest()
        elif self._drafter and self._beside:
            self._drafter.learn(len(draft), accepted, self._beside, rows)
        self._beside = None
        return accepted

    def tell(self) -> None:
        """Report the text so far, if the caller wants that."""
        if self.asked.on_text:
            self._text.update(self.ids[self.prompt_length :])
            self.asked.on_text(self._text.settled)

    def draw(self, ahead: int = 0) -> Draw:
        """Return how to choose the token that comes *ahead* places after the next one."""
        request = self.asked.request
        return Draw(request.temperature, request.seed, self.written + ahead)

    def take(self, token: int) -> None:
        """Append a chosen token, and the tokens that must follow it. Afterwards ``finish_reason`` may be set.

        Raises:
            InputError: the token stands for logits that are not numbers.
        """
        if token == NOT_FINITE:
            raise InputError("the model's arithmetic gave no numbers for this page; read it with another model")
        if token in self._stop_tokens:
            self.finish_reason = "stop"
            return
        self._append(token)
        if self.guide and self.finish_reason is None:
            self.guide.take(token)
            self._append_forced()
        if self.finish_reason is None and self.written >= self._next_look:
            self._next_look = self.written + _LOOKED_AT
            if self._is_looping and (self._is_looping(self.text) or goes_round(self.ids[self.prompt_length :])):
                self.finish_reason = "loop"

    def result(self) -> Generation:
        """Return the finished answer."""
        tokens = self.ids[self.prompt_length :]
        reason = self.finish_reason or "length"
        return Generation(self._text.whole(tokens), tuple(tokens), reason, self.prompt_length, self.passes)

    def _append(self, token: int) -> None:
        self.ids.append(token)
        if self.written >= self.most_tokens:
            self.finish_reason = "length"

    def _lead(self, guide: Guide) -> None:
        """Lead *guide* through the tokens written before the page had to wait again, until the guide is over."""
        for token in self.asked.written:
            if guide.is_over:
                return
            guide.take(token)

    def _append_forced(self) -> None:
        """Append the tokens that are forced: together they cost one step, and no sampling."""
        while self.guide and self.finish_reason is None and (forced := self.guide.forced()):
            for token in forced:
                if self.finish_reason is None:
                    self.guide.take(token)
                    self._append(token)
        if self.guide and self.guide.is_over:
            self.guide = None


def goes_round(tokens: list[int]) -> bool:
    """Return whether an answer's last 4096 *tokens* repeat one block of 1 to 64 tokens.

    No page has that many: 60 rows of 10 zeros, with their tags, have about 3300. An answer with few characters per
    token gets here before its text is long enough to count as a loop.
    """
    if len(tokens) < _ROUND + _LONGEST_BLOCK:
        return False
    tail = np.array(tokens[-_ROUND - _LONGEST_BLOCK :])
    blocks = [length for length in range(1, _LONGEST_BLOCK + 1) if tail[-1] == tail[-1 - length]]
    return any(np.array_equal(tail[-_ROUND:], tail[-_ROUND - length : -length]) for length in blocks)


class GrowingText:
    """A growing list of tokens -> their text; each token is decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._text = ""
        self._count = 0

    @property
    def settled(self) -> str:
        """The text of the last call, without a last character whose bytes are still incomplete."""
        return self._text

    def update(self, tokens: list[int]) -> str:
        """Return the text of *tokens*, which begin with those of the last call."""
        more = self.whole(tokens[self._count :])
        if more.endswith("\ufffd"):
            return self._text + more  # perhaps a character whose bytes are still incomplete
        self._text += more
        self._count = len(tokens)
        return self._text

    def whole(self, tokens: list[int]) -> str:
        """Return the text of *tokens* alone, without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
