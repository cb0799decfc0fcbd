import pytest

from olmocr.errors import UsageError
from olmocr.runtime.memory import parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4_000_000_000),
        ("4g", 4_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("64kib", 64 << 10),
        ("2TB", 2 * 10**12),
        (" 300 ", 300),
        ("300B", 300),
    ],
)
def test_a_size_is_read_as_people_write_it(text, size):
    assert parse_size(text, "--kv-budget") == size


NO_SIZES = ["", "GB", "4 apples", "-4GB", "0", "0.1B", "4iB", "1e9", "٤GB", "4GB of memory", "nan"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_not_a_size_is_refused_with_the_options_name(text):
    with pytest.raises(UsageError, match=r"--kv-budget .* is not a size; give one such as 4GB or 512MiB"):
        parse_size(text, "--kv-budget")


@pytest.mark.parametrize("size", [1, 999, 1000, 412_345_678, 4_200_000_001, 9_999_999_999, 123_456_789_012])
def test_a_size_that_is_shown_is_enough_and_hardly_more_when_it_is_typed(size):
    assert size <= parse_size(shown_size(size), "it") <= 1.1 * size


def test_sizes_are_shown_in_few_digits():
    assert [shown_size(size) for size in (500, 411_700_000, 4_100_000_001)] == ["500B", "412MB", "4.2GB"]
