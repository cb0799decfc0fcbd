"""Bounds that a config hands on to its backend."""

import pytest

from olmocr.errors import UsageError
from tests.backends.chosen import read


def test_a_page_has_as_much_time_as_is_said(tmp_path, model):
    metrics = read(tmp_path / "ws", model, max_tokens=3000, page_time_limit=0.05)
    assert metrics["attempts_ended"] == {"time": 2}
    assert 0 < metrics["engine"]["tokens"] < 6000


def test_a_budget_in_which_a_page_has_no_room_ends_the_run_before_any_is_asked(tmp_path, model):
    with pytest.raises(
        UsageError, match=r"a page of 64 pixels has \d+, and its answer .*; give `kv_budget` \d+KB or more"
    ):
        read(tmp_path / "ws", model, kv_budget=100_000)
