"""A converted folder, read through the complete pipeline -> SmokeReport: whether it reads, and if not, why."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import MissingDependencyError
from olmocr.files import temporary_folder, write_whole
from olmocr.model_folder import HASHES_FILE, ModelFolder, read_config
from olmocr.page import Ask
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline_sync
from olmocr.pipeline.summary import RunSummary
from olmocr.reports.smoke import SMOKE_REPORT_FILE, SmokePage, SmokeReport
from olmocr.reports.typed_json import report_json
from olmocr.runtime.device import start_mlx
from olmocr.runtime.extras import install_command
from olmocr.runtime.facts import known_faults, versions, weight_hashes
from olmocr.strays import files_in
from olmocr.validate.known_pages.built_in_pages import pages_or_built_in
from olmocr.validate.known_pages.page_set import KnownPage, longest_side_for
from olmocr.validate.score import character_error_rate, plain
from olmocr.validate.smoke.prompts import prompt_problems
from olmocr.validate.weights.check import read_hashes
from olmocr.workspace.document import PageRecord

MOST_ERRORS = 0.15
"""Character error rate, without marks and spacing, above which a page counts as unread."""

_MAX_TOKENS = 1500
_MAX_ATTEMPTS = 3
_QUICK_BYTES = 200_000_000

Found = dict[tuple[str, int], PageRecord]
"""Records by a document's path and a page's number."""


@dataclass(frozen=True)
class SmokeTerms:
    """The options of a test: *pages* are documents and folders, or empty for the built-in pages.

    A model that reads needs at most *max_attempts* of *max_tokens* each for pages like the built-in ones, so a broken
    one does not run all night. *longest_side* is in pixels, None for what suits the model. *ask* replaces the folder's
    model.
    """

    pages: tuple[Path, ...] = ()
    longest_side: int | None = None
    max_tokens: int = _MAX_TOKENS
    max_attempts: int = _MAX_ATTEMPTS
    ask: Ask | None = None


def smoke_test(
    folder: Path, terms: SmokeTerms = SmokeTerms(), on_page: Callable[[], None] = lambda: None
) -> SmokeReport:
    """Have the model in *folder* read pages through the pipeline, and write smoke_report.json beside its weights.

    *on_page* is called after each page.

    Raises:
        CheckpointError: *folder* does not hold a loadable model.
        InputError: one of the pages cannot be read.
        MissingDependencyError: MLX, mlx-vlm or rapidfuzz is not installed.
        OutputError: the report cannot be written.
    """
    started = time.monotonic()
    read_config(ModelFolder(folder))
    side = terms.longest_side or longest_side_for(folder)
    with temporary_folder() as scratch:
        page_set, known = pages_or_built_in(terms.pages, scratch, side)
        workspace = scratch / "workspace"
        config = PipelineConfig(
            workspace=workspace,
            pdfs=tuple(dict.fromkeys(str(page.path) for page in known)),
            model=str(folder),
            markdown=True,
            target_longest_image_dim=side,
            max_page_retries=terms.max_attempts,
            max_tokens=terms.max_tokens,
        )
        found: Found = {}

        def keep(source: object, record: PageRecord) -> None:
            found[str(getattr(source, "name", "")), record.page_number] = record
            on_page()

        summary = run_pipeline_sync(config, on_page=keep, ask=terms.ask)
        pages = tuple(_judged(page, found.get((str(page.path), page.page_number)), summary) for page in known)
        unwritten = tuple(_unwritten(workspace, known, summary))
    hashes = weight_hashes(folder)
    problems = (*_changed_weights(folder, hashes), *prompt_problems(folder), *unwritten)
    report = SmokeReport(
        model=folder.resolve().name,
        weights=hashes,
        backend=config.backend,
        page_set=page_set,
        longest_side=side,
        passed=not problems and all(page.passed for page in pages),
        problems=problems,
        pages=pages,
        known_faults=known_faults(),
        seconds=round(time.monotonic() - started, 2),
        versions=versions(),
    )
    write_whole(folder / SMOKE_REPORT_FILE, report_json(report))
    return report


def why_not_possible() -> str | None:
    """Return what must be installed before a model can be tested or measured; None if nothing is missing."""
    missing = [name for name in ("mlx_vlm", "rapidfuzz") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} are not installed ({install_command('mlx')})" if missing else None


def why_not_quick(folder: Path) -> str | None:
    """Return why a smoke test of *folder* would take minutes, or cannot be run here; None if it is quick."""
    missing = why_not_possible()
    if missing:
        return missing
    try:
        device = start_mlx()
    except MissingDependencyError as error:
        return str(error)
    nbytes = sum(path.stat().st_size for path in files_in(folder, ".safetensors"))
    if device.kind == "cpu" and nbytes > _QUICK_BYTES:
        return f"this machine has no GPU for {nbytes / 1e9:.1f} GB of weights, so it would take long"
    return None


def _judged(page: KnownPage, record: PageRecord | None, summary: RunSummary) -> SmokePage:
    """Return the result of a page, and why it is not as it should be."""
    if record is None:
        why = [failure.why for failure in summary.failures if failure.source == str(page.path)]
        return _missing(page, tuple(why) or ("it was not read",))
    # A fallback page holds the file's own text, which the model did not read.
    text = "" if record.is_fallback else record.response.natural_text or ""
    rate = None if page.truth is None else round(character_error_rate(plain(text), plain(page.truth)), 4)
    missing = tuple(phrase for phrase in page.phrases if phrase not in plain(text))
    problems = tuple(_problems(page, record, rate, missing))
    return dataclasses.replace(
        _missing(page, problems),
        passed=not problems,
        status=record.status,
        attempts=record.attempts,
        rejected=record.rejected,
        finish_reason=record.finish_reason,
        rotation=record.rotation,
        input_tokens=record.input_tokens,
        output_tokens=record.total_output_tokens,
        missing_phrases=missing,
        character_error_rate=rate,
        seconds=record.seconds,
    )


def _problems(page: KnownPage, record: PageRecord, rate: float | None, missing: Sequence[str]) -> Iterator[str]:
    if record.is_fallback:
        yield f"no answer was good; the last: {record.rejected[-1] if record.rejected else 'none was requested'}"
        return
    if rate is not None and rate > MOST_ERRORS:
        yield f"{rate:.1%} of the characters are wrong, more than {MOST_ERRORS:.0%}"
    if missing:
        yield f"{len(missing)} of {len(page.phrases)} phrases are missing, the first {missing[0]!r}"
    if page.rotation is not None and record.rotation != page.rotation:
        yield f"it was turned by {record.rotation} degrees, not by {page.rotation}"
    if record.is_askew:
        yield "every answer says that it is turned"
    if page.truth is None and record.lacks_text:
        yield f"the answer has {record.coverage:.0%} of the words in the file itself"


def _missing(page: KnownPage, why: tuple[str, ...]) -> SmokePage:
    """Return the result for an unread page."""
    return SmokePage(
        document=page.path.name,
        page_number=page.page_number,
        kind=page.kind,
        passed=False,
        problems=why,
        status="missing",
        attempts=0,
        rejected=(),
        finish_reason=None,
        rotation=0,
        input_tokens=0,
        output_tokens=0,
        phrases=page.phrases,
        missing_phrases=page.phrases,
        character_error_rate=None,
        seconds=0.0,
    )


def _changed_weights(folder: Path, hashes: Mapping[str, str]) -> Iterator[str]:
    """Yield which weights changed since the conversion: one bit in a scale may not show on any page."""
    stated, _ = read_hashes(folder)
    for name, sha256 in hashes.items():
        if stated.get(name, sha256) != sha256:
            yield f"{name} has another SHA-256 than {HASHES_FILE} lists: it was changed; convert it again"


def _unwritten(workspace: Path, known: Sequence[KnownPage], summary: RunSummary) -> Iterator[str]:
    """Yield what the pipeline failed to write: a JSONL line and a markdown file for each document."""
    failed = {failure.source for failure in summary.failures}
    names = {str(page.path) for page in known} - failed
    records = [json.loads(path.read_text("utf-8")) for path in files_in(workspace / "results", ".jsonl")]
    unwritten = names - {record["metadata"]["Source-File"] for record in records}
    if unwritten:
        yield f"no JSONL was written for {', '.join(sorted(Path(name).name for name in unwritten))}"
    count = sum(1 for _ in (workspace / "markdown").rglob("*.md"))
    if count < len(names):
        yield f"markdown was written for {count} of {len(names)} documents"
