"""Options that people paste from upstream's documentation work, go to vLLM, or say what to use."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.pipeline.terminal.upstream_options import heed, translated


def test_what_is_ours_is_left_as_it_is():
    args = ["ws", "--pdfs", "a.pdf", "--max_tokens=5", "-o", "x", "-"]
    assert translated(args).args == args


@pytest.mark.parametrize("spelled", [["--max_concurrent_requests", "9"], ["--max-concurrent-requests=9"]])
def test_a_renamed_option_keeps_its_value(spelled):
    assert "".join(translated(spelled).args).replace("=", "") == "--max-concurrent-pages9"


@pytest.mark.parametrize(
    "spelled",
    [
        ["--gpu-memory-utilization", "0.8"],
        ["--tensor_parallel_size=2"],
        ["-tp", "2"],
        ["-dp", "2"],
        ["--max_model_len", "9"],
    ],
)
def test_vllms_own_options_go_to_vllm_and_are_told_to_whoever_does_not_start_it(spelled):
    found = translated(["ws", *spelled, "--markdown"])
    assert found.args == ["ws", "--markdown"]
    assert len(heed(found, is_vllm=True)) == 2
    assert found.notes == []
    assert heed(found, is_vllm=False) == ()
    assert "--backend vllm" in found.notes[0]


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--pages_per_group", "5", "x"], ["x"]),
        (["--pages-per-group=5", "x"], ["x"]),
        (["--beaker", "x"], ["x"]),
        (["--beaker_gpus", "4", "x"], ["x"]),
    ],
)
def test_what_means_nothing_here_is_told_and_skipped_with_its_value(args, left):
    found = translated(args)
    assert found.args == left
    assert "has no effect" in found.notes[0]


def test_a_profile_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "before")
    heed(translated(["--pdf_profile", "work"]), is_vllm=False)
    assert os.environ["AWS_PROFILE"] == "work"


def test_an_option_without_its_value_is_left_to_the_parser():
    assert translated(["ws", "--max_model_len"]).args == ["ws", "--max_model_len"]


@given(st.lists(st.text()))
def test_any_words_are_translated(args):
    found = translated(args)
    assert set(found.args) <= {*args, "--max-concurrent-pages"} or any("--max" in arg for arg in args)
