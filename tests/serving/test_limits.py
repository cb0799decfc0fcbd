"""A server's limits are positive numbers, or the one that is not is named."""

from dataclasses import fields

import pytest

from olmocr.errors import UsageError
from olmocr.serving.limits import ServerLimits

LIMITS = [field.name for field in fields(ServerLimits)]


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_below_zero_is_refused_by_name(name):
    with pytest.raises(UsageError, match=name):
        ServerLimits(**{name: -1})


@pytest.mark.parametrize("name", [name for name in LIMITS if name != "waiting"])
def test_a_limit_of_zero_is_refused_by_name(name):
    with pytest.raises(UsageError, match=name):
        ServerLimits(**{name: 0})


def test_nobody_has_to_be_let_wait():
    assert ServerLimits(waiting=0).waiting == 0


def test_an_answer_may_take_any_time():
    assert ServerLimits(answer_seconds=None).answer_seconds is None
