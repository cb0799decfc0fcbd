"""A folder, its files and reports -> whether it may be published: complete, readable and close to its source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.errors import ExitCode, OlmocrError, UsageError
from olmocr.hub.write import LocalFile
from olmocr.publish.folder_reports import Reports
from olmocr.publish.scan import WEIGHTS
from olmocr.validate.weights.check import WeightsReport, check_weights

NAMES = ("weights", "smoke", "fidelity")

CheckWeights = Callable[[Path], WeightsReport]


class GateFailedError(OlmocrError):
    """A model must not be published as it is."""

    exit_code = ExitCode.GATE_FAILED


@dataclass(frozen=True)
class Gate:
    """One of ``NAMES``; one that was not measured fails. *detail* is a sentence for the card."""

    name: str
    holds: bool
    detail: str


def judge(reports: Reports, files: Collection[LocalFile], check: CheckWeights = check_weights) -> tuple[Gate, ...]:
    """Return all gates. *files* are those of the folder, with hashes just computed."""
    return (_weights_gate(reports, files, check(reports.folder)), _smoke_gate(reports), _fidelity_gate(reports))


def failing_gates(gates: Sequence[Gate], allowed: Collection[str]) -> tuple[Gate, ...]:
    """Return the gates that failed; *allowed* must name them all.

    Raises:
        GateFailedError: one failed that is not in *allowed*.
        UsageError: *allowed* names something that is not a gate.
    """
    require_gates(allowed)
    failing = tuple(gate for gate in gates if not gate.holds)
    forbidden = [f"{gate.name}: {gate.detail}" for gate in failing if gate.name not in allowed]
    if forbidden:
        raise GateFailedError(
            "nothing was published, because these gates failed:\n  " + "\n  ".join(forbidden) + "\n"
            "Fix this, or name the gate with --allow-failing; the card will say so in its first lines."
        )
    return failing


def require_gates(names: Collection[str]) -> None:
    """Refuse *names* if one of them is not a gate's.

    Raises:
        UsageError: one is not.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise UsageError(f"--allow-failing {unknown[0]} is not a gate; name one of {', '.join(NAMES)}")


def _weights_gate(reports: Reports, files: Collection[LocalFile], found: WeightsReport) -> Gate:
    problems = [f"{check.name}: {'; '.join(check.problems[:3])}" for check in found.checks if check.holds is False]
    problems += [f"{check.name} not checked: {check.detail}" for check in found.checks if check.holds is None]
    stated = {file.name: file.sha256 for file in reports.conversion.files}
    actual = {file.name: file.sha256 for file in files if WEIGHTS.fullmatch(file.name)}
    if stated != actual:
        problems.append("the weights are not those that the conversion report lists")
    return Gate("weights", not problems, " ".join(f"{each}." for each in problems) or "The folder is complete.")


def _smoke_gate(reports: Reports) -> Gate:
    smoke = reports.smoke
    if smoke is None:
        return Gate("smoke", False, "Whether it reads was not measured.")
    passed = sum(page.passed for page in smoke.pages)
    pages = f"{passed} of {len(smoke.pages)} pages of the smoke test passed"
    holds = smoke.passed and passed == len(smoke.pages) > 0 and not smoke.problems
    return Gate("smoke", holds, "; ".join([pages, *smoke.problems]) + ".")


def _fidelity_gate(reports: Reports) -> Gate:
    fidelity = reports.fidelity
    if fidelity is None:
        return Gate("fidelity", False, "How close it is to its source was not measured.")
    if fidelity.gate is None:
        return Gate("fidelity", False, "How close it is to its source was measured, but not against limits.")
    broken = [f"{each.name} is {each.measured:.3g} and may be {each.limit:.3g}" for each in fidelity.gate.broken]
    holds = fidelity.gate.passed and not broken
    return Gate("fidelity", holds, f"{'; '.join(broken) or ('Within' if holds else 'Not within') + ' its limits'}.")
