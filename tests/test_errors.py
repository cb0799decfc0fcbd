"""What an exception says, in a sentence of ours."""

import pytest

from olmocr.errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("first\nsecond"), "first"), (ValueError("\n  first "), "first"), (MemoryError(), "MemoryError")],
)
def test_a_reason_is_the_first_line_or_the_kind_of_what_says_nothing(error, reason):
    assert reason_of(error) == reason
