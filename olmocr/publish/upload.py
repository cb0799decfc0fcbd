"""Conversions -> repositories on the Hub: measures what the gates require, unless it is known."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.conversion.write import Target
from olmocr.errors import MissingDependencyError, UsageError
from olmocr.hub.write import Hub
from olmocr.model_folder import ModelFolder
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import SourceFacts, as_license, split_card, stated_facts
from olmocr.publish.gates import require_gates
from olmocr.publish.push import Push, Say, carry_out, plan_push
from olmocr.publish.ready import has_passed_fidelity
from olmocr.publish.scan import CARD_FILE
from olmocr.reports.fidelity import fidelity_lines, fidelity_verdict
from olmocr.runtime.facts import weight_hashes
from olmocr.validate.fidelity.gates import check_gates, read_gates
from olmocr.validate.fidelity.measure import FidelityTerms, OnPage, measure_fidelity, write_fidelity_report
from olmocr.validate.known_pages.page_set import read_page_set
from olmocr.validate.smoke.run import why_not_possible, why_not_quick

_LONG = 60  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """Where conversions are published: *repo* or, with several recipes, REPO-RECIPE for each.

    *allowed* are gates that may fail: measurements that only these need are skipped. *pages* are documents and folders
    on which to measure models against their source, or empty for the built-in ones. *base_model* is the repository that
    the source is, or was trained from, and *license_id* the source's, in the Hub's spelling. *collection* is a slug.
    """

    repo: str
    private: bool = False
    allowed: tuple[str, ...] = ()
    pages: tuple[Path, ...] = ()
    license_id: str | None = None
    base_model: str | None = None
    collection: str | None = None

    def requires(self, gate: str) -> bool:
        """Return whether *gate* must be passed."""
        return gate not in self.allowed

    def pushes(self, targets: Sequence[Target]) -> tuple[Push, ...]:
        """Return the push of each of *targets*.

        Raises:
            UsageError: a repository's name is invalid.
        """
        names = [f"-{target.plan.recipe.name}" if len(targets) > 1 else "" for target in targets]
        return tuple(
            Push(
                f"{self.repo}{name}",
                private=self.private,
                allow_failing=self.allowed,
                collection=self.collection,
            )
            for name in names
        )

    def require_possible(self, targets: Sequence[Target], hub: Hub, *, smoke_test: bool, low_disk: bool) -> SourceFacts:
        """Find out, before anything is converted, what would prevent publishing; return what cards will say.

        Raises:
            HubError: the token may not write there.
            InputError: the pages cannot be read.
            MissingDependencyError: a package needed for measuring is not installed.
            UsageError: the options leave out what a gate needs, or name an invalid gate or repository.
        """
        pushes = self.pushes(targets)
        require_gates(self.allowed)
        stated_facts(self.base_model, self.license_id)
        if self.requires("smoke") and not smoke_test:
            raise UsageError(
                "--upload-repo needs the smoke test; leave out --no-smoke-test, or add --allow-failing smoke"
            )
        if self.requires("fidelity") and low_disk and targets[0].plan.source.folder.remote_weights:
            raise UsageError(
                "--low-disk does not keep the source to measure against; leave it out, or add --allow-failing fidelity"
            )
        missing = why_not_possible()
        if missing and (self.requires("smoke") or self.requires("fidelity")):
            raise MissingDependencyError(f"a model is tested and measured before the upload, and {missing}")
        if self.pages:
            read_page_set(self.pages)
        self._require_base_model(targets[0].plan.source.folder)
        for push in pushes:
            hub.require_permission(push.repo)
        if self.collection:
            hub.require_collection(self.collection)
        return self._facts(targets[0].plan.source.folder, hub)

    def _require_base_model(self, source: ModelFolder) -> None:
        if self.base_model is None and source.repo_id is None:
            also = "" if self.license_id or _license_beside(source) else ", and --license ID unless that is olmOCR-2"
            raise UsageError(
                f"{source.name} is a local folder, and the card has to name the repository that it is, or was trained "
                f"from; give --base-model ORG/NAME{also}"
            )

    def _facts(self, source: ModelFolder, hub: Hub) -> SourceFacts:
        """Return what the cards say about *source*; its license is the one given, or from its card or its base's.

        Raises:
            HubError: the Hub does not answer.
            UsageError: no license is stated.
        """
        facts = stated_facts(self.base_model or source.repo_id, self.license_id or _license_beside(source))
        if facts.license is None and facts.base_model is not None:
            facts = stated_facts(facts.base_model, as_license(hub.read_license(facts.base_model)))
        if facts.license is None:
            raise UsageError(
                f"{source.name} and {facts.base_model} do not state a license, and the card must; "
                "state it with --license ID, like apache-2.0"
            )
        return facts

    def measure(self, targets: Sequence[Target], on_page: OnPage = lambda name, total: None) -> None:
        """Measure each of *targets* against its source, unless that is known, check its limits, and write the result.

        Raises:
            OlmocrError: as in ``measure_fidelity``.
        """
        source = targets[0].plan.source.folder.path
        weights = weight_hashes(source)
        unknown = [target.output for target in targets if not has_passed_fidelity(target.output, weights, self.pages)]
        for target in targets:
            if target.output not in unknown:
                _log.info("%s has already been measured against its source", target.output)
        why = why_not_quick(source) if unknown else None
        if why:
            _log.warning(
                "measuring takes long: %s; you can interrupt it, and the same command resumes page by page; with "
                "--allow-failing fidelity it is published unmeasured, and its card says so",
                why,
            )
        for folder in unknown:
            _log.info("measuring %s against its source, on %s", folder, self._page_set())
            report = measure_fidelity(folder, source, FidelityTerms(self.pages), timed(on_page))
            report = dataclasses.replace(report, gate=check_gates(report, read_gates()))
            write_fidelity_report(folder, report)
            passed = report.gate is not None and report.gate.passed
            for line in [fidelity_verdict(report)] if passed else fidelity_lines(report):
                _log.log(logging.INFO if passed else logging.WARNING, "%s", line)

    def publish(self, targets: Sequence[Target], hub: Hub) -> None:
        """Push all of *targets*, each with the others in its card's tables, or none if one fails a gate.

        Raises:
            OlmocrError: as in ``plan_push`` and ``carry_out``.
        """
        pushes = self.pushes(targets)
        pairs = zip(pushes, targets, strict=True)
        variants = [Variant(push.repo, read_reports(target.output)) for push, target in pairs]
        facts = self._facts(targets[0].plan.source.folder, hub)
        plans = []
        for push, variant in zip(pushes, variants, strict=True):
            siblings = [each for each in variants if each is not variant]
            plans.append(plan_push(push, variant, siblings, facts, hub))
        for plan in plans:
            done = carry_out(plan, hub, _log.info)
            _log.info("published %s: %d files uploaded, at %s", done.where, len(done.uploaded), done.sha)

    def _page_set(self) -> str:
        return " and ".join(path.resolve().name for path in self.pages) or "the built-in pages"


def _license_beside(source: ModelFolder) -> str | None:
    """Return the license in the card of a source's folder, if the Hub knows it by that name."""
    path = source.path / CARD_FILE
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return as_license(split_card(card)[0].get("license"))


def timed(on_page: OnPage, say: Say = _log.info, clock: Callable[[], float] = time.monotonic) -> OnPage:
    """Return *on_page*, extended to report the remaining time after the first page really read, if that is long.

    Pages measured by an earlier run are counted at once, and do not count as read.
    """
    last, count, is_said = clock(), 0, False

    def report(name: str, total: int) -> None:
        nonlocal last, count, is_said
        on_page(name, total)
        now = clock()
        seconds, last, count = now - last, now, count + 1
        left = seconds * (total - count)
        if seconds > 1 and left > _LONG and not is_said:
            is_said = True
            say(f"{total - count} pages are left, about {left / 60:.0f} minutes")

    return report
