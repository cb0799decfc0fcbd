"""A model, by folder or by Hub repository -> a folder on this disk, of a family that we support.

The one door to huggingface_hub.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmocr.errors import CheckpointError, HubError

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
BF16_REPOSITORY = "allenai/olmOCR-2-7B-1025"

# What a checkpoint consists of. No pickle (*.bin, *.pt) and no code (*.py) is ever asked for.
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "LICENSE*")

# Checkpoints of the same architecture that were trained to answer other prompts.
_OTHER_PROMPT = re.compile(r"olmOCR-7B-(0225|0725|0825)", re.IGNORECASE)

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder. *repo_id* and *revision* (a commit hash) are None unless it came from the Hub."""

    path: Path
    repo_id: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Its own name, without folder or organisation."""
        return self.repo_id.rpartition("/")[2] if self.repo_id else self.path.resolve().name


def find_model(model: str, revision: str | None = None) -> ModelFolder:
    """Return the folder of *model*: itself a folder, or a repository that is downloaded from the Hub.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are respected.

    Raises:
        CheckpointError: *model* is neither a folder nor a repository's name.
        HubError: the repository cannot be downloaded.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return ModelFolder(path)
    if path.exists() or not _REPO_ID.fullmatch(model):
        raise CheckpointError(
            f"{model} is no folder; give a model's folder, or a Hub repository like {BF16_REPOSITORY}"
        )
    return _download(model, revision)


def read_config(folder: ModelFolder) -> dict[str, Any]:
    """Read config.json and refuse a model that would be asked wrongly.

    Raises:
        CheckpointError: no checkpoint, or of a family that we do not support.
    """
    config = read_json(folder.path / "config.json")
    where = folder.repo_id or str(folder.path)
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    if architecture != ARCHITECTURE:
        raise CheckpointError(
            f"{where} is a {architecture}, which is not supported; olmOCR-2 ({BF16_REPOSITORY}) is a {ARCHITECTURE}"
        )
    name = _OTHER_PROMPT.search(f"{folder.name} {config.get('_name_or_path', '')}")
    if name:
        raise CheckpointError(
            f"{where} looks like {name[0]}, which was trained on another prompt and would be asked wrongly; "
            f"take {BF16_REPOSITORY} instead"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is no checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _download(repo_id: str, revision: str | None) -> ModelFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(CHECKPOINT_FILES)))
    except GatedRepoError as error:
        raise HubError(
            f"{repo_id} is gated: accept its terms on the Hub, then set HF_TOKEN or run 'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{repo_id} is neither a folder here nor a repository on the Hub that you may read; "
            "check the name, or set HF_TOKEN if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo_id} has no revision {revision}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise HubError(
            f"{repo_id} is no folder here, and the Hub cannot be reached; check the network and run it again"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise HubError(
            f"{repo_id} could not be downloaded: {reason}; run it again to go on where it stopped"
        ) from error
    return ModelFolder(path, repo_id, revision=path.name)
