"""The tokens of a model's folder, and whether they are the ones that its config and its embeddings know."""

import json

import pytest

from olmocr.errors import CheckpointError
from olmocr.tokenizer_file import all_tokens, read_tokens, tokens_beyond, wrong_marks


def folder_with(path, vocabulary, added=(), **files):
    content = {"model": {"vocab": vocabulary}, "added_tokens": [{"content": text, "id": at} for text, at in added]}
    (path / "tokenizer.json").write_text(json.dumps(content))
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_added_tokens_belong_to_the_vocabulary(tmp_path):
    assert read_tokens(folder_with(tmp_path, {"a": 0, "b": 1}, [("<x>", 2)])) == {"a": 0, "b": 1, "<x>": 2}


def test_tokens_that_another_file_adds_are_counted(tmp_path):
    folder = folder_with(tmp_path, {"a": 0}, added_tokens={"<y>": 7})
    assert all_tokens(folder) == {"a": 0, "<y>": 7}


def test_ids_without_a_row_are_told_and_others_are_not():
    assert tokens_beyond({"a": 0, "b": 1}, 2) is None
    assert "b (2)" in tokens_beyond({"a": 0, "b": 2}, 2)


def test_a_mark_of_another_id_is_told():
    tokens = {"<|image_pad|>": 5, "<|vision_start|>": 6}
    assert wrong_marks(tokens, {"image_token_id": 5, "vision_start_token_id": 6}) == []
    assert len(wrong_marks(tokens, {"image_token_id": 4, "vision_start_token_id": 6})) == 1


def test_a_file_without_a_vocabulary_is_refused_by_name(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_tokens(tmp_path)
