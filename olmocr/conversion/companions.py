"""All of a converted folder that is no weight: config, tokenizer, processor and generation files, chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olmocr.conversion.chat_template import text_first
from olmocr.conversion.config import mlx_config
from olmocr.conversion.plan import ConversionPlan, quantization_config
from olmocr.errors import CheckpointError
from olmocr.files import flushed
from olmocr.model_folder import INDEX_FILE, ModelFolder, read_json, refuse_links_out
from olmocr.page import TARGET_LONGEST_IMAGE_DIM

MOST_PIXELS = TARGET_LONGEST_IMAGE_DIM * TARGET_LONGEST_IMAGE_DIM
"""What a page has at most when olmOCR-2 is asked. Base models allow 12.8 million pixels: an image of that
size, sent by any other client, takes all memory that a small machine has."""

# Copied byte for byte: what transformers installs today would save them differently tomorrow.
_VERBATIM = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "LICENSE",
)
_REQUIRED = ("tokenizer.json", "tokenizer_config.json")
_PREPROCESSOR = "preprocessor_config.json"


def check_companions(model: ModelFolder) -> None:
    """Refuse a model that lacks a file or has a chat template that cannot be used: now, not after the weights.

    Raises:
        CheckpointError: it does.
    """
    refuse_links_out(model.path)
    missing = [name for name in _REQUIRED if not (model.path / name).is_file()]
    if missing:
        raise CheckpointError(f"{model.path} has no {' and no '.join(missing)}; a converted model needs its tokenizer")
    text_first(_source_template(model.path))
    if (model.path / _PREPROCESSOR).is_file():
        read_json(model.path / _PREPROCESSOR)


def write_companions(plan: ConversionPlan, folder: Path) -> None:
    """Write all that is no weight into *folder*."""
    source = plan.source.folder.path
    write_json(folder / "config.json", mlx_config(plan.config, quantization_config(plan)))
    for name in _VERBATIM:
        _copy_if_there(source / name, folder)
    _write_preprocessor(source, folder)
    _write_chat_template(source, folder)
    _write_index(plan, folder)


def write_file(path: Path, content: bytes) -> None:
    """Write *content* and have it on the disk before a folder is given its name."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        flushed(file.fileno())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write *value* as indented JSON."""
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _copy_if_there(file: Path, folder: Path) -> None:
    if file.is_file():
        write_file(folder / file.name, file.read_bytes())


def _write_index(plan: ConversionPlan, folder: Path) -> None:
    names = {
        output.name: shard.file_name for shard in plan.shards for tensor in shard.tensors for output in tensor.outputs
    }
    index = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": dict(sorted(names.items()))}
    write_json(folder / INDEX_FILE, index)


def _write_preprocessor(source: Path, folder: Path) -> None:
    """Copy the image processor's settings; where they allow more pixels than a page has, allow that many."""
    if not (source / _PREPROCESSOR).is_file():
        return
    settings = read_json(source / _PREPROCESSOR)
    size = settings.get("size")
    bounded = {**settings, **_bounded(settings, "max_pixels")}
    if isinstance(size, dict):
        bounded["size"] = {**size, **_bounded(size, "max_pixels"), **_bounded(size, "longest_edge")}
    if bounded == settings:
        _copy_if_there(source / _PREPROCESSOR, folder)
    else:
        write_json(folder / _PREPROCESSOR, bounded)


def _bounded(settings: dict[str, Any], key: str) -> dict[str, int]:
    value = settings.get(key)
    return {key: MOST_PIXELS} if isinstance(value, int) and value > MOST_PIXELS else {}


def _write_chat_template(source: Path, folder: Path) -> None:
    """Write the template wherever the source has it, so that no client finds one that asks image first."""
    tokenizer_config = read_json(source / "tokenizer_config.json")
    template = text_first(_source_template(source))
    write_file(folder / "chat_template.jinja", template.encode())
    if (source / "chat_template.json").is_file():
        write_json(folder / "chat_template.json", {"chat_template": template})
    if "chat_template" in tokenizer_config:
        write_json(folder / "tokenizer_config.json", {**tokenizer_config, "chat_template": template})
    else:
        _copy_if_there(source / "tokenizer_config.json", folder)


def _source_template(source: Path) -> str:
    """Return the template that transformers would use: its own file first, then the older places."""
    jinja, older = source / "chat_template.jinja", source / "chat_template.json"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{jinja} cannot be read: {error}") from error
    holder = read_json(older if older.is_file() else source / "tokenizer_config.json")
    template = holder.get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(f"{source} has no chat template; copy chat_template.json from the base model")
    return template
