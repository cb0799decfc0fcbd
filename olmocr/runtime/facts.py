"""What is installed and where it runs, for reports."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from olmocr.errors import CheckpointError
from olmocr.files import sha256_of
from olmocr.reports.smoke import KnownFault
from olmocr.runtime.machine import chip, total_memory
from olmocr.runtime.versions import installed_version, known_bad
from olmocr.strays import files_in
from olmocr.version import __version__

_MATTER = ("mlx", "mlx-vlm", "transformers", "numpy", "pypdfium2", "pillow")


def versions(packages: Iterable[str] = _MATTER) -> dict[str, str]:
    """Return the versions of this package, Python, the platform and those of *packages* that are installed.

    Without *packages*: of those that could affect how a page is read.
    """
    found = {"olmocr": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    return found | {package: version for package in packages if (version := installed_version(package))}


def known_faults() -> tuple[KnownFault, ...]:
    """Return known faults of installed versions that would keep a model from reading well."""
    return tuple(
        KnownFault(package, version, bad.why)
        for package in ("mlx", "mlx-vlm", "transformers")
        if (version := installed_version(package))
        for bad in known_bad(package, version)
        if bad.is_needed
    )


def machine() -> str:
    """Return a description of this machine in one line."""
    return f"{chip()} ({platform.machine()} {platform.system()}), {total_memory() / 2**30:.0f} GiB"


def weight_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in *folder*.

    Raises:
        CheckpointError: there are none, or one cannot be read.
    """
    hashes = {}
    for path in files_in(folder, ".safetensors"):
        try:
            hashes[path.name] = sha256_of(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not hashes:
        raise CheckpointError(f"{folder} contains no weights: no file in it ends with .safetensors")
    return hashes
