"""A folder that passes -> a repository on the Hub: weights first, verified there, the card last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from olmocr.errors import HubError, UsageError
from olmocr.hub.write import Hub, LocalFile, RemoteState
from olmocr.publish.card import Variant, make_card, make_chart
from olmocr.publish.eval_results import eval_results, why_no_score
from olmocr.publish.folder_reports import parse_conversion_report
from olmocr.publish.front_matter import REPO_ID, SourceFacts, with_earlier
from olmocr.publish.gates import CheckWeights, Gate, GateFailedError, failing_gates, judge
from olmocr.publish.rows import CardRow, parse_rows, with_kept, write_rows
from olmocr.publish.scan import (
    CARD_FILE,
    CHART_FILE,
    EVAL_RESULTS_FILE,
    VARIANTS_FILE,
    is_ours,
    made_file,
    scan_folder,
    text_problems,
)
from olmocr.publish.siblings import read_repository
from olmocr.reports.conversion import REPORT_FILE, ConversionReport
from olmocr.reports.typed_json import WrongTypeError
from olmocr.runtime.origin import package_repository
from olmocr.validate.weights.check import check_weights
from olmocr.version import __version__

# The Hub puts it into every new repository.
_ATTRIBUTES = ".gitattributes"

Say = Callable[[str], None]
"""Called with the next step."""


@dataclass(frozen=True)
class Push:
    """A push's options. *allow_failing* names gates; *collection* is a slug.

    *siblings* are repositories to list in the card, with what they hold now. With *alone*, variants that an earlier
    card listed are dropped.
    """

    repo: str
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    force: bool = False
    allow_failing: tuple[str, ...] = ()
    collection: str | None = None
    alone: bool = False
    siblings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not REPO_ID.fullmatch(self.repo):
            raise UsageError(f"--repo {self.repo} is not a repository's name; give one like ORG/NAME")
        if self.create_pr and (self.revision or self.collection):
            raise UsageError("--create-pr offers a change to main; leave --revision and --collection out")
        if self.repo in self.siblings:
            raise UsageError(f"--sibling {self.repo} is --repo itself; name other variants, or leave it out")

    @property
    def offers(self) -> bool:
        """Whether it goes into a pull request, which any token may open."""
        return self.create_pr or (self.revision or "").startswith("refs/pr/")


@dataclass(frozen=True)
class Change:
    """What becomes of a file in the repository; *file* is None for a deleted one."""

    action: Literal["add", "replace", "keep", "delete"]
    name: str
    file: LocalFile | None


@dataclass(frozen=True)
class PushPlan:
    """Everything that will be done. *state* is None for a new repository; *card* is not in *files*.

    *why_no_score* says why a benchmark that was run does not give a score for the Hub; *notes* are sentences about what
    the card lacks.
    """

    push: Push
    owner: str
    gates: tuple[Gate, ...]
    state: RemoteState | None
    files: tuple[LocalFile, ...]
    card: LocalFile
    changes: tuple[Change, ...]
    why_no_score: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pushed:
    """The result: *where* is its address, *revision* the branch there; *uploaded* and *deleted* name files."""

    where: str
    revision: str
    sha: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]


def plan_push(
    push: Push,
    variant: Variant,
    siblings: Sequence[Variant],
    facts: SourceFacts,
    hub: Hub,
    check: CheckWeights = check_weights,
) -> PushPlan:
    """Find out whether *variant* may be published, and what that changes; do not change anything yet.

    Facts in the card of an earlier push are kept unless given again: the rows of other variants, the base model and the
    license. Rows of *siblings*, and of the repositories that *push* names, are made anew.

    Raises:
        GateFailedError: a gate failed that may not fail, or the folder holds what must not be published.
        HubError: the token may not write, the repository is not ours, or the Hub gives no answer.
        InputError: a repository named as a sibling lacks a report, or has a damaged one.
        UsageError: a gate's name is unknown.
    """
    scan = scan_folder(variant.reports.folder)
    if scan.problems:
        raise GateFailedError(
            "nothing was published, because of what is in the folder:\n  " + "\n  ".join(scan.problems)
        )
    gates = judge(variant.reports, scan.files, check)
    failing = failing_gates(gates, push.allow_failing)
    rows = tuple(each.row for each in siblings)
    _card(variant, facts, rows, failing)  # refuses a card that must not be published before asking the Hub
    owner = hub.require_permission(push.repo, offering=push.offers)
    rows = (*rows, *(read_repository(each, hub).row for each in push.siblings))
    state = hub.read_state(push.repo, push.revision)
    earlier_is_ours = _require_ours(push, state, variant.reports.conversion, hub)
    if state and earlier_is_ours:
        facts = with_earlier(facts, _text_there(push.repo, state, CARD_FILE, hub))
        earlier = () if push.alone else parse_rows(_text_there(push.repo, state, VARIANTS_FILE, hub))
        rows = with_kept(rows, earlier, variant.title)
    card = _card(variant, facts, rows, failing)
    hub.require_valid_card((card.content or b"").decode())
    files = (*scan.files, *_made_files(variant, rows))
    bench = variant.reports.bench
    why = why_no_score(bench) if bench else ()
    changes = _changes(state, (*files, card))
    return PushPlan(push, owner, gates, state, files, card, changes, why, _notes(facts))


def carry_out(plan: PushPlan, hub: Hub, say: Say = lambda text: None) -> Pushed:
    """Upload, compare what is there with the local files, and only then write the card.

    It can be run again after any failure, with a new plan: existing files are not sent again.

    Raises:
        HubError: something failed, or someone else changed the repository meanwhile.
    """
    push = plan.push
    if plan.why_no_score:
        say(_no_score_line(plan))
    for note in plan.notes:
        say(note)
    state = plan.state or _create(push, hub, say)
    if state.new_branch and push.revision:
        hub.create_branch(push.repo, push.revision)
    done = Pushed(f"{hub.endpoint}/{push.repo}", push.revision or "main", state.sha, (), ())
    done = _commit(push, hub, done, _changes(state, plan.files), f"Add weights made with olmocr {__version__}", say)
    done = _commit(push, hub, done, _changes(state, (plan.card,), deleting=False), "Add the model card", say)
    if push.collection:
        say(f"putting it into {push.collection}")
        hub.collect(push.collection, push.repo)
    return done


def offer_card(hub: Hub, repo: str, text: str) -> str:
    """Offer *text* as the card of *repo*; return the pull request's address.

    Raises:
        HubError: there is no such repository, or it does not accept pull requests.
    """
    hub.require_permission(repo, offering=True)
    hub.require_valid_card(text)
    state = hub.read_state(repo)
    if state is None:
        raise HubError(f"{repo} does not exist, or not for this token, so it cannot get a pull request")
    files = [made_file(CARD_FILE, text)]
    made = hub.commit(repo, files, [], "Correct the model card", parent=state.sha, revision="main", create_pr=True)
    return made.pull_request or made.url


def show_plan(plan: PushPlan) -> str:
    """Return the plan for a person to read: each file, its size and hash, and finally the decision."""
    push, state = plan.push, plan.state
    where = f"{push.repo}{' at ' + push.revision if push.revision else ''}"
    if state is None:
        head = f"{where} will be made, {'private' if push.private else 'public'}"
    else:
        head = f"{where} is at {state.sha}, {'private' if state.private else 'public'}"
        head += "; a pull request is made" if push.create_pr else ""
    lines = [f"repository  {head}", f"token       of {plan.owner}"]
    lines += [f"gate        {gate.name}: {'ok' if gate.holds else 'FAILED'}: {gate.detail}" for gate in plan.gates]
    lines += [f"benchmark   {_no_score_line(plan)}"] if plan.why_no_score else []
    lines += [f"card        {note}" for note in plan.notes]
    lines += [_line(change) for change in plan.changes]
    return "\n".join([*lines, "", _decision(plan)])


def card_text(plan: PushPlan) -> str:
    """Return the card that a push writes."""
    return (plan.card.content or b"").decode()


def _decision(plan: PushPlan) -> str:
    """Return in a sentence what the same command would do without --dry-run."""
    actions = ("add", "replace", "delete", "keep")
    counts = {action: sum(change.action == action for change in plan.changes) for action in actions}
    size = sum(change.file.size for change in plan.changes if change.file and change.action in ("add", "replace"))
    failing = [gate.name for gate in plan.gates if not gate.holds]
    done = ", ".join(f"{action} {count}" for action, count in counts.items())
    because = f"although {' and '.join(failing)} failed" if failing else "all gates passed"
    if plan.state and counts["keep"] == len(plan.changes):
        return f"would change nothing: {plan.push.repo} already holds these files; {because}"
    return f"would push to {plan.push.repo}: {done} files, {size / 1e6:.1f} MB; {because}. Nothing was changed yet"


def _notes(facts: SourceFacts) -> tuple[str, ...]:
    """Return what an audit would find wrong in a card with these facts."""
    base = "the card does not name a base model, which an audit would report; name it with --base-model ORG/NAME"
    license_id = "the card does not state a license, which an audit would report; state the source's with --license ID"
    return (*(() if facts.base_model else (base,)), *(() if facts.license else (license_id,)))


def _text_there(repo: str, state: RemoteState, name: str, hub: Hub) -> str:
    """Return a file of a repository; an empty text if it is missing."""
    there = state.files.get(name)
    return (hub.read_text(repo, state.sha, name, there.size) or "") if there else ""


def _no_score_line(plan: PushPlan) -> str:
    return f"no {EVAL_RESULTS_FILE}, because this is not a full run of olmOCR-bench: {'; '.join(plan.why_no_score)}"


def _made_files(variant: Variant, siblings: Sequence[CardRow]) -> list[LocalFile]:
    """Return the files made beside the card: a picture, rows of other variants, the score of a full benchmark."""
    chart, reports = make_chart([variant.row, *siblings]), variant.reports
    files = [made_file(CHART_FILE, chart)] if chart else []
    files += [made_file(VARIANTS_FILE, write_rows(siblings))] if siblings else []
    if reports.bench and not why_no_score(reports.bench):
        text = eval_results(reports.bench, reports.conversion.bits_per_weight, variant.title)
        files.append(made_file(EVAL_RESULTS_FILE, text))
    return files


def _line(change: Change) -> str:
    file = change.file
    return f"{change.action:<10}  {change.name}" + (f"  {file.size:,} bytes  SHA-256 {file.sha256}" if file else "")


def _card(variant: Variant, facts: SourceFacts, siblings: Sequence[CardRow], failing: Sequence[Gate]) -> LocalFile:
    text = make_card(variant, facts, siblings, failing, package_repository())
    problems = text_problems(CARD_FILE, text)
    if problems:
        raise GateFailedError("nothing was published, because of what the card would say:\n  " + "\n  ".join(problems))
    return made_file(CARD_FILE, text)


def _require_ours(push: Push, state: RemoteState | None, conversion: ConversionReport, hub: Hub) -> bool:
    """Return whether a repository holds an earlier version of the same; refuse any other, unless forced."""
    if state is None:
        if push.offers:
            raise HubError(f"{push.repo} does not exist, or not for this token, so it cannot get a pull request")
        return False
    if push.private and not state.private:
        raise HubError(f"{push.repo} is public, and --private does not change that; change it on the Hub first")
    reason = _why_not_ours(push.repo, state, conversion, hub)
    if reason and not (push.force or push.offers):
        raise HubError(f"{reason}; choose another --repo, offer it with --create-pr, or overwrite it with --force")
    return reason is None


def _why_not_ours(repo: str, state: RemoteState, conversion: ConversionReport, hub: Hub) -> str | None:
    """Return why a repository must not be overwritten; None if it is empty or an earlier version of the same."""
    if set(state.files) <= {_ATTRIBUTES}:
        return None
    if REPORT_FILE not in state.files:
        return f"{repo} holds {len(state.files)} files that this package did not put there"
    text = hub.read_text(repo, state.sha, REPORT_FILE, state.files[REPORT_FILE].size)
    try:
        there = parse_conversion_report(text or "")
    except WrongTypeError as error:
        return f"{repo} holds a {REPORT_FILE} that is not from this package ({error})"
    if (there.source.name, there.recipe.name) != (conversion.source.name, conversion.recipe.name):
        return (
            f"{repo} holds {there.recipe.name} of {there.source.name}, "
            f"but this is {conversion.recipe.name} of {conversion.source.name}"
        )
    return None


def _changes(state: RemoteState | None, files: Sequence[LocalFile], *, deleting: bool = True) -> tuple[Change, ...]:
    """Return what *files* change: other files of the kinds that we publish are deleted."""
    remote = state.files if state else {}
    changes = []
    for file in sorted(files, key=lambda each: each.name):
        there = remote.get(file.name)
        action: Literal["add", "replace", "keep"] = "add"
        if there is not None:
            action = "keep" if there.is_same(file) else "replace"
        changes.append(Change(action, file.name, file))
    names = {file.name for file in files}
    gone = sorted(name for name in remote if deleting and is_ours(name) and name not in names)
    return (*changes, *(Change("delete", name, None) for name in gone))


def _create(push: Push, hub: Hub, say: Say) -> RemoteState:
    say(f"making {push.repo}, {'private' if push.private else 'public'}")
    hub.create(push.repo, private=push.private)
    state = hub.read_state(push.repo, push.revision)
    if state is None:
        raise HubError(f"{push.repo} was created, but the Hub does not show it yet; run the same command again")
    return state


def _commit(push: Push, hub: Hub, done: Pushed, changes: Sequence[Change], message: str, say: Say) -> Pushed:
    """Commit on top of what was done so far, unless nothing changes, and compare the result with the local files."""
    files = [change.file for change in changes if change.file and change.action != "keep"]
    deleted = [change.name for change in changes if change.action == "delete"]
    if not files and not deleted:
        return done
    say(_doing(files, deleted))
    commit = hub.commit(
        push.repo,
        files,
        deleted,
        message,
        parent=done.sha,
        revision=done.revision,
        create_pr=push.create_pr and not done.revision.startswith("refs/pr/"),
    )
    _require_there(push.repo, hub, commit.revision, commit.sha, [change.file for change in changes if change.file])
    return replace(
        done,
        where=commit.pull_request or done.where,
        revision=commit.revision,
        sha=commit.sha,
        uploaded=(*done.uploaded, *(file.name for file in files)),
        deleted=(*done.deleted, *deleted),
    )


def _doing(files: Sequence[LocalFile], deleted: Sequence[str]) -> str:
    size = sum(file.size for file in files) / 1e6
    names = (
        files[0].name
        if len(files) == 1
        else f"{len(files)} files, {size:.1f} MB, except what is already in its storage"
    )
    parts = [f"sending {names}"] if files else []
    return "; ".join([*parts, *([f"deleting {', '.join(deleted)}"] if deleted else [])])


def _require_there(repo: str, hub: Hub, revision: str, sha: str, files: Sequence[LocalFile]) -> None:
    """Refuse to continue unless the Hub lists each of *files* with our size and hash, at our commit."""
    state = hub.read_state(repo, revision)
    if state is None or state.sha != sha:
        raise HubError(
            f"{repo} was changed by someone else meanwhile; look at the change, then run the same command again"
        )
    wrong = [file.name for file in files if file.name not in state.files or not state.files[file.name].is_same(file)]
    if wrong:
        raise HubError(
            f"{repo} holds other files than were sent, by size or hash: {', '.join(wrong)}; "
            "the card was not written, so run the same command again"
        )
