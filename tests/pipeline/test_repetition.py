import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.pipeline.repetition import has_looped, is_looping

SENTENCE = "The committee met again on Tuesday and adjourned without a vote. "


def table(rows, *cells):
    return "<table>\n" + ("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n") * rows


def numbers():
    values = random.Random(0)
    return "\n".join(f"{values.randint(0, 3)}.00" for _ in range(400))


# Each is what a full page may truly end in: nothing comes after it.
REAL = {
    "a contents page": "\n".join(f"Chapter {n} {'. ' * 60}{n * 7}" for n in range(1, 60)),
    "dot leaders over the whole width": ("." * 110 + "\n") * 60,
    "lines to write on": ("_" * 100 + "\n") * 50,
    "a table of empty cells": table(60, *[""] * 10),
    "a table of zeros": table(60, *["0"] * 10),
    "a table of N/A": table(50, *["N/A"] * 10),
    "a table of yes and no": table(50, "Yes", "No", "No"),
    "a markdown table of empty cells": ("| " * 12 + "|\n") * 60,
    "a checklist of equal rows": table(45, "Name", "", "", "Signature"),
    "a sign-in sheet": "Name: __________ Signature: __________\n" * 40,
    "a sheet of address labels": "Jane Example\n12 Some Street, Apt 4\nSpringfield, IL 62701\n\n" * 30,
    "a sheet of business cards": ("Jane Example, Sales\n" + "Example Trading Company, Springfield\n" * 4) * 10,
    "a column of one country": "United States\n" * 80,
    "prices": numbers(),
    "a hex dump of zeros": "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00\n" * 60,
    "a hex dump": "".join(f"{at:08x}  00 00 00 00 00 00 00 00  |........|\n" for at in range(0, 4000, 8)),
    "a bibliography of one author": "".join(
        f"Smith, J., Miller, A. and Jones, B. ({1950 + n}). Notes on subject {n}. Journal of Notes, {n}.\n"
        for n in range(70)
    ),
    "a refrain": ("Row, row, row your boat, gently down the stream\n" * 4 + "Merrily, merrily\n") * 6,
    "closing braces": "".join("    " * depth + "}\n" for depth in range(60, 0, -1)),
    "a zero matrix": "\\begin{pmatrix}\n" + "0 & 0 & 0 & 0 & 0 & 0 & 0 & 0 \\\\\n" * 40,
    "a page of one sentence, five times": SENTENCE * 5,
}


@pytest.mark.parametrize("what", REAL)
def test_what_a_real_page_may_end_in_is_not_a_loop(what):
    text = "# A heading\n\n" + REAL[what]
    assert not is_looping(text)
    assert not has_looped(text)


def test_the_demos_pages_are_no_loops(truth):
    texts = [entry["natural_text"] or "" for entry in truth.values()]
    assert not any(is_looping(text[:end]) for text in texts for end in range(0, len(text) + 1, 10))
    assert not is_looping("\n".join(texts))


def long_enough(block, characters, repeats=12):
    return block * max(repeats, -(-characters // len(block)))


@given(st.text(max_size=300), st.text(min_size=1, max_size=200), st.integers(0, 200))
def test_any_block_is_caught_when_it_was_repeated_often_enough(before, block, cut):
    text = before + long_enough(block, 8000) + block[: cut % len(block)]
    assert is_looping(text)


WORDS = st.text("abcdefghij klmnop.,\n", min_size=4, max_size=200).filter(
    lambda text: len(set(text) - set(" .,\n")) > 2
)


@given(st.text(max_size=300), WORDS, st.integers(0, 200))
def test_a_block_with_words_is_caught_sooner(before, block, cut):
    assert is_looping(before + long_enough(block, 2000) + block[: cut % len(block)])


@given(st.text(max_size=300), WORDS)
def test_eleven_times_are_not_enough(before, block):
    label = (block * 200)[:190] + "§"
    assert not is_looping(before + label * 11)
    assert is_looping(before + label * 12)


@pytest.mark.parametrize("length", [200, 500, 1000])
def test_a_block_as_long_as_a_paragraph_is_caught(length):
    letters = random.Random(length)
    block = "".join(letters.choice("abcdefghijklmnopqrstuvwxyz    ") for _ in range(length))
    assert is_looping("Before. " + block * 12)


def test_rows_of_words_are_caught_later_than_sentences():
    row = "<tr><td>Yes</td><td>No</td><td>Maybe</td></tr>\n"
    lengths = [n for n in range(200) if is_looping(row * n)]
    assert 4000 <= lengths[0] * len(row) < 4100


def test_a_text_that_continues_is_not_looping_but_has_looped():
    text = SENTENCE * 60 + "Then something else was written, which is not the same at all."
    assert not is_looping(text)
    assert has_looped(text)


def test_a_loop_is_seen_while_it_is_written():
    text = "# Minutes\n\n" + SENTENCE * 200
    seen = next(end for end in itertools.count(1) if is_looping(text[:end]))
    assert 2000 <= seen < 2100


def test_a_text_of_one_sign_is_judged_quickly():
    assert is_looping("." * 100_000)
    assert not is_looping("x" + "." * 7000)
