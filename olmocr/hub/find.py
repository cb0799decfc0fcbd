"""A model, by folder or by Hub repository -> a folder on this disk. Its weights may stay on the Hub."""

from __future__ import annotations

import glob
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError, HubError, UsageError
from olmocr.hub.sentences import not_a_model, reading_errors
from olmocr.model_folder import HASHES_FILE, WHOLE_FILE, ModelFolder, RemoteShard, index_is_stale, indexed_shards

# What a checkpoint consists of. No pickle (*.bin, *.pt) and no code (*.py) is ever asked for.
_ALL_BUT_WEIGHTS = ("*.json", "*.txt", "*.jinja", "LICENSE*", HASHES_FILE)
_CHECKPOINT_FILES = ("*.safetensors", *_ALL_BUT_WEIGHTS)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model*: itself a folder, or a repository that is downloaded from the Hub.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are respected.

    Raises:
        CheckpointError: *model* is neither a folder that can be read nor a repository's name.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision of a folder is asked for.
    """
    return _folder_here(model, revision) or _download(model, revision, _CHECKPOINT_FILES)


def find_settings(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model* without downloading weights: all its other files, at one commit.

    The weights are on the Hub still (*remote_weights*) unless all of them are in the cache, or *model* is a folder.

    Raises:
        CheckpointError: *model* is neither a folder nor a repository's name, or a repository without safetensors files.
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
        UsageError: a revision of a folder is asked for.
    """
    here = _folder_here(model, revision)
    if here is not None:
        return here
    folder = _download(model, revision, _ALL_BUT_WEIGHTS)
    if _has_weights(folder):
        return folder
    return replace(folder, remote_weights=True, remote_files=_list_weights(folder))


def missing_files(folder: ModelFolder) -> tuple[RemoteShard, ...]:
    """Return the weights of *folder* that are to be downloaded: not in the Hub's cache, and named by the index."""
    shards = _names(folder)
    return tuple(file for file in folder.remote_files if file.name in shards and not (folder.path / file.name).exists())


def download_weights(folder: ModelFolder) -> ModelFolder:
    """Download all shards of *folder* into the Hub's cache; a second call goes on where the first one stopped.

    Raises:
        HubError: the repository cannot be downloaded.
        OutputError: the Hub's cache cannot be written.
    """
    if not folder.remote_weights:
        return folder
    shards = _names(folder)
    _download(folder.where, folder.revision, tuple(glob.escape(shard) for shard in shards))
    # huggingface_hub 1 returns what it has, without an error, where the Hub cannot be reached.
    missing = [shard for shard in shards if not (folder.path / shard).is_file()]
    if missing:
        raise HubError(
            f"{folder.where} is not complete in {folder.path}, which lacks {', '.join(missing[:5])}; "
            "check the network (and HF_HUB_OFFLINE), then run it again"
        )
    return replace(folder, remote_weights=False)


def _folder_here(model: str, revision: str | None) -> ModelFolder | None:
    """Return *model* as a folder on this disk; None if it is the name of a repository."""
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            if revision is not None:
                raise UsageError(f"{model} is a folder here, which has no revision {revision}; leave the revision out")
            return ModelFolder(path)
        if path.exists() or not _REPO_ID.fullmatch(model):
            raise not_a_model(model)
    except (OSError, RuntimeError) as error:  # a folder that may not be entered, a name too long, ~nobody
        raise not_a_model(model) from error
    return None


def _download(repo_id: str, revision: str | None, patterns: tuple[str, ...]) -> ModelFolder:
    with reading_errors(repo_id, revision):
        from huggingface_hub import snapshot_download  # a ValueError where HF_ENDPOINT is malformed

        path = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns)))
    return ModelFolder(path, repo_id, revision=path.name)


def _has_weights(folder: ModelFolder) -> bool:
    return all((folder.path / shard).is_file() for shard in indexed_shards(folder) or (WHOLE_FILE,))


def _list_weights(folder: ModelFolder) -> tuple[RemoteShard, ...]:
    """Ask the Hub for the safetensors files of a repository, those in its folders left out."""
    with reading_errors(folder.where, folder.revision):
        from huggingface_hub import HfApi

        files = HfApi().model_info(folder.where, revision=folder.revision, files_metadata=True).siblings or []
    weights = [file for file in files if _is_shard(file.rfilename)]
    if not weights:
        raise _no_safetensors(folder, [file.rfilename for file in files if file.rfilename.endswith(_PICKLES)])
    return tuple(_as_remote_shard(folder, file) for file in weights)


def _is_shard(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\")


def _as_remote_shard(folder: ModelFolder, file: Any) -> RemoteShard:
    if file.size is None:
        raise HubError(
            f"the Hub does not state the size of {file.rfilename} in {folder.where}; try another HF_ENDPOINT"
        )
    return RemoteShard(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)


def _no_safetensors(folder: ModelFolder, pickles: list[str]) -> CheckpointError:
    if pickles:
        return CheckpointError(
            f"{folder.where} has its weights as pickle files only ({pickles[0]}), which can run code and are never "
            "loaded; choose a repository with *.safetensors files"
        )
    return CheckpointError(f"{folder.where} is no checkpoint: it has no *.safetensors files")


def _names(folder: ModelFolder) -> tuple[str, ...]:
    """Return the files of weights that *folder* consists of: those that its index names, or all."""
    indexed = () if index_is_stale(folder) else indexed_shards(folder)
    return indexed or tuple(sorted(file.name for file in folder.remote_files))
