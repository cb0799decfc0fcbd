"""A model, by folder or repository -> a converted folder that is whole, or none."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmocr import __version__
from olmocr.conversion.chat_template import text_first
from olmocr.conversion.checkpoint import read_checkpoint
from olmocr.conversion.config import mlx_config
from olmocr.conversion.plan import ConversionPlan, make_plan, quantization_config
from olmocr.conversion.recipe import QuantRecipe
from olmocr.conversion.report import ConversionReport, write_report
from olmocr.device import start_mlx
from olmocr.errors import CheckpointError, OutputError, PlanError, output_error
from olmocr.model_folder import ModelFolder, read_json

if TYPE_CHECKING:
    from olmocr.conversion.shards import Progress

# Copied byte for byte: what transformers installs today would save them differently tomorrow.
_VERBATIM = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "LICENSE",
)
_REQUIRED = ("tokenizer.json", "tokenizer_config.json")

# Room for headers, index and tokenizer beside the tensors' bytes.
_SPARE_BYTES = 64 << 20


def plan_conversion(model: ModelFolder, recipe: QuantRecipe) -> ConversionPlan:
    """Read *model*'s headers and decide what will be written.

    Raises:
        CheckpointError: *model* cannot be converted.
        PlanError: *recipe* does not fit it.
    """
    missing = [name for name in _REQUIRED if not (model.path / name).is_file()]
    source = read_checkpoint(model)
    if missing:
        raise CheckpointError(f"{model.path} has no {' and no '.join(missing)}; a converted model needs its tokenizer")
    text_first(_source_template(model.path))  # refuse a bad template now, not after the weights are written
    return make_plan(source, recipe)


def write_model(plan: ConversionPlan, output: Path, progress: Progress = lambda nbytes: None) -> ConversionReport:
    """Carry *plan* out: write beside *output*, read headers again, rename. A failure leaves nothing.

    Raises:
        OutputError: *output* exists, lies in the source, or cannot be written.
        PlanError: the disk has not enough room.
    """
    _check_output(plan, output)
    started = time.monotonic()
    device = start_mlx()
    # Only now, since it imports MLX, which must find its BLAS loaded.
    from olmocr.conversion.shards import check_shards, write_shards

    with _written_beside(output) as folder:
        write_shards(plan, folder, progress)
        check_shards(plan, folder)
        _write_companions(plan, folder)
        report = _report(plan, device.mlx_version, time.monotonic() - started)
        write_report(report, folder)
    return report


def _check_output(plan: ConversionPlan, output: Path) -> None:
    """Refuse an output folder that cannot become the result, before anything is written.

    Raises:
        OutputError: *output* exists or lies in the source.
        PlanError: the disk has not enough room.
    """
    if _is_taken(output):
        raise OutputError(f"{output} exists; choose another --output, or remove it first")
    source = plan.source.folder.path.resolve()
    if output.resolve().is_relative_to(source):
        raise OutputError(f"{output} lies in the source {source}; choose an --output outside it")
    parent = next(folder for folder in output.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    needed = plan.weight_bytes + _SPARE_BYTES
    if free < needed:
        raise PlanError(
            f"{output} needs {needed / 1e9:.2f} GB, and {parent} has {free / 1e9:.2f} GB free; make room first"
        )


def _is_taken(output: Path) -> bool:
    try:
        return output.exists() and not (output.is_dir() and not any(output.iterdir()))
    except OSError as error:  # a folder that may not be looked into, a name that is too long
        raise output_error(error, str(output)) from error


@contextlib.contextmanager
def _written_beside(output: Path) -> Iterator[Path]:
    """Yield a new folder next to *output* that becomes it when the block ends well, and is removed otherwise."""
    temporary = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
        temporary.mkdir()
        yield temporary
        temporary.rename(output)
    except OSError as error:
        raise output_error(error, str(output)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_companions(plan: ConversionPlan, folder: Path) -> None:
    """Write all that is no weight: config, tokenizer and processor files, chat template."""
    source = plan.source.folder.path
    _write_json(folder / "config.json", mlx_config(plan.config, quantization_config(plan)))
    for name in _VERBATIM:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    _write_chat_template(source, folder)


def _write_chat_template(source: Path, folder: Path) -> None:
    """Write the template wherever the source has it, so that no client finds one that asks image first."""
    tokenizer_config = read_json(source / "tokenizer_config.json")
    template = text_first(_source_template(source))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if (source / "chat_template.json").is_file():
        _write_json(folder / "chat_template.json", {"chat_template": template})
    if "chat_template" in tokenizer_config:
        _write_json(folder / "tokenizer_config.json", {**tokenizer_config, "chat_template": template})
    else:
        shutil.copyfile(source / "tokenizer_config.json", folder / "tokenizer_config.json")


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


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _report(plan: ConversionPlan, mlx_version: str, seconds: float) -> ConversionReport:
    folder = plan.source.folder
    return ConversionReport(
        source=folder.repo_id or folder.name,
        revision=folder.revision,
        recipe=plan.recipe.name,
        tensors=len(plan.tensors),
        parameters=plan.parameters,
        weight_bytes=plan.weight_bytes,
        bits_per_weight=plan.bits_per_weight,
        kept=dict(Counter(tensor.kept_because for tensor in plan.tensors if tensor.kept_because)),
        olmocr_version=__version__,
        mlx_version=mlx_version,
        seconds=round(seconds, 3),
    )
