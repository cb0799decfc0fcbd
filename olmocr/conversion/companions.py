"""Everything in a converted folder except weights: config, tokenizer, processor, generation files, chat template."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from olmocr.conversion.plan import ConversionPlan, quantization_config
from olmocr.conversion.source.chat_template import special_tokens
from olmocr.conversion.source.config import mlx_config
from olmocr.conversion.source.names import text_settings
from olmocr.conversion.source.templates import SourceTemplates, all_text_first, read_templates
from olmocr.errors import CheckpointError
from olmocr.files import flushed
from olmocr.model_folder import INDEX_FILE, ModelFolder, read_json, refuse_links_out, refuse_no_content
from olmocr.page import MOST_PAGE_PIXELS
from olmocr.tokenizer_file import all_tokens, tokens_beyond, wrong_marks

MOST_PIXELS = MOST_PAGE_PIXELS
"""The most pixels an image may have after the image processor of a converted folder."""

# Copied byte for byte, because another version of transformers would save them differently.
_VERBATIM = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "LICENSE",
)
_REQUIRED = ("tokenizer.json", "tokenizer_config.json")
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_PIXELS = (
    "max_pixels",
    "longest_edge",
)  # both count pixels in these families, despite the second's name
_ANY_NUMBER = 1 << 62

_log = logging.getLogger(__name__)


def check_companions(model: ModelFolder, config: Mapping[str, Any]) -> None:
    """Refuse a model that lacks a file or has an unusable one, before any weight is converted.

    *config* is the model's, in its flat form. Logs a warning about tokens that the embeddings do not have.

    Raises:
        CheckpointError: a file is missing or cannot be used.
    """
    refuse_links_out(model.path)
    missing = [name for name in _REQUIRED if not model.file(name)]
    if missing:
        raise CheckpointError(f"{model.where} lacks {' and '.join(missing)}; a converted model needs its tokenizer")
    for name in (*_VERBATIM, *_PREPROCESSORS):
        _check_content(model.file(name))
    tokens = all_tokens(model.path)
    wrong = wrong_marks(tokens, config)
    if wrong:
        raise CheckpointError(f"{model.where} has another model's tokenizer: {'; '.join(wrong)}")
    beyond = tokens_beyond(tokens, text_settings(dict(config))["vocab_size"])
    if beyond:
        _log.warning("%s: %s; the model cannot take them", model.where, beyond)
    read_templates(model)


def _check_content(file: Path | None) -> None:
    if file is None:
        return
    if file.suffix == ".json":
        read_json(file)
    else:
        refuse_no_content(file, file.read_bytes())


def write_companions(plan: ConversionPlan, folder: Path) -> None:
    """Write everything except the weights into *folder*."""
    source = plan.source.folder
    templates = read_templates(source)
    tokens = special_tokens(source.path)
    write_json(folder / "config.json", mlx_config(plan.config, quantization_config(plan)))
    for name in _VERBATIM:
        _copy_if_there(source.file(name), folder)
    write_file(folder / "chat_template.jinja", templates.default.encode())
    if source.file("chat_template.json"):
        write_json(folder / "chat_template.json", {"chat_template": templates.default})
    for name in ("tokenizer_config.json", *_PREPROCESSORS):
        if file := source.file(name):
            _write_settings(file, folder, templates, tokens)
    _write_index(plan, folder)


def _write_settings(file: Path, folder: Path, templates: SourceTemplates, tokens: dict[str, str]) -> None:
    """Copy a settings file; change it only where it has a template or allows more pixels than a page has."""
    settings = read_json(file)
    changed = bounded(settings) if file.name in _PREPROCESSORS else dict(settings)
    if settings.get("chat_template") is not None:
        changed["chat_template"] = all_text_first(settings["chat_template"], templates, tokens)
    if changed == settings:
        _copy_if_there(file, folder)
    else:
        write_json(folder / file.name, changed)


def bounded(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's settings, however they are nested, with every image limited to MOST_PIXELS."""
    return {key: _bounded(key, value) for key, value in settings.items()}


def _bounded(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return bounded(value)
    pixels = _number(value) if key in _PIXELS else None
    return value if pixels is None or pixels <= MOST_PIXELS else MOST_PIXELS


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def most_pixels(folder: Path) -> int | None:
    """Return the most pixels that the processor files of a folder allow an image, or None if they do not say."""
    found: list[float] = []
    for name in _PREPROCESSORS:
        if (folder / name).is_file():
            found += _pixels_in(read_json(folder / name))
    return int(min(max(found), _ANY_NUMBER)) if found else None


def _pixels_in(settings: dict[str, Any]) -> Iterator[float]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _pixels_in(value)
        elif key in _PIXELS and (pixels := _number(value)) is not None:
            yield pixels


def write_file(path: Path, content: bytes) -> None:
    """Write *content* and sync it to disk, before its folder is renamed."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        flushed(file.fileno())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write *value* as indented JSON."""
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _copy_if_there(file: Path | None, folder: Path) -> None:
    if file is not None:
        write_file(folder / file.name, file.read_bytes())


def _write_index(plan: ConversionPlan, folder: Path) -> None:
    names = {
        output.name: shard.file_name for shard in plan.shards for tensor in shard.tensors for output in tensor.outputs
    }
    index = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": dict(sorted(names.items()))}
    write_json(folder / INDEX_FILE, index)
