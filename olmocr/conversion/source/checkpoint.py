"""A model's folder -> SourceCheckpoint. Reads only headers, not weights, and never opens a pickle."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.conversion.source.config import flat_config, ties_embeddings
from olmocr.conversion.source.names import (
    EMBEDDINGS,
    FAMILIES,
    LANGUAGE,
    LM_HEAD,
    PATCH_EMBED,
    VISION,
    expected_shapes,
    mlx_name,
    number_of_blocks,
)
from olmocr.conversion.source.traces import adapter_parts, is_scaled, quantizer_of, unwrapped
from olmocr.errors import CheckpointError
from olmocr.hub.read import remote_header
from olmocr.model_folder import (
    INDEX_FILE,
    MODEL_TYPE,
    WHOLE_FILE,
    ModelFolder,
    index_is_stale,
    is_left_out,
    other_prompt,
    read_config_of,
    refuse_no_content,
    trainer_folders,
)
from olmocr.strays import is_passed_over
from olmocr.tensors.dtypes import FLOAT_DTYPES, FP8_DTYPE
from olmocr.tensors.header import (
    ShardHeader,
    TensorInfo,
    listed,
    parse_header,
    parse_json,
    read_shard_header,
    shown,
)

_WEIGHT_SCALE = ".weight_scale"

# What compressed-tensors must say about FP8 weights; otherwise row * scale would not restore them.
_FP8_WEIGHTS: dict[str, tuple[object, ...]] = {
    "num_bits": (8,),
    "type": ("float",),
    "strategy": ("channel", "tensor"),
    "symmetric": (True,),
    "dynamic": (False,),
}
# Settings that would change weights or tensors further; each may be present but empty.
_FP8_NOTHING_ELSE = ("kv_cache_scheme", "transform_config")

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,200}\.safetensors", re.ASCII)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")

# A second copy of the weights, in the form of the first Mistral models; transformers and mlx-vlm do not read it.
_CONSOLIDATED = "consolidated.safetensors"

# Files that a trainer keeps for itself, and weights that it saves in parts, one for each process.
_TRAINERS_OWN = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "trainer_state")
_FOLDERS_OF_PARTS = ("pytorch_model_fsdp_0", "fsdp_0", ".distcp", "zero_to_fp32.py")

# What browsers, aria2, rsync and the Hub's client append to a file's name while they download it.
_UNFINISHED = (".aria2", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".tmp")

_QUANTIZED_NAMES = ("-FP8", "-fp8", "-AWQ", "-GPTQ", "-bnb-4bit", "-unsloth-bnb-4bit", "-GGUF")

_COLOURS = 3
_COMPARED_BYTES = 16 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceCheckpoint:
    """A complete checkpoint: *tensors* by MLX name, exactly those that *config* (flat) requires."""

    folder: ModelFolder
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @property
    def image_token(self) -> int:
        """The token in a prompt that stands for a piece of an image.

        Raises:
            CheckpointError: config.json does not name it.
        """
        token = self.config.get("image_token_id")
        if not isinstance(token, int):
            raise CheckpointError(
                f"{self.folder.where} cannot be calibrated: its config.json has no image_token_id; add it, or convert "
                "with `method` fit"
            )
        return token


def read_checkpoint(folder: ModelFolder) -> SourceCheckpoint:
    """Read the headers of a checkpoint, here or on the Hub, and check that every tensor is present.

    Headers and bytes count more than config.json: a head in the files is used even if config.json ties it to the
    embeddings, and a quantizer's settings are ignored if all weights are in full precision. The log reports both.

    A checkpoint that was trained on another prompt than olmOCR-2's, so that the pipeline here would not run it, is read
    with a warning. Its name stays in the config, so that the pipeline recognizes the converted model, too.

    Raises:
        CheckpointError: it is not a checkpoint, or is damaged, incomplete, or of an unsupported family.
        HubError: the headers cannot be read from the Hub.
    """
    config = read_config_of(folder, FAMILIES)
    tensors = _read_tensors(folder)
    is_fp8 = _is_fp8(folder, config, tensors)
    flat = flat_config(config)
    _keep_other_prompt(folder, config, flat)
    flat["tie_word_embeddings"] = _is_tied(folder, config, tensors)
    return SourceCheckpoint(folder, flat, _matched(tensors, flat, is_fp8, folder))


def _is_tied(folder: ModelFolder, config: dict[str, Any], tensors: list[TensorInfo]) -> bool:
    """Return whether the embeddings are also the head, decided as in transformers 5 by whether the files have a head.

    A head in the files that differs from the embeddings belongs to the model, whatever config.json says.
    """
    stated = ties_embeddings(config)
    named = {mlx_name(info.name, {"tie_word_embeddings": False}): info for info in tensors}
    head, embeddings = named.get(LM_HEAD), named.get(EMBEDDINGS)
    if head is None:
        return stated is not False
    if not stated or (embeddings is not None and _are_equal(folder, head, embeddings)):
        return bool(stated)
    _log.warning(
        "%s: config.json says tie_word_embeddings, but %s has a separate head, %s; it is kept, as in transformers 5",
        folder.where,
        head.shard,
        shown(head.name),
    )
    return False


def _are_equal(folder: ModelFolder, one: TensorInfo, other: TensorInfo) -> bool:
    """Return whether two tensors are equal to the byte; on the Hub, where they would have to be fetched, False."""
    if (one.dtype, one.shape) != (other.dtype, other.shape) or folder.remote_weights:
        return False
    try:
        with (folder.path / one.shard).open("rb") as file, (folder.path / other.shard).open("rb") as beside:
            for place in range(0, one.nbytes, _COMPARED_BYTES):
                length = min(_COMPARED_BYTES, one.nbytes - place)
                file.seek(one.offset + place)
                beside.seek(other.offset + place)
                if file.read(length) != beside.read(length):
                    return False
    except OSError as error:
        raise CheckpointError(f"{folder.path / one.shard} cannot be read: {error.strerror or error}") from error
    return True


def _keep_other_prompt(folder: ModelFolder, config: dict[str, Any], flat: dict[str, Any]) -> None:
    flat.pop("_name_or_path", None)  # a path on the disk of the person who saved it
    name = other_prompt(folder, config)
    if name:
        flat["_name_or_path"] = name
    if name or config["model_type"] != MODEL_TYPE:
        _log.warning(
            "%s was not trained on olmOCR-2's prompt: it can be converted, but the pipeline here uses that prompt "
            "and refuses to run it",
            folder.where,
        )


def _is_fp8(folder: ModelFolder, config: dict[str, Any], tensors: list[TensorInfo]) -> bool:
    """Return whether matrices may be FP8; refuse any other checkpoint that is not in full precision."""
    text = config.get("text_config")
    sections = [config, text] if isinstance(text, dict) else [config]
    found = [section["quantization_config"] for section in sections if section.get("quantization_config")]
    leftover = [*found, *(section["quantization"] for section in sections if section.get("quantization"))]
    by_name = quantizer_of(tensors)
    if by_name is None and not is_scaled(tensors) and all(info.dtype in FLOAT_DTYPES for info in tensors):
        if leftover:
            _log.warning(
                "%s: config.json says that the weights are quantized%s, but the files hold them unquantized, in %s; "
                "they are used as they are",
                folder.where,
                _by_what(leftover[0]),
                " and ".join(sorted({info.dtype for info in tensors})),
            )
        return False
    reason = by_name or next(filter(None, map(_why_not_fp8, found)), None)
    if reason:
        raise CheckpointError(
            f"{folder.where} is already quantized in a way that cannot be undone exactly ({reason}); convert the "
            f"weights that it was made from{_unquantized(folder)}"
        )
    return bool(found)


def _by_what(quantization: Any) -> str:
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return f" by {shown(str(method))}" if method else ""


def _unquantized(folder: ModelFolder) -> str:
    """Return, for a sentence, the model that this one was made from, by its own name."""
    name = folder.repo_id or ""
    original = next((name.removesuffix(end) for end in _QUANTIZED_NAMES if name.endswith(end)), None)
    return f", according to its name {original}" if original else ""


def _converted_already(folder: ModelFolder) -> CheckpointError:
    return CheckpointError(
        f"{folder.where} is already a converted MLX model; convert the checkpoint that it was made from"
    )


def _why_not_fp8(quantization: Any) -> str | None:
    """Return how a quantization_config differs from the FP8 of compressed-tensors that the published olmOCR-2 uses."""
    if not isinstance(quantization, dict):
        return f"quantization_config is {quantization!r}"
    if quantization.get("quant_method") != "compressed-tensors":
        return f"quant_method is {quantization.get('quant_method')!r}"
    sparsity = quantization.get("sparsity_config") or {}
    if not isinstance(sparsity, dict) or sparsity.get("format", "dense") != "dense":
        return "it has a sparsity_config"
    extra = [key for key in _FP8_NOTHING_ELSE if quantization.get(key)]
    if extra:
        return f"it has a {extra[0]}"
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        return "it does not have config_groups"
    return next(filter(None, (_why_no_fp8_group(group, quantization) for group in groups.values())), None)


def _why_no_fp8_group(group: Any, quantization: dict[str, Any]) -> str | None:
    # input_activations are not checked: how activations are rounded does not change weights.
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        return "a config group does not describe weights"
    kind = group.get("format") or quantization.get("format")
    if kind != "float-quantized":
        return f"format is {kind!r}"
    wrong = [key for key, right in _FP8_WEIGHTS.items() if group["weights"].get(key) not in right]
    return f"{wrong[0]} of its weights is {group['weights'].get(wrong[0])!r}" if wrong else None


def _read_tensors(folder: ModelFolder) -> list[TensorInfo]:
    """Read every shard's header; refuse shards that do not match the index, and tensors already in MLX's layout.

    The tensors have their names in the model itself, without the names of wrappers.
    """
    index = _read_index(folder)
    if index is not None and index_is_stale(folder):
        index = None
    if index is not None:
        _refuse_two_models(folder, set(index.values()))
    shards = sorted(set(index.values())) if index is not None else _unindexed_shards(folder)
    _refuse_unfinished(folder, shards)
    headers = _read_headers(folder, shards)
    tensors = [info for header in headers for info in header.tensors]
    if _is_mlx(headers, tensors):
        raise _converted_already(folder)
    problems = _repeated(tensors)
    if problems:
        raise CheckpointError(_why_repeated(folder, index, tensors, problems))
    if index is not None:
        problems = _index_problems(index, tensors)
    if problems:
        heading = f"{INDEX_FILE} of {folder.where} does not match the files beside it; if they are of one model, use"
        raise CheckpointError(listed(f"{heading} `leave_out='{INDEX_FILE}'` to read them without it", problems))
    _say_what_is_not_read(folder, shards, is_indexed=index is not None)
    tensors, wrappers = unwrapped(tensors)
    _refuse_parts_of_adapter(folder, tensors)
    if wrappers:
        _log.warning("%s: names of tensors contain %s, which is removed", folder.where, " and ".join(wrappers))
    return tensors


def _is_mlx(headers: list[ShardHeader], tensors: list[TensorInfo]) -> bool:
    """Return whether weights are in MLX's form: by their writer, by packed weights, or by the one different layout.

    Names are not enough: other tools also call parts of a model ``language_model`` and ``vision_tower``.
    """
    if any(header.metadata.get("format") == "mlx" for header in headers):
        return True
    named = {info.name: info for info in tensors}
    for name, info in named.items():
        module = name.removesuffix(".weight")
        if info.dtype == "U32" and f"{module}.scales" in named:
            return True
        if name.endswith(PATCH_EMBED.removeprefix(VISION)) and len(info.shape) == 5 and _has_mlx_layout(info.shape):
            return True
    return False


def _has_mlx_layout(shape: tuple[int, ...]) -> bool:
    """Return whether a patch embedding of *shape* has colours last, as in MLX, after square patches."""
    return shape[4] == _COLOURS != shape[1] and shape[2] == shape[3]


def _why_repeated(
    folder: ModelFolder, index: dict[str, str] | None, tensors: list[TensorInfo], problems: list[str]
) -> str:
    """Return why tensors that are in two files are refused, with what each reader would do."""
    if index is not None:
        return listed(f"the shards of {folder.where} do not agree; its {INDEX_FILE} names both", problems)
    files = sorted({info.shard for info in tensors})
    by_transformers = f"reads {WHOLE_FILE} alone" if WHOLE_FILE in files else "reads none of them without an index"
    return listed(
        f"{folder.where} has no {INDEX_FILE}, and the same tensors in several files ({', '.join(files[:5])}): "
        f"transformers {by_transformers}, mlx-vlm reads all, and the last one counts; "
        "name those that are not the model's in `leave_out='NAME'`",
        problems,
    )


def _refuse_unfinished(folder: ModelFolder, shards: list[str]) -> None:
    """Refuse a shard that is still being downloaded: it may have its full size, but not yet its bytes."""
    if folder.remote_weights:
        return
    for shard in shards:
        marks = [f"{shard}{end}" for end in _UNFINISHED if (folder.path / f"{shard}{end}").exists()]
        if marks:
            raise CheckpointError(f"{folder.path / shard} is incomplete, as {marks[0]} shows; finish its download")


def _unfinished_names(shard: str) -> list[str]:
    return [*(f"{shard}{end}" for end in _UNFINISHED), f".{shard}.icloud"]


def _refuse_parts_of_adapter(folder: ModelFolder, tensors: list[TensorInfo]) -> None:
    parts = adapter_parts(tensors)
    if parts:
        heading = (
            f"{folder.where} has {len(parts)} tensor{'s' * (len(parts) > 1)} of an adapter that is not merged into its "
            "weights; merge it (in peft: merge_and_unload, then save_pretrained) and convert the saved result"
        )
        raise CheckpointError(listed(heading, [shown(name) for name in parts]))


def _say_what_is_not_read(folder: ModelFolder, shards: Sequence[str], *, is_indexed: bool) -> None:
    """Log which weights in the folder are not the model's, going by its index or their names."""
    if not is_indexed and folder.file(INDEX_FILE):
        _log.warning(
            "%s: %s names missing files, and is ignored; %s is read instead, as in transformers and mlx-vlm",
            folder.where,
            INDEX_FILE,
            ", ".join(shards[:5]),
        )
    others = [name for name in folder.weight_files if name not in shards]
    if not folder.remote_weights:
        others += sorted(path.name for path in folder.path.iterdir() if _is_other_weights(path))
        others += [f"{name}/" for name in trainer_folders(folder)]
    if others:
        _log.warning("%s: these files are not read: %s", folder.where, ", ".join(map(shown, others[:10])))


def _is_other_weights(path: Path) -> bool:
    is_model = path.name.startswith(("pytorch_model", "consolidated", "model")) and path.suffix in _PICKLES
    return not path.name.startswith(".") and (is_model or path.suffix == ".gguf")


def _read_index(folder: ModelFolder) -> dict[str, str] | None:
    """Return which shard the index names for each tensor; None without an index, or if it is to be left out."""
    file = folder.path / INDEX_FILE
    if not file.exists() or is_left_out(INDEX_FILE, folder.left_out):
        return None
    try:
        content = file.read_bytes()
        refuse_no_content(file, content)
        weight_map = parse_json(content, str(file)).get("weight_map")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file} lacks a weight_map; use `leave_out='{INDEX_FILE}'` to read the files without it")
    strange = [name for name in weight_map.values() if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name)]
    if strange:
        raise CheckpointError(f"{file} names {shown(repr(strange[0]))}, not a safetensors file in the folder")
    return weight_map


def _refuse_two_models(folder: ModelFolder, shards: set[str]) -> None:
    """Refuse a folder from which transformers and mlx-vlm would read different files."""
    if WHOLE_FILE in folder.weight_files and WHOLE_FILE not in shards:
        raise CheckpointError(
            f"{folder.where} holds two models: {WHOLE_FILE}, which transformers would read, and the "
            f"{len(shards)} files that {INDEX_FILE} names, which mlx-vlm would read; leave one out with "
            f"`leave_out='{WHOLE_FILE}'` or `leave_out='{INDEX_FILE}'` `leave_out='{_pattern_of(shards)}'`"
        )


def _pattern_of(shards: Iterable[str]) -> str:
    """Return a pattern that matches *shards*, for ``leave_out``."""
    names = sorted(shards)
    return names[0] if len(names) == 1 else f"{_common_start(names)}*.safetensors"


def _common_start(names: Iterable[str]) -> str:
    first, last = min(names := list(names)), max(names)
    length = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:length]


def _unindexed_shards(folder: ModelFolder) -> list[str]:
    """Return the shards where no index names them: all that are called ``model*``, or the only file."""
    files = [name for name in folder.weight_files if name != _CONSOLIDATED]
    shards = [name for name in files if name.startswith("model")] or files
    if not shards:
        raise CheckpointError(_why_no_shards(folder))
    if len(shards) > 1 and not shards[0].startswith("model"):
        raise CheckpointError(
            f"{folder.where} has no {INDEX_FILE}, so it is unclear which *.safetensors files make up the model: "
            f"{', '.join(shards[:5])}; copy the index, too, or name those that are not the model's in "
            "`leave_out='NAME'`"
        )
    return shards


def _why_no_shards(folder: ModelFolder) -> str:
    there = sorted(path.name for path in folder.path.iterdir() if not is_passed_over(path.name))
    pickles = [name for name in there if Path(name).suffix in _PICKLES and not name.startswith(_TRAINERS_OWN)]
    if pickles:
        return (
            f"{folder.where} has its weights only as pickles ({', '.join(pickles[:5])}), which are not loaded because "
            "they can run code; download or make the model's *.safetensors files"
        )
    nothing = f"{folder.where} is not a checkpoint: it has no *.safetensors files"
    endings = tuple(f".safetensors{end}" for end in (*_UNFINISHED, ".icloud"))
    coming = sorted(path.name for path in folder.path.iterdir() if path.name.endswith(endings))
    if coming:
        return f"{nothing} that are complete ({', '.join(coming[:5])}); finish their download"
    parts = [name for name in there if name.endswith(_FOLDERS_OF_PARTS) or name.startswith("global_step")]
    if parts:
        return (
            f"{nothing}; {parts[0]} holds weights that training saved in parts: put these together first, with "
            "accelerate merge-weights (FSDP) or zero_to_fp32.py (DeepSpeed)"
        )
    if any(name.endswith(".gguf") for name in there):
        return f"{nothing}; it holds GGUF files, which are made for llama.cpp: give the folder that they were made from"
    saved = trainer_folders(folder)
    return f"{nothing}; it holds training checkpoints, give one of these: {', '.join(saved)}" if saved else nothing


def _read_headers(folder: ModelFolder, shards: list[str]) -> list[ShardHeader]:
    there = folder.weight_files
    missing = [name for name in shards if name not in there]
    if missing:
        raise CheckpointError(_why_missing(folder, shards, missing))
    headers, problems = [], []
    for shard in shards:
        try:
            headers.append(_read_shard(folder, shard))
        except CheckpointError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise CheckpointError(problems[0])
    if problems:
        raise CheckpointError(listed(f"{len(problems)} shards of {folder.where} cannot be read", problems))
    return headers


def _why_missing(folder: ModelFolder, shards: list[str], missing: list[str]) -> str:
    unfinished = [name for shard in missing for name in _unfinished_names(shard) if (folder.path / name).exists()]
    others = [name for name in folder.weight_files if name not in shards]
    beside = f"; there are {', '.join(map(shown, others[:5]))}, which {INDEX_FILE} does not name" if others else ""
    begun = f"; {unfinished[0]} is incomplete" if unfinished else ""
    advice = (
        f"copy the missing ones from where the others came from or, if the index is out of date, read what is there "
        f"with `leave_out='{INDEX_FILE}'`"
    )
    return (
        f"{folder.where} lacks {len(missing)} of {len(shards)} shards that {INDEX_FILE} names: "
        f"{', '.join(missing[:5])}{beside}{begun}; {advice}"
    )


def _read_shard(folder: ModelFolder, shard: str) -> ShardHeader:
    if not folder.remote_weights:
        return read_shard_header(folder.path / shard)
    beginning, size = remote_header(folder, shard)
    return parse_header(beginning, size, shard, f"{folder.repo_id}/{shard}")


def _repeated(tensors: Iterable[TensorInfo]) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for info in tensors:
        if info.name in seen:
            problems.append(f"{shown(info.name)} is in two shards, {seen[info.name]} and {info.shard}")
        seen[info.name] = info.shard
    return problems


def _index_problems(index: dict[str, str], tensors: list[TensorInfo]) -> list[str]:
    held = {(info.name, info.shard) for info in tensors}
    return [
        *(
            f"{INDEX_FILE} says that {shown(name)} is in {shard}, which does not have it"
            for name, shard in index.items()
            if (name, shard) not in held
        ),
        *(
            f"{shown(info.name)} is in {info.shard}, but not in {INDEX_FILE}"
            for info in tensors
            if info.name not in index
        ),
    ]


def _matched(
    found: list[TensorInfo], config: dict[str, Any], is_fp8: bool, folder: ModelFolder
) -> dict[str, TensorInfo]:
    """Return the tensors by MLX name; refuse a checkpoint whose tensors are not exactly those its config requires."""
    expected = expected_shapes(config)
    named: dict[str, TensorInfo] = {}
    if not any(mlx_name(info.name, config) in expected for info in found):
        raise CheckpointError(_all_foreign(found, expected, folder))
    problems = []
    for info in found:
        name = mlx_name(info.name, config)
        if name is None or (is_fp8 and name.endswith(".input_scale")):  # scales activations, which are not rounded here
            continue
        if name in named:
            problems.append(f"{shown(info.name)} and {shown(named[name].name)} are the same tensor of the model")
        named[name] = info
    if is_fp8:
        named = _with_scales(named)
    problems += [f"{name} is missing" for name in expected if name not in named]
    for name, info in named.items():
        problem = _tensor_problem(info, expected.get(name))
        if problem:
            problems.append(f"{shown(info.name)} {problem}")
    if problems:
        heading = f"{folder.where} does not hold the tensors that its config.json requires{_other_depth(named, config)}"
        raise CheckpointError(listed(heading, problems))
    return {name: named[name] for name in expected}


def _all_foreign(found: list[TensorInfo], expected: Iterable[str], folder: ModelFolder) -> str:
    """Return what to say about names that all belong to another model, or to an unknown wrapper."""
    names = [info.name for info in found]
    prefix = _common_start(names).rpartition(".")[0]
    if prefix:
        what = (
            f"all of them begin with {shown(prefix)}., which is not part of this model's names: save the model itself"
        )
    else:
        what = "none of these belongs to the model that config.json describes: copy the config.json of this model"
    return (
        f"{folder.where} holds {len(names)} tensors, such as {', '.join(map(shown, names[:3]))}; {what} "
        f"(it would have names such as {', '.join(list(expected)[:2])}, or as transformers saves these)"
    )


def _with_scales(named: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return *named* with every weight_scale under the name of the weight that it scales."""
    weights = dict(named)
    for name, info in named.items():
        weight = name.removesuffix("_scale")
        if name.endswith(_WEIGHT_SCALE) and weight in weights:
            weights[weight] = replace(weights[weight], scale=info)
            del weights[name]
    return weights


def _other_depth(named: Iterable[str], config: dict[str, Any]) -> str:
    """Return, for a sentence, how many layers the files hold where config.json has another number."""
    counted = {"layers": "num_hidden_layers", "blocks": "depth"}
    told = []
    for part, number in number_of_blocks(config).items():
        pattern = re.compile(rf"{LANGUAGE if part == 'layers' else VISION}(?:model\.)?{part}\.(\d+)\.")
        there = len({match[1] for name in named if (match := pattern.match(name))})
        if there != number:
            told.append(f"{counted[part]} is {number}, and the files have {there}")
    return f" ({'; '.join(told)})" if told else ""


def _tensor_problem(info: TensorInfo, shape: tuple[int, ...] | None) -> str | None:
    if shape is None:
        return f"{info.shape} is not a tensor of this model"
    if info.shape != shape:
        return f"has shape {info.shape}, config.json requires {shape}"
    if info.scale is not None:
        return _scale_problem(info, info.scale)
    if info.dtype not in FLOAT_DTYPES:
        return f"has dtype {info.dtype}, not one of {', '.join(FLOAT_DTYPES)}"
    return None


def _scale_problem(info: TensorInfo, scale: TensorInfo) -> str | None:
    if info.dtype != FP8_DTYPE or len(info.shape) != 2:
        return f"has a weight_scale, but is not a matrix of {FP8_DTYPE}: {info.dtype} {info.shape}"
    if scale.dtype not in FLOAT_DTYPES:
        return f"has a weight_scale of dtype {scale.dtype}, not one of {', '.join(FLOAT_DTYPES)}"
    if scale.shape not in ((info.shape[0], 1), (1,), ()):
        return f"has a weight_scale of shape {scale.shape}, which is not one for each of its rows, or one for all"
    return None
