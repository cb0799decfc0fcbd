from dataclasses import dataclass

from hypothesis import assume, given
from hypothesis import strategies as st

from olmocr.inference.room import Room


@dataclass
class Page:
    """A page in work, and how much of its answer there is."""

    prompt_length: int
    most_tokens: int
    written: int = 0

    @property
    def length(self):
        return self.prompt_length + self.written


def room(tokens, token_bytes=10, expected=1024):
    return Room(tokens * token_bytes, token_bytes, expected)


PAGES = st.lists(
    st.builds(Page, st.integers(1, 3000), st.integers(1, 8000), st.integers(0, 8000)), min_size=1, max_size=6
)
TOKENS = st.integers(256, 40_000)


def test_a_budget_is_counted_in_whole_steps_of_256_tokens():
    assert [room(tokens).tokens for tokens in (255, 256, 511, 512)] == [0, 256, 256, 512]
    assert Room(9_999, token_bytes=10, expected_tokens=1).tokens == 768


def test_a_page_is_promised_its_prompt_and_what_is_expected_of_its_answer_unless_it_may_have_less():
    assert room(0).promised(Page(256, most_tokens=8000)) == 256 + 1024
    assert room(0).promised(Page(257, most_tokens=8000)) == 512 + 1024
    assert room(0).promised(Page(256, most_tokens=256)) == 512
    assert room(0).usual(256) == 256 + 1024


def test_an_answer_that_is_longer_than_expected_needs_memory_for_its_next_token():
    assert room(0).promised(Page(256, 8000, written=1023)) == 1280
    assert room(0).promised(Page(256, 8000, written=1024)) == 1536


def test_each_row_takes_as_much_as_the_longest():
    short, long = Page(100, 100), Page(1000, 200)
    assert room(0).taken([short, long], None) == 2 * 1024
    assert room(0).taken([short, long], Page(257, 1)) == 2 * 1024 + 512
    assert room(0).taken([], Page(256, 1)) == 256
    assert room(0).taken([], None) == 0


def test_a_page_joins_where_all_have_as_much_as_the_longest_is_promised():
    short, long = Page(100, 100), Page(200, 8000)  # 256 and 1280 tokens
    assert room(2 * 1280).fits([short], long)
    assert room(2 * 1280).fits([long], short)
    assert not room(2 * 1280 - 1).fits([short], long)
    assert room(2 * 1280 + 256).left([short], long) == 256 * 10


def test_a_page_alone_joins_whatever_it_takes():
    assert room(256).fits([], Page(200, 8000))
    assert room(256).left([], Page(200, 8000)) == -1024 * 10


def test_the_page_that_joins_goes_back_first_and_then_the_rows_that_came_last():
    first, second, third = (Page(100, 8000, written) for written in (600, 200, 100))
    joining = Page(256, 100)
    assert room(3 * 768 + 256).sent_back([first, second, third], joining) == []
    assert room(3 * 768).sent_back([first, second, third], joining) == [joining]
    assert room(2 * 768).sent_back([first, second, third], joining) == [joining, third]
    assert room(256).sent_back([first, second, third], joining) == [joining, third, second]
    assert room(256).sent_back([], Page(1000, 1)) == []


@given(PAGES, TOKENS, st.none() | st.builds(Page, st.integers(1, 3000), st.just(1)))
def test_what_stays_fits_or_is_one_page_and_no_more_go_back_than_must(rows, tokens, joining):
    memory = room(tokens)
    going = memory.sent_back(rows, joining)
    staying = [row for row in rows if not any(row is page for page in going)]
    kept = None if any(page is joining for page in going) else joining
    assert memory.taken(staying, kept) <= memory.tokens or (len(staying) == 1 and kept is None)
    assert staying == rows[: len(staying)] != []
    assert memory.spare(staying, kept) == max(0, memory.tokens - memory.taken(staying, kept)) * memory.token_bytes
    if going:
        again = (rows[: len(staying) + 1], None) if len(staying) < len(rows) else (rows, joining)
        assert memory.taken(*again) > memory.tokens


@given(PAGES, TOKENS)
def test_pages_that_were_let_join_do_not_send_each_other_back_before_they_are_longer_than_expected(pages, tokens):
    memory = room(tokens)
    *rows, page = [Page(each.prompt_length, each.most_tokens) for each in pages]
    while rows and not memory.fits(rows, page):
        rows.pop()
    assume(rows)
    for each in (*rows, page):
        each.written = min(each.most_tokens, 1024) - 1
    assert memory.sent_back([*rows, page], None) == []


def test_what_a_batch_has_beyond_its_need_counts_too():
    three_quarters_full = Room(9 * 512 * 10, 10, 256, lambda rows, longest: 4 * -(-rows // 4) * longest)
    short = Page(100, 100)
    assert three_quarters_full.taken([short] * 3, None) == 4 * 256
    assert three_quarters_full.fits([short] * 15, short)
    assert not three_quarters_full.fits([short] * 16, short)
