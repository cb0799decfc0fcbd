"""A model's folder -> its tokenizer's ids, and what is wrong with them, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError
from olmocr.model_folder import read_json
from olmocr.text import one_line

TOKENIZER_FILE = "tokenizer.json"

_MOST_NAMED = 5

# config.json's names for the tokens around a page's picture, and the tokenizer's spelling of them.
_MARKS = {"image_token_id": "<|image_pad|>", "vision_start_token_id": "<|vision_start|>"}


def read_tokens(folder: Path) -> dict[str, int]:
    """Return the id of every token in tokenizer.json, including those added to its vocabulary.

    Raises:
        CheckpointError: it is missing, not a JSON object, or not a tokenizer.
    """
    path = folder / TOKENIZER_FILE
    content = read_json(path)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # a Unigram model: pieces with scores, whose indices are their ids
        vocabulary = {str(piece[0]): number for number, piece in enumerate(vocabulary) if isinstance(piece, list)}
    added = content.get("added_tokens") or []
    if not isinstance(vocabulary, dict) or not vocabulary or not isinstance(added, list):
        raise CheckpointError(f"{path} does not hold a tokenizer; copy it again from where the model came from")
    tokens = {**vocabulary, **_contents(added)}
    if any(type(each) is not int or each < 0 for each in tokens.values()):
        raise CheckpointError(f"{path} has ids that are not numbers; copy it again from where the model came from")
    return tokens


def _contents(added: list[Any]) -> dict[str, Any]:
    return {str(each.get("content")): each.get("id") for each in added if isinstance(each, dict)}


def all_tokens(folder: Path) -> dict[str, int]:
    """Return the tokens of tokenizer.json and those that other files of the folder add.

    Raises:
        CheckpointError: tokenizer.json cannot be read, or another file does not hold a JSON object.
    """
    tokens = read_tokens(folder)
    decoder: Any = _read_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder")
    for number, entry in (decoder if isinstance(decoder, dict) else {}).items():
        if str(number).isdecimal() and isinstance(entry, dict):
            tokens.setdefault(str(entry.get("content")), int(number))
    for token, number in _read_if_there(folder / "added_tokens.json").items():
        if type(number) is int:
            tokens.setdefault(token, number)
    return tokens


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def tokens_beyond(tokens: Mapping[str, int], rows: int) -> str | None:
    """Return what to say about tokens whose ids are beyond the embeddings' *rows*; None if there are none."""
    beyond = sorted((number, token) for token, number in tokens.items() if number >= rows)
    if not beyond:
        return None
    named = ", ".join(f"{one_line(token, 40)} ({number})" for number, token in beyond[:_MOST_NAMED])
    count = "1 token has an id" if len(beyond) == 1 else f"{len(beyond)} tokens have ids"
    return f"{count} beyond the {rows} rows of the embeddings: {named}{', …' * (len(beyond) > _MOST_NAMED)}"


def wrong_marks(tokens: Mapping[str, int], config: Mapping[str, Any]) -> list[str]:
    """Return where config.json and the tokenizer have different ids for the tokens around a picture."""
    return [
        f"config.json says {name} is {config[name]!r}, but {mark} is {tokens.get(mark, 'no token')} in the tokenizer"
        for name, mark in _MARKS.items()
        if config.get(name) is not None and tokens.get(mark) != config[name]
    ]


def require_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose tokenizer cannot be read, or is not the model's according to its config.json.

    Raises:
        CheckpointError: its tokenizer is like that.
    """
    wrong = wrong_marks(all_tokens(folder), config)
    if wrong:
        raise CheckpointError(f"{folder} has another model's tokenizer: {'; '.join(wrong)}")
