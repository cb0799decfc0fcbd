"""Any MLX folder -> whether it is complete, and if not, everything that is wrong with it."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from olmocr.conversion.shards import all_threads
from olmocr.conversion.source.checkpoint import SourceCheckpoint, read_checkpoint
from olmocr.conversion.source.config import flat_config
from olmocr.conversion.source.names import EMBEDDINGS, FAMILIES, expected_shapes, mlx_name, mlx_shape
from olmocr.errors import CheckpointError, MissingDependencyError
from olmocr.files import is_folder
from olmocr.model_folder import (
    HASHES_FILE,
    INDEX_FILE,
    ModelFolder,
    read_json,
    refuse_adapter,
    refuse_code,
    refuse_links_out,
)
from olmocr.reports.parts import bits_per_weight
from olmocr.runtime.device import start_mlx
from olmocr.strays import files_in, is_stray
from olmocr.tensors.dtypes import FLOAT_DTYPES
from olmocr.tensors.floats import is_float
from olmocr.tensors.header import TensorInfo, parse_json, read_header
from olmocr.tokenizer_file import TOKENIZER_FILE, all_tokens, tokens_beyond, wrong_marks
from olmocr.validate.weights.difference import TensorError, bytes_to_compare, compare
from olmocr.validate.weights.packing import PackedModules, read_packing
from olmocr.validate.weights.values import BytesRead, StoredTensor, find_bad_values

Progress = Callable[[int, int], None]
"""Called with the number of bytes read so far, and the total."""

_HASH_CHUNK = 4 << 20

# As sha256sum writes them: two spaces, or a space and an asterisk.
_HASH_LINE = re.compile(r"(?P<hash>[0-9a-fA-F]{64}) [ *](?P<name>.+)")

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")

# mlx-vlm reads this dtype by writing another one into the header for a moment; a check must not.
_REWRITTEN_DTYPE = "F8_E8M0"


@dataclass(frozen=True)
class Check:
    """One check of a folder. *holds* is None if it could not be made, and *detail* says why."""

    name: str
    holds: bool | None
    detail: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightsReport:
    """What was found in *folder*.

    *bytes* are of all tensors' data. *bits_per_weight* is None if the packing is unknown.
    *errors* are empty without a source; with one, the worst comes first.
    """

    folder: Path
    checks: tuple[Check, ...]
    tensors: int
    bytes: int
    bits_per_weight: float | None
    errors: tuple[TensorError, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no check failed; some may not have been made."""
        return all(check.holds is not False for check in self.checks)


def check_weights(
    folder: Path, source: Path | None = None, progress: Progress = lambda done, total: None
) -> WeightsReport:
    """Check that *folder* is a complete MLX model, and with *source* (a Hugging Face checkpoint) how far it is from it.

    What is wrong with a model's folder goes into the report. Values are read in chunks, so memory use stays small.

    Raises:
        CheckpointError: *folder* does not hold a model, or *source* is not a complete checkpoint of a known family.
    """
    contents = _read_contents(folder)
    checkpoint = read_checkpoint(ModelFolder(source)) if source else None
    packing = read_packing(contents.tensors, contents.config) if contents.config is not None else None
    read = _counter(progress, _bytes_to_read(contents, packing, checkpoint))
    checks = [
        _check_config(contents),
        _check_shards(contents),
        _check_index(contents),
        _check_tensors(contents, packing),
        _check_packing(contents, packing),
        _check_values(contents, packing, read),
        _check_hashes(contents, read),
        _check_tokenizer(contents),
    ]
    checks.append(_check_loads(contents, checks))
    errors: tuple[TensorError, ...] = ()
    if checkpoint:
        check, errors = _check_source(contents, checkpoint, packing, read)
        checks.append(check)
    stored = [tensor.info.nbytes for tensor in contents.tensors.values()]
    bits = _bits_per_weight(contents, packing)
    return WeightsReport(folder, tuple(checks), len(stored), sum(stored), bits, errors)


@dataclass(frozen=True)
class _Contents:
    """What could be read from a folder. *tensors* are those of all sound shards; *config* is None if it is damaged."""

    folder: Path
    config: dict[str, Any] | None
    config_problem: str | None
    shards: dict[str, list[TensorInfo]]
    shard_problems: tuple[str, ...]
    tensors: dict[str, StoredTensor]

    @property
    def shard_files(self) -> list[str]:
        return _shard_files(self.folder)


def _read_contents(folder: Path) -> _Contents:
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is not a readable folder; give the folder of an MLX model")
    refuse_links_out(folder)
    files = _shard_files(folder)
    if not files and not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} does not hold a model: it has no config.json and no *.safetensors files")
    config, config_problem = _read_config(folder)
    shards, problems = {}, []
    for name in files:
        try:
            shards[name] = read_header(folder / name)
        except CheckpointError as error:
            problems.append(str(error))
    tensors: dict[str, StoredTensor] = {}
    for name, infos in shards.items():
        for info in infos:
            tensors.setdefault(info.name, StoredTensor(folder / name, info))
    return _Contents(folder, config, config_problem, shards, tuple(problems), tensors)


def _shard_files(folder: Path) -> list[str]:
    """Return the names of the weight files."""
    return [path.name for path in files_in(folder, ".safetensors")]


def _read_config(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return read_json(folder / "config.json"), None
    except CheckpointError as error:
        return None, str(error)


def _counter(progress: Progress, total: int) -> BytesRead:
    done, one_at_a_time = 0, Lock()

    def read(nbytes: int) -> None:
        nonlocal done
        with one_at_a_time:
            done += nbytes
            progress(done, total)

    return read


def _bytes_to_read(contents: _Contents, packing: PackedModules | None, source: SourceCheckpoint | None) -> int:
    total = sum(tensor.info.nbytes for tensor, _ in _floats(contents, packing))
    hashed = (contents.folder / name for name in read_hashes(contents.folder)[0])
    total += sum(path.stat().st_size for path in hashed if path.is_file())
    return total + bytes_to_compare(source, contents.tensors) if source else total


def _bits_per_weight(contents: _Contents, packing: PackedModules | None) -> float | None:
    """Return the bits stored for each weight."""
    if packing is None or packing.problems:
        return None
    parts = {f"{path}.{part}" for path in packing.modules for part in ("weight", "scales", "biases")}
    packed = sum(math.prod(module.shape) for module in packing.modules.values())
    kept = sum(math.prod(tensor.shape) for name, tensor in contents.tensors.items() if name not in parts)
    stored = sum(tensor.info.nbytes for tensor in contents.tensors.values())
    return bits_per_weight(stored, packed + kept) if packed + kept else None


def _result(name: str, problems: Sequence[str], good: str) -> Check:
    """Return a finished check; *good* is its text if it found nothing."""
    if not problems:
        return Check(name, True, good)
    return Check(name, False, f"{len(problems)} problem{'s' * (len(problems) > 1)}", tuple(problems))


def _check_config(contents: _Contents) -> Check:
    problems = [contents.config_problem] if contents.config_problem else []
    return _result("config", problems, f"config.json describes a {_family(contents)}")


def _family(contents: _Contents) -> str:
    return str((contents.config or {}).get("model_type"))


def _check_shards(contents: _Contents) -> Check:
    problems = list(contents.shard_problems)
    if not contents.shard_files:
        problems.append(f"{contents.folder} has no *.safetensors files")
    good = f"{len(contents.shards)} file{'s' * (len(contents.shards) != 1)} with {len(contents.tensors)} tensors"
    return _result("shards", problems, good)


def _check_index(contents: _Contents) -> Check:
    homes: dict[str, list[str]] = {}
    for shard, infos in contents.shards.items():
        for info in infos:
            homes.setdefault(info.name, []).append(shard)
    problems = [f"{name} is in {' and in '.join(shards)}" for name, shards in homes.items() if len(shards) > 1]
    if not (contents.folder / INDEX_FILE).exists():
        problems += _missing_numbers(contents)
        return _result("index", problems, "there is none, and none is needed")
    try:
        index = _read_index(contents.folder / INDEX_FILE)
    except CheckpointError as error:
        return _result("index", [*problems, str(error)], "")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        return _result("index", [*problems, f"{INDEX_FILE} has no weight_map from tensors to files"], "")
    problems += _shard_problems(contents, set(weight_map.values()))
    problems += _map_problems(contents, weight_map, homes)
    problems += _size_problems(contents, index.get("metadata"))
    return _result("index", problems, f"{INDEX_FILE} and the files agree")


def _missing_numbers(contents: _Contents) -> list[str]:
    """Return the missing files, judging by the others' names, if no index names them."""
    problems = []
    numbered = [match for name in contents.shard_files if (match := _NUMBERED.fullmatch(name))]
    for stem, count in sorted({(match["stem"], match["count"]) for match in numbered}):
        found = {int(match["number"]) for match in numbered if (match["stem"], match["count"]) == (stem, count)}
        if len(found) < int(count):
            problems.append(f"only {len(found)} of the {int(count)} files {stem}-…-of-{count}.safetensors are there")
    return problems


def _read_index(path: Path) -> dict[str, Any]:
    """Return the index.

    Raises:
        CheckpointError: it does not hold a JSON object, or names a tensor twice.
    """
    try:
        return parse_json(path.read_bytes(), INDEX_FILE)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _shard_problems(contents: _Contents, named: set[str]) -> list[str]:
    """Return what is wrong with the files themselves, compared with the names in the index."""
    outside = sorted(name for name in named if Path(name).name != name)
    missing = sorted(named - {*contents.shard_files, *outside})
    extra = [name for name in contents.shard_files if name not in named]
    return [
        *(f"{INDEX_FILE} names a file outside the folder: {name}" for name in outside),
        *(f"{name} is missing, but {INDEX_FILE} names it" for name in missing),
        *(f"{name} exists, but {INDEX_FILE} does not name it" for name in extra),
    ]


def _map_problems(contents: _Contents, weight_map: dict[str, str], homes: dict[str, list[str]]) -> list[str]:
    """Return where the index and the headers disagree, in files that could be read."""
    problems = []
    for name, shard in weight_map.items():
        if shard in contents.shards and shard not in homes.get(name, []):
            found = f"; it is in {homes[name][0]}" if name in homes else ""
            problems.append(f"{name} is not in {shard}, where {INDEX_FILE} has it{found}")
    problems += [f"{name} ({homes[name][0]}) is not in {INDEX_FILE}" for name in homes if name not in weight_map]
    return problems


def _size_problems(contents: _Contents, metadata: object) -> list[str]:
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = sum(info.nbytes for infos in contents.shards.values() for info in infos)
    if stated is None or stated == actual or contents.shard_problems:
        return []
    return [f"{INDEX_FILE} says that total_size is {stated}, but the tensors have {actual} bytes"]


def _check_tensors(contents: _Contents, packing: PackedModules | None) -> Check:
    if contents.config is None or packing is None:
        return Check("tensors", None, "config.json cannot be read")
    if not _is_known(contents.config):
        reason = f"the tensors of a {_family(contents)} are not known here; load it in mlx-vlm to find out"
        return Check("tensors", None, reason)
    try:
        config = flat_config(contents.config)
        expected = {name: mlx_shape(name, shape) for name, shape in expected_shapes(config).items()}
    except CheckpointError as error:
        return _result("tensors", [str(error)], "")
    foreign = [name for name in contents.tensors if mlx_name(name, config) not in (name, None)]
    if foreign and not expected.keys() & contents.tensors.keys():
        return _result("tensors", [f"{foreign[0]} is a Hugging Face name: convert this checkpoint to MLX first"], "")
    problems = [f"{name} is missing" for name in expected if name not in contents.tensors]
    for name, tensor in contents.tensors.items():
        problems += _tensor_problems(name, tensor, expected, contents, packing)
    return _result("tensors", problems, f"all {len(expected)} that a {_family(contents)} with this config.json needs")


def _is_known(config: dict[str, Any]) -> bool:
    return config.get("model_type") in list(FAMILIES.values())  # a list, since model_type may be anything


def _tensor_problems(
    name: str,
    tensor: StoredTensor,
    expected: dict[str, tuple[int, ...]],
    contents: _Contents,
    packing: PackedModules,
) -> list[str]:
    path, _, part = name.rpartition(".")
    is_packed = f"{path}.scales" in contents.tensors
    if name not in expected:
        belongs = part in ("scales", "biases") and f"{path}.weight" in expected
        return [] if belongs else [f"{name} {tensor.shape} is not a tensor of this model"]
    if is_packed and part == "weight":
        module = packing.modules.get(path)  # the packing's check reports a broken one
        shape = module.shape if module else expected[name]
    else:
        shape = tensor.shape
        if tensor.info.dtype not in FLOAT_DTYPES:
            return [f"{name} has dtype {tensor.info.dtype}, not one of {', '.join(FLOAT_DTYPES)}"]
    return [] if shape == expected[name] else [f"{name} has shape {shape}, config.json requires {expected[name]}"]


def _check_packing(contents: _Contents, packing: PackedModules | None) -> Check:
    if packing is None:
        return Check("packing", None, "config.json cannot be read")
    kinds = Counter(str(module.packing) for module in packing.modules.values())
    good = "; ".join(f"{count} modules in {kind}" for kind, count in kinds.most_common())
    return _result("packing", packing.problems, good or "nothing is quantized")


def _check_values(contents: _Contents, packing: PackedModules | None, read: BytesRead) -> Check:
    problems = []
    for tensor, dtype in _floats(contents, packing):
        # In modes without biases, a group of zeros has a scale of zero.
        may_be_zero = not tensor.info.name.endswith(".scales") or dtype != tensor.info.dtype
        try:
            problems += find_bad_values(tensor, dtype, read, may_be_zero=may_be_zero)
        except CheckpointError as error:
            problems.append(str(error))
    return _result("values", problems, "all are finite, and no scale is zero")


# The formats of these modes' scales, which are stored as U8.
_SCALE_DTYPES = {"mxfp4": "F8_E8M0", "mxfp8": "F8_E8M0", "nvfp4": "F8_E4M3"}


def _floats(contents: _Contents, packing: PackedModules | None) -> Iterator[tuple[StoredTensor, str]]:
    """Yield the tensors whose values are floats, with their actual dtype."""
    modes = {f"{path}.scales": module.packing.mode for path, module in packing.modules.items()} if packing else {}
    for name, tensor in contents.tensors.items():
        dtype = _SCALE_DTYPES.get(modes.get(name, ""), tensor.info.dtype)
        if is_float(dtype):
            yield tensor, dtype


def _check_hashes(contents: _Contents, read: BytesRead) -> Check:
    if not (contents.folder / HASHES_FILE).is_file():
        return Check("hashes", None, f"there is no {HASHES_FILE}")
    stated, problems = read_hashes(contents.folder)
    with ThreadPoolExecutor(all_threads()) as pool:
        for found in pool.map(lambda each: _hash_problems(contents.folder / each[0], each[1], read), stated.items()):
            problems += found
    problems += [f"{name} is not in {HASHES_FILE}" for name in contents.shard_files if name not in stated]
    return _result("hashes", problems, f"{len(stated)} files match {HASHES_FILE}")


def read_hashes(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the listed hash of each file (empty without a list), and the lines that are invalid.

    Strays (``._NAME``, ``.DS_Store``), which a tool may have listed with the rest, are ignored.
    """
    file = folder / HASHES_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, ValueError) as error:
        return {}, [f"{file} cannot be read: {error}"]
    stated: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        match = _HASH_LINE.fullmatch(line)
        if match is None or set(match["name"]) & set("/\\"):
            what = "is not a SHA-256 and a name" if match is None else "names a file outside the folder"
            problems.append(f"{HASHES_FILE}:{number} {what}: {line[:100]}")
        elif is_stray(match["name"]):
            continue
        elif stated.setdefault(match["name"], match["hash"].lower()) != match["hash"].lower():
            problems.append(f"{HASHES_FILE}:{number} has another hash for {match['name']} than an earlier line")
    return stated, problems


def _hash_problems(path: Path, stated: str, read: BytesRead) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing, but {HASHES_FILE} names it"]
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            for chunk in iter(functools.partial(file.read, _HASH_CHUNK), b""):
                digest.update(chunk)
                read(len(chunk))
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    return [] if digest.hexdigest() == stated else [f"{path.name} has another SHA-256 than {HASHES_FILE} lists"]


def _check_tokenizer(contents: _Contents) -> Check:
    """Check that the tokenizer can be read and is the model's; skip weights without a tokenizer beside them."""
    if not (contents.folder / TOKENIZER_FILE).exists():
        return Check("tokenizer", None, f"there is no {TOKENIZER_FILE}")
    try:
        tokens = all_tokens(contents.folder)
    except CheckpointError as error:
        return _result("tokenizer", [str(error)], "")
    beyond = _beyond_embeddings(contents, tokens)
    good = f"{len(tokens)} tokens" + (f"; {beyond}" if beyond else "")
    return _result("tokenizer", wrong_marks(tokens, contents.config or {}), good)


def _beyond_embeddings(contents: _Contents, tokens: Mapping[str, int]) -> str | None:
    """Return what to say about tokens that the model cannot take, by the actual rows of its embeddings."""
    embeddings = contents.tensors.get(EMBEDDINGS)
    return tokens_beyond(tokens, embeddings.shape[0]) if embeddings and embeddings.shape else None


def _check_loads(contents: _Contents, checks: Sequence[Check]) -> Check:
    """Have mlx-vlm load the folder, but only if it is sound otherwise; else the reason is known already."""
    try:
        refuse_code(ModelFolder(contents.folder))
        refuse_adapter(ModelFolder(contents.folder))
    except CheckpointError as error:
        return _result("loads", [str(error)], "")
    broken = [check.name for check in checks if check.holds is False and check.name in _NEEDED_TO_LOAD]
    if broken:
        return Check("loads", None, f"not tried, because of {' and '.join(broken)}")
    if any(tensor.info.dtype == _REWRITTEN_DTYPE for tensor in contents.tensors.values()):
        return Check("loads", None, f"not tried: mlx-vlm would write to the files, which have {_REWRITTEN_DTYPE}")
    try:
        start_mlx()
        from olmocr.validate.weights.stock import why_not_loaded

        reason = why_not_loaded(contents.folder)
    except MissingDependencyError as error:
        return Check("loads", None, str(error))
    return _result("loads", [f"mlx-vlm does not load it: {reason}"] if reason else [], "in stock mlx-vlm, strictly")


_NEEDED_TO_LOAD = ("config", "shards", "index", "tensors")


def _check_source(
    contents: _Contents, source: SourceCheckpoint, packing: PackedModules | None, read: BytesRead
) -> tuple[Check, tuple[TensorError, ...]]:
    if packing is None:
        return Check("source", None, "config.json cannot be read"), ()
    try:
        if packing.modules:
            start_mlx()
        difference = compare(source, contents.tensors, packing.modules, read, all_threads())
    except MissingDependencyError as error:
        return Check("source", None, str(error)), ()
    good = f"all {len(difference.errors)} tensors match {source.folder.path}"
    return _result("source", difference.problems, good), difference.errors
