"""Hidden states in files: what was written is read, and any other file is refused."""

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.calibrated.passes.hidden_states import HiddenStates, any_are_there, fingerprint
from olmocr.errors import OutputError
from tests.conversion.calibrated.pages import random_pages

CONFIG = {"vocab_size": 100, "image_token_id": 90, "vision_config": {"spatial_merge_size": 2}}
ROWS = [3, 1, 4]


@pytest.fixture
def states(tmp_path):
    return HiddenStates(tmp_path / "states", "abc", mx.bfloat16)


def write(states, number, pages):
    with states.writing(number) as take:
        for page in pages:
            take(page)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_each_pages_states_are_read_as_they_were_written(tmp_path, dtype):
    states = HiddenStates(tmp_path, "abc", dtype)
    pages = [mx.random.normal((rows, 5)).astype(dtype) for rows in ROWS]
    write(states, 7, pages)
    for place in (2, 0, 1):
        found = states.read(7, ROWS, place)
        assert (found.shape, found.dtype) == (pages[place].shape, dtype)
        assert mx.array_equal(found, pages[place])


def test_a_file_appears_when_all_pages_are_in_it(states):
    def written_by_half():
        with states.writing(1) as take:
            take(mx.zeros((3, 5)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        written_by_half()
    assert not states.is_there(1)
    assert list(states.path(1).parent.iterdir()) == []


def test_a_file_that_is_cut_is_refused(states):
    write(states, 1, [mx.zeros((rows, 5)) for rows in ROWS])
    path = states.path(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OutputError, match="is damaged"):
        states.read(1, ROWS, 0)


def test_a_file_that_is_not_there_is_named(states):
    with pytest.raises(OutputError, match=r"hidden-0001-abc\.bin cannot be read"):
        states.read(1, ROWS, 0)


def test_states_of_any_pages_are_seen(states):
    write(states, 1, [mx.zeros((rows, 5)) for rows in ROWS])
    folder = states.path(1).parent
    assert any_are_there(folder, 1)
    assert not any_are_there(folder, 11)
    assert not any_are_there(folder / "nowhere", 1)


def test_what_is_removed_is_gone_and_may_be_removed_again(states):
    write(states, 1, [mx.zeros((rows, 5)) for rows in ROWS])
    states.remove(1)
    states.remove(1)
    assert not states.is_there(1)


def test_a_fingerprint_tells_pages_their_order_and_terms_apart():
    pages = random_pages(CONFIG, 3)
    one = fingerprint(pages, "a")
    assert fingerprint(random_pages(CONFIG, 3), "a") == one
    assert len({one, fingerprint(pages, "b"), fingerprint(pages[::-1], "a"), fingerprint(pages[:2], "a")}) == 4
    changed = random_pages(CONFIG, 3)
    changed[1].pixel_values[0, 0] += np.float32(1)
    assert fingerprint(changed, "a") != one
