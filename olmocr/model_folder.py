"""The content of a model's folder: its family, its settings, and no code. Its weights may be on the Hub."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError
from olmocr.strays import is_passed_over
from olmocr.text import one_line

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"
BF16_REPOSITORY = "allenai/olmOCR-2-7B-1025"

WHOLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
HASHES_FILE = "SHA256SUMS"

# Settings that make libraries run a folder's own Python code, and the files that may hold them.
_CODE_SETTINGS = ("auto_map", "model_file", "custom_pipelines")
_SETTINGS_FILES = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)

# Checkpoints of the same architecture that were trained to answer other prompts.
_OTHER_PROMPT = re.compile(r"olmOCR-7B-(0225|0725|0825)", re.IGNORECASE)

_SHA256 = re.compile(r"[0-9a-f]{64}")

# huggingface_hub puts this file into the folder that several repositories of its cache share.
_SHARED_STORE_MARK = ".huggingface-shared-blobs"
# What peft, mlx-lm and common trainers of this family save for a fine-tune that is not merged into its base:
# https://huggingface.co/docs/peft/developer_guides/checkpoint
_ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
    "non_lora_state_dict.bin",
    "non_lora_trainables.bin",
)

_TRAINER_FOLDER = re.compile(r"checkpoint-\d+")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class RemoteShard:
    """A file of weights as the Hub lists it.

    *sha256* is None for one in git itself, not in the large file storage; *git_sha1* is git's hash of that one.
    """

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder. *repo_id* and *revision* (a commit hash) are None unless it came from the Hub.

    With *remote_weights*, it holds everything except the weights; *remote_files* are the ``*.safetensors`` on the Hub.
    *left_out* are patterns of names of files to ignore.
    """

    path: Path
    repo_id: str | None = None
    revision: str | None = None
    remote_weights: bool = False
    remote_files: tuple[RemoteShard, ...] = ()
    left_out: tuple[str, ...] = ()

    def file(self, name: str) -> Path | None:
        """Return the path of the file *name*; None if it is missing or to be left out."""
        path = self.path / name
        return path if not is_left_out(name, self.left_out) and path.is_file() else None

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The ``*.safetensors`` in the folder, or on the Hub, without hidden ones and those to be left out.

        Hidden ones are not weights, but what a Mac writes beside each file on a foreign disk.
        """
        if self.remote_weights:
            names = [file.name for file in self.remote_files]
        else:
            names = [path.name for path in self.path.glob("*.safetensors") if path.is_file()]
        return tuple(
            sorted(name for name in names if not is_passed_over(name) and not is_left_out(name, self.left_out))
        )

    @property
    def name(self) -> str:
        """Its own name, without folder or organisation."""
        return self.repo_id.rpartition("/")[2] if self.repo_id else self.path.resolve().name

    @property
    def where(self) -> str:
        """Its name in messages: the repository, or the folder if it did not come from one."""
        return self.repo_id or str(self.path)


def is_left_out(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of *patterns* is the file's *name*, or matches it."""
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def shard_sha256(folder: ModelFolder, shard: str) -> str | None:
    """Return the SHA-256 that the Hub listed for a shard, without asking again; None if unknown."""
    stated = [file.sha256 for file in folder.remote_files if file.name == shard]
    if stated:
        return stated[0]
    path = folder.path / shard
    if folder.repo_id is None or not path.is_symlink():
        return None
    # Follows one link only: the blob, named by its SHA-256, may itself be a link to a file with another name.
    blob = path.readlink().name
    return blob if _SHA256.fullmatch(blob) else None


def indexed_shards(folder: ModelFolder) -> tuple[str, ...]:
    """Return the shards in the index; empty without an index, or with one that the plan will refuse."""
    index = folder.file(INDEX_FILE)
    weight_map = read_json(index).get("weight_map") if index else None
    names = {str(shard) for shard in weight_map.values()} if isinstance(weight_map, dict) else set()
    return () if any(set(name) & set("/\\") for name in names) else tuple(sorted(names))


def refuse_links_out(folder: Path) -> None:
    """Refuse a folder with links that lead outside it, or with something that is not a file or a folder.

    Whoever made the folder may have linked ``LICENSE`` to a file that only its user may read; what is read through such
    a link would be copied, shown and published. The links in the Hub's cache lead to the cache's own blobs, and are
    allowed. A hard link, a second name for a file, looks like a file. If there is no folder, this does not raise; the
    code that reads it reports that.

    Raises:
        CheckpointError: it has something like that, or cannot be listed.
    """
    try:
        if not folder.is_dir():
            return
        root = folder.resolve()
        homes = _homes(root)
        for path in _entries(root):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                _refuse_link(path, root, homes, folder)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise CheckpointError(f"{_shown(path, root)} in {folder} is not a file or a folder; remove it")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, up to Python 3.12
        raise CheckpointError(f"{folder} cannot be listed: {_reason(error)}") from error


def _entries(root: Path) -> Iterator[Path]:
    """Yield everything below *root*, without following links or entering git's own folder."""
    for place, folders, files in os.walk(root, onerror=_raise):
        yield from (Path(place) / name for name in [*folders, *files])
        folders[:] = [name for name in folders if name != ".git"]


def _raise(error: OSError) -> None:
    raise error


def _homes(root: Path) -> tuple[Path, ...]:
    """Return the folders to which links in *root* may lead: itself and, in the Hub's cache, the blobs there.

    A blobs folder that is itself a link does not count: whoever made a folder like the cache's may have put it there.
    """
    if root.parent.name != "snapshots" or not root.parents[1].name.startswith("models--"):
        return (root,)
    own, shared = root.parents[1] / "blobs", root.parents[2] / "blobs"
    blobs = [own, *([shared] if (shared / _SHARED_STORE_MARK).is_file() else [])]
    return (root, *(each for each in blobs if not each.is_symlink()))


def _refuse_link(path: Path, root: Path, homes: tuple[Path, ...], folder: Path) -> None:
    target = path.resolve()
    if not any(target.is_relative_to(home) for home in homes):
        raise CheckpointError(
            f"{_shown(path, root)} in {folder} is a link out of the folder, to {one_line(str(path.readlink()), 200)}; "
            "replace the link by the file if it belongs to the model, or remove it"
        )


def _shown(path: Path, root: Path) -> str:
    return one_line(str(path.relative_to(root)), 200)


def _reason(error: OSError | RuntimeError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror}", 300)
    return one_line(str(error), 300)


def index_is_stale(folder: ModelFolder) -> bool:
    """Return whether the index names missing shards, and one file beside it holds the model instead."""
    named, there = indexed_shards(folder), folder.weight_files
    return WHOLE_FILE in there and WHOLE_FILE not in named and not set(named) <= set(there)


def refuse_adapter(folder: ModelFolder) -> None:
    """Refuse a folder with a fine-tune's adapter: its weights, if any, are not the model of its name.

    Raises:
        CheckpointError: it has one that is not left out.
    """
    found = [name for name in _ADAPTER_FILES if folder.file(name)]
    if not found:
        return
    if not folder.weight_files or not folder.file("config.json") or set(folder.weight_files) <= set(found):
        raise CheckpointError(
            f"{folder.where} holds an adapter ({', '.join(found)}){_base_of(folder)}, not a model; merge it into the "
            "model that it was trained on (in peft: merge_and_unload, then save_pretrained), and use the saved result"
        )
    raise CheckpointError(
        f"{folder.where} holds weights and also an adapter ({', '.join(found)}){_base_of(folder)}: transformers "
        "would read the adapter with the model that it was trained on, mlx-vlm only the weights; merge the adapter "
        "first (in peft: merge_and_unload, then save_pretrained) or, if the weights already include it, convert "
        f"with {' '.join(leaving_out(name) for name in found)}"
    )


def leaving_out(name: str) -> str:
    """Return the setting that leaves out the file *name*, as errors write settings."""
    return f"`leave_out={name!r}`"


def _base_of(folder: ModelFolder) -> str:
    """Return the adapter's base model, as its config names it, for a sentence."""
    try:
        file = folder.file("adapter_config.json")
        base = read_json(file).get("base_model_name_or_path") if file else None
    except CheckpointError:
        return ""
    return f" for {one_line(base, 200)}" if isinstance(base, str) and base else ""


def read_config(folder: ModelFolder) -> dict[str, Any]:
    """Read config.json and refuse a model that would get the wrong prompt, or that brings its own code.

    Raises:
        CheckpointError: it is not a checkpoint, is of an unsupported family, or would run its own code.
    """
    config = read_config_of(folder, {ARCHITECTURE: MODEL_TYPE})
    name = other_prompt(folder, config)
    if name:
        raise CheckpointError(
            f"{folder.where} looks like {name}, which was trained on another prompt and would get the wrong "
            "one; the pipeline here needs models that were trained on olmOCR-2's prompt"
        )
    return config


def read_config_of(folder: ModelFolder, families: Mapping[str, str]) -> dict[str, Any]:
    """Read config.json of a model of one of *families* (architecture -> model_type) without its own code.

    Raises:
        CheckpointError: it is not a checkpoint, is of another family, would run its own code, or has a link out of it.
    """
    refuse_links_out(folder.path)
    refuse_adapter(folder)
    if not (folder.path / "config.json").is_file():
        raise CheckpointError(_why_no_config(folder))
    config = read_json(folder.path / "config.json")
    refuse_code(folder)
    architectures, model_type = config.get("architectures"), config.get("model_type")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    if architecture is None and model_type in list(families.values()):
        return config  # some tools do not save it; the type is enough
    expected = families.get(_unwrapped(architecture)) if isinstance(architecture, str) else None
    if expected is None:
        raise CheckpointError(
            f"{folder.where} is a {one_line(str(architecture or model_type), 200)}, which is not supported; "
            f"supported is {' or '.join(families)}"
        )
    if model_type != expected:
        raise CheckpointError(f"{folder.where} has model_type {model_type!r}, not {expected!r}")
    return config


def _unwrapped(architecture: str) -> str:
    """Return a model class's name without the prefix of FullyShardedDataParallel."""
    return architecture.removeprefix("FSDP")


def _why_no_config(folder: ModelFolder) -> str:
    nothing = f"{folder.where} is not a checkpoint: it has no config.json"
    saved = trainer_folders(folder)
    if saved:
        return f"{nothing}; it holds training checkpoints, give one of these: {', '.join(saved)}"
    if any(folder.path.glob("*.gguf")):
        return f"{nothing}; it holds GGUF files, which are made for llama.cpp: give the folder that they were made from"
    if folder.weight_files:
        return f"{nothing} beside its weights; copy the one that the model was saved with"
    return nothing


def trainer_folders(folder: ModelFolder) -> list[str]:
    """Return the names of the folders that training saved in *folder*, the latest last."""
    try:
        names = [path.name for path in folder.path.iterdir() if _TRAINER_FOLDER.fullmatch(path.name) and path.is_dir()]
    except OSError:
        return []
    return sorted(names, key=lambda name: int(name.rpartition("-")[2]))


def other_prompt(folder: ModelFolder, config: Mapping[str, Any]) -> str | None:
    """Return which olmOCR *folder* looks like if that was trained on another prompt than olmOCR-2's."""
    name = _OTHER_PROMPT.search(f"{folder.name} {config.get('_name_or_path', '')}")
    return name[0] if name else None


def refuse_code(folder: ModelFolder) -> None:
    """Refuse a folder whose settings name its own Python code.

    Raises:
        CheckpointError: they do, or one of the files is not a JSON object.
    """
    for path in (folder.path / name for name in _SETTINGS_FILES):
        settings = read_json(path) if path.is_file() else {}
        found = [key for key in _CODE_SETTINGS if key in settings]
        if found:
            raise CheckpointError(
                f"{path} has {found[0]}, which would run Python code from the folder; "
                f"olmOCR models do not need that; remove it if you trust the rest"
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file with one JSON object.

    Raises:
        CheckpointError: it is missing, or holds something else.
    """
    try:
        content = path.read_bytes()
        refuse_no_content(path, content)
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def refuse_no_content(path: Path, content: bytes) -> None:
    """Refuse the placeholder of a missing file: a Git LFS pointer, or an empty file.

    Raises:
        CheckpointError: *content*, of the file *path*, is one.
    """
    if content.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself; run 'git lfs pull' in its folder")
    if not content.strip(b"\0 \t\r\n"):
        raise CheckpointError(f"{path} is empty; copy it again from where the model came from")


def weights_sha256(folder: ModelFolder) -> str | None:
    """Return one SHA-256 for all weights of *folder*: of a line ``HASH  NAME`` for each, sorted by name.

    Does not read weights: the hashes come from its ``SHA256SUMS`` or the Hub. None if one is unknown.
    """
    stated = _stated_hashes(folder)
    hashes = {name: stated.get(name) or shard_sha256(folder, name) or "" for name in folder.weight_files}
    if not hashes or not all(map(_SHA256.fullmatch, hashes.values())):
        return None
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items()).encode()).hexdigest()


def _stated_hashes(folder: ModelFolder) -> dict[str, str]:
    try:
        lines = (folder.path / HASHES_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name.strip().removeprefix("*"): sha256 for sha256, _, name in (line.partition(" ") for line in lines)}
