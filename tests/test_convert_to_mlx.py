"""The command that converts: what it says it made, and how it refuses."""

import signal

import pytest

from tests.checkpoints import sparse_checkpoint, tiny_checkpoint
from tests.programs import CONVERT, TWICE, UNMEASURED, assert_one_sentence, interrupted, run, small_disk


def test_a_conversion_says_what_it_made_and_the_folder_is_named_after_the_model(tmp_path):
    source = tiny_checkpoint(tmp_path / "olmOCR-mine")
    done = run(CONVERT, source, "--quantize", "4bit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "olmOCR-mine-mlx-4bit: 0.000 GB, " in done.stdout
    assert (tmp_path / "olmOCR-mine-mlx-4bit/config.json").exists()
    assert "olmocr workspace --pdfs FILE.pdf --model olmOCR-mine-mlx-4bit --markdown" in done.stdout


def test_an_output_folder_that_exists_is_one_sentence(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    done = run(CONVERT, tiny_checkpoint(tmp_path / "source"), "-q", "4bit", "-o", tmp_path / "out")
    assert_one_sentence(done, 6, "exists; choose another --output, or remove it first")


def test_an_unknown_recipe_is_one_sentence(tmp_path):
    done = run(CONVERT, tiny_checkpoint(tmp_path / "source"), "-q", "7bit", cwd=tmp_path)
    assert_one_sentence(done, 2, "there is no recipe '7bit'; choose one of 3bit, 4bit, 5bit")


def test_a_conversion_onto_a_full_disk_is_one_sentence_and_leaves_no_folder(tmp_path):
    source = tiny_checkpoint(tmp_path / "source")
    done = run(CONVERT, source, "-q", "4bit", "-o", tmp_path / "out", preexec_fn=small_disk, env=UNMEASURED)
    assert_one_sentence(done, 6, "the disk is full", "could not be written", "free some space")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("signals", [(signal.SIGINT,), TWICE, (signal.SIGTERM,)])
def test_a_conversion_that_is_stopped_leaves_no_folder(signals, tmp_path):
    source = sparse_checkpoint(tmp_path / "source", vocab_size=4_000_000)
    code = interrupted(
        CONVERT, source, "-q", "4bit", "-o", tmp_path / "out",
        when=lambda: [path for path in tmp_path.glob(".out.*") if (path / "model.safetensors").exists()],
        signals=signals,
    )  # fmt: skip
    assert code == 130
    assert list(tmp_path.iterdir()) == [source]
