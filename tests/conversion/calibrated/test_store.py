"""What calibration makes, on disk: complete blocks outlive an interruption, and nothing else does."""

import dataclasses

import numpy as np
import pytest

from olmocr.conversion.calibrated.store import CalibratedPart, CalibrationFolder, MatrixLoss, PartKey
from olmocr.errors import OutputError

KEY = PartKey("language_model.model.layers.0.mlp.up_proj.weight", 4, 64, "BF16")
OTHER = dataclasses.replace(KEY, bits=8)
BLOCK = "language_model.model.layers.0"


def part_of(key, seed=0, rows=5):
    chance = np.random.default_rng(seed)
    arrays = (chance.integers(0, 256, (rows, width), np.uint8) for width in (32 * key.bits // 4, 2, 2))
    return CalibratedPart(key, tuple(arrays), MatrixLoss(3.0, 1.0, 2, rows))


def opened(path, fingerprint="same"):
    folder = CalibrationFolder(path, fingerprint)
    folder.resume()
    return folder


def assert_same(found, part):
    assert found.key == part.key
    assert found.loss == part.loss
    for one, other in zip(found.arrays, part.arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_later_run_finds_what_an_earlier_one_made(tmp_path):
    opened(tmp_path / "folder").add(BLOCK, [part_of(KEY), part_of(OTHER, 1)])
    later = opened(tmp_path / "folder")
    assert later.missing(BLOCK, [KEY, OTHER]) == []
    assert_same(later.parts().by_key[KEY], part_of(KEY))
    assert_same(later.parts().by_key[OTHER], part_of(OTHER, 1))


def test_what_a_recipe_asks_for_later_is_put_beside_what_is_there(tmp_path):
    folder = opened(tmp_path / "folder")
    folder.add(BLOCK, [part_of(KEY)])
    assert folder.missing(BLOCK, [KEY, OTHER]) == [OTHER]
    folder.add(BLOCK, [part_of(OTHER, 1)])
    later = opened(tmp_path / "folder")
    assert_same(later.parts().by_key[KEY], part_of(KEY))
    assert_same(later.parts().by_key[OTHER], part_of(OTHER, 1))


def test_a_block_whose_bytes_are_not_those_of_its_journal_is_made_again(tmp_path):
    opened(tmp_path / "folder").add(BLOCK, [part_of(KEY)])
    (data,) = (tmp_path / "folder").glob("*.parts")
    damaged = bytearray(data.read_bytes())
    damaged[3] ^= 1
    data.write_bytes(damaged)
    assert opened(tmp_path / "folder").missing(BLOCK, [KEY]) == [KEY]


@pytest.mark.parametrize("text", ["", "{", '{"sha256": 1}', '{"sha256": "", "parts": [{}]}'])
def test_a_journal_that_is_damaged_is_not_a_journal(text, tmp_path):
    opened(tmp_path / "folder").add(BLOCK, [part_of(KEY)])
    (journal,) = (tmp_path / "folder").glob("*.parts.json")
    journal.write_text(text)
    assert opened(tmp_path / "folder").missing(BLOCK, [KEY]) == [KEY]


def test_another_calibration_begins_anew(tmp_path):
    opened(tmp_path / "folder", "one").add(BLOCK, [part_of(KEY)])
    assert opened(tmp_path / "folder", "other").missing(BLOCK, [KEY]) == [KEY]


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("mine")
    (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        opened(tmp_path / "folder")
    assert (tmp_path / "elsewhere/mine").read_text() == "mine"
