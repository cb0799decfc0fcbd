"""Installed versions of the libraries that matter -> which are known to be bad, and why."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class BadVersions:
    """Versions of *package* from *first* on and before *end* (None: no bound), and what is wrong with them.

    *wanted* is a requirement for other versions. *is_needed* says whether reading pages depends on the package.
    """

    package: str
    first: Version | None
    end: Version | None
    why: str
    wanted: str
    is_needed: bool = True

    def cover(self, version: Version) -> bool:
        """Return whether *version* is one of them."""
        return (self.first is None or version >= self.first) and (self.end is None or version < self.end)


_VLM = "mlx-vlm>=0.7.10,<0.8"

KNOWN_BAD = (
    BadVersions("mlx-vlm", None, (0, 3, 6), "rotates Qwen2.5-VL's positions wrongly, so that it reads badly", _VLM),
    BadVersions(
        "mlx-vlm", (0, 6, 0), (0, 6, 3), "its server crashes when a request names another model", _VLM, is_needed=False
    ),
    BadVersions("mlx-vlm", (0, 6, 4), (0, 6, 8), "breaks image inputs: answers end at once or repeat the prompt", _VLM),
    BadVersions("mlx-vlm", None, (0, 6, 14), "garbles pages that are read at the same time", _VLM),
    BadVersions("mlx-vlm", None, (0, 7, 4), "its server puts the image before the text, unlike in training", _VLM),
    BadVersions("mlx-vlm", None, (0, 7, 10), "is older than what olmocr was tested with", _VLM),
    BadVersions("mlx-vlm", (0, 8), None, "is newer than what olmocr was tested with", _VLM, is_needed=False),
    BadVersions("mlx", None, (0, 32, 4), "is older than mlx-vlm 0.7 needs", "mlx>=0.32.4"),
    BadVersions("transformers", (5, 2, 0), (5, 2, 1), "cannot load Qwen2.5-VL", "transformers>=5.14"),
    BadVersions("transformers", None, (5, 14), "is older than mlx-vlm 0.7 needs", "transformers>=5.14"),
    BadVersions("huggingface_hub", None, (1, 0), "is older than olmocr needs", "huggingface_hub>=1.0"),
    BadVersions("numpy", None, (1, 26), "is older than olmocr needs", "numpy>=1.26"),
)
"""Known faults of versions, the worst first for each package."""


def installed_version(package: str) -> str | None:
    """Return a package's version, or None if it is not installed; this imports nothing of it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def known_bad(package: str, version: str) -> tuple[BadVersions, ...]:
    """Return all known faults of *version* of *package*."""
    parsed = parse_version(version)
    return tuple(bad for bad in KNOWN_BAD if bad.package == package and bad.cover(parsed))


def parse_version(version: str) -> Version:
    """Return the numbers that a version begins with: 5.2.0rc1 is (5, 2, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
