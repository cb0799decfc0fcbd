"""Other variants for a card's tables: converted folders and repositories -> what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import CheckpointError, HubError, InputError
from olmocr.files import temporary_folder
from olmocr.hub.write import Hub
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import REPO_ID
from olmocr.reports.bench import BENCH_REPORT_FILE
from olmocr.reports.conversion import REPORT_FILE
from olmocr.reports.fidelity import FIDELITY_REPORT_FILE
from olmocr.reports.smoke import SMOKE_REPORT_FILE

# All files that a folder's reports are read from.
_READ = ("config.json", REPORT_FILE, SMOKE_REPORT_FILE, FIDELITY_REPORT_FILE, BENCH_REPORT_FILE)


@dataclass(frozen=True)
class Siblings:
    """The other variants given: local *folders*, and names of *repositories* on the Hub."""

    folders: tuple[Path, ...]
    repositories: tuple[str, ...]


def tell_apart(given: Sequence[str]) -> Siblings:
    """Return which of the *given* names are folders and which are repositories.

    A name that exists as a folder is one; otherwise ``ORG/NAME`` is a repository.
    """
    paths = {each: Path(each).expanduser() for each in given}
    remote = [each for each, path in paths.items() if REPO_ID.fullmatch(each) and not path.is_dir()]
    return Siblings(
        tuple(path for each, path in paths.items() if each not in remote),
        tuple(each for each in paths if each in remote),
    )


def read_repository(repo: str, hub: Hub) -> Variant:
    """Return the reports in *repo*, as they are now on its main branch.

    Raises:
        HubError: there is no such repository, or the Hub does not answer.
        InputError: it lacks a report or config.json, or one is damaged, of another version or of other weights.
    """
    state = hub.read_state(repo)
    if state is None:
        raise HubError(
            f"{repo} is not a local folder, and not a repository on the Hub that this token may read; give either"
        )
    with temporary_folder() as folder:
        for name in _READ:
            there = state.files.get(name)
            text = hub.read_text(repo, state.sha, name, there.size) if there else None
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
        try:
            return Variant(repo, read_reports(folder))
        except (CheckpointError, InputError) as error:
            raise InputError(str(error).replace(str(folder), repo)) from error
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # not every config.json has valid numbers
            raise InputError(f"{repo}/config.json is not a model's: {error!r}") from error
