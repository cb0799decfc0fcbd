"""Where to get this package: its public address, or else what its installation recorded, without local paths."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Sequence

from olmocr.runtime.extras import DISTRIBUTION, REPOSITORY, recorded

_ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+/[A-Za-z0-9._/~-]+")
_REPOSITORY = ("repository", "source", "source code", "homepage")


def package_repository(name: str = DISTRIBUTION, public: str | None = REPOSITORY) -> str | None:
    """Return the *public* address of this package; without one, that of the repository that it was installed from.

    None if neither is known. Addresses with a login, and folders of this machine, do not count.
    """
    if public is not None:
        return public
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    stated = distribution.metadata.get_all("Project-URL") or []
    return find_repository(distribution.read_text("direct_url.json"), stated)


def find_repository(direct_url: str | None, project_urls: Sequence[str]) -> str | None:
    """Return the first suitable address: of *direct_url*, as in PEP 610, then of *project_urls*."""
    return next((each for each in _candidates(direct_url, project_urls) if _ADDRESS.fullmatch(each)), None)


def _candidates(direct_url: str | None, project_urls: Sequence[str]) -> Iterator[str]:
    found = recorded(direct_url)
    if "vcs_info" in found:
        yield str(found.get("url"))
    urls = {label.strip().lower(): url.strip() for label, _, url in (each.partition(",") for each in project_urls)}
    yield from (urls[label] for label in _REPOSITORY if label in urls)
