"""Plans -> converted folders that are complete, or none; a later run resumes after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmocr.conversion.calibrated.store import NO_PARTS, CalibratedParts, CalibrationFolder
from olmocr.conversion.calibrated.terms import Calibration
from olmocr.conversion.calibrated.wanted import rounding_before, wanted_matrices, work_of
from olmocr.conversion.companions import write_companions, write_file
from olmocr.conversion.partial import STATE_FILE, PartialFolder, is_empty, partial_folder
from olmocr.conversion.plan import ConversionPlan
from olmocr.conversion.plan_text import Resources
from olmocr.conversion.quantizing.rows import find_processor
from olmocr.conversion.report import make_report
from olmocr.conversion.shards import (
    Conversion,
    OpenShard,
    Progress,
    SourceChangedError,
    SourceShard,
    VariantToWrite,
    WrittenShard,
    all_threads,
    peak_memory_of,
    write_shards,
)
from olmocr.errors import CheckpointError, OutputError, PlanError, UsageError, output_error
from olmocr.files import sha256_of
from olmocr.hub.read import fetch_shard
from olmocr.inputs.places import folded
from olmocr.model_folder import HASHES_FILE, ModelFolder, shard_sha256
from olmocr.reports.conversion import (
    REPORT_FILE,
    CalibrationReport,
    ConversionReport,
    DivergenceReport,
    Processor,
)
from olmocr.reports.typed_json import report_json
from olmocr.runtime.memory import peak_memory
from olmocr.strays import is_stray
from olmocr.version import __version__

# Space for index, config and tokenizer beside the shards.
_SPARE_BYTES = 64 << 20

_log = logging.getLogger(__name__)


Measure = Callable[[ConversionPlan, Path], DivergenceReport]
"""A plan and the folder with its shards -> its distance from the source."""


@dataclass(frozen=True)
class Target:
    """A plan and the folder that it becomes."""

    plan: ConversionPlan
    output: Path


def find_resources(
    targets: Sequence[Target], threads: int | None = None, calibration: Calibration | None = None
) -> Resources:
    """Return what carrying out *targets* together takes: disk space, free disk space and peak memory, in bytes."""
    shards = {tensor.source.shard: 0 for target in targets for tensor in target.plan.tensors}
    model = targets[0].plan.source.folder
    sizes = {file.name: file.size for file in model.remote_files}
    download = max((sizes.get(shard, 0) for shard in shards), default=0) if model.remote_weights else 0
    needed = sum(target.plan.file_bytes + _SPARE_BYTES for target in targets) + download
    memory = peak_memory_of(find_processor(), threads or all_threads(), len(targets))
    if calibration:
        from olmocr.conversion.calibrated.passes.walk import states_bytes

        wanted = wanted_matrices((target.plan for target in targets), calibration.propagated_bits)
        work = work_of(wanted, calibration.pages, calibration.down_slices, by_gradients=calibration.by_gradients)
        needed += work.part_bytes + states_bytes(
            targets[0].plan.source,
            calibration.pages,
            way_back=calibration.by_gradients,
            recipes=len({key.before for each in wanted for key in each.asked} - {""}),
        )
        memory = max(memory, work.peak_memory)
    return Resources(disk_needed=needed, disk_free=min(_free(target.output) for target in targets), peak_memory=memory)


def write_models(
    targets: Sequence[Target],
    progress: Progress = lambda nbytes: None,
    *,
    threads: int | None = None,
    processor: Processor | None = None,
    calibration: Calibration | None = None,
    measure: Measure | None = None,
) -> list[ConversionReport]:
    """Carry out plans of one source together, reading it once: write beside each output, read back, rename.

    A failure leaves nothing under an output's name. After an interruption the complete shards stay in a hidden folder
    beside it, and the same call resumes from them. *threads* defaults to a number that fits this machine. Plans whose
    method is ``calibrated`` need *calibration*, and read the source a second time, before. *measure* is called for each
    plan that has a prediction, once its shards are written; its result is in the report.

    Raises:
        CheckpointError: the source cannot be read, or holds a value that is not a number.
        HubError: the source cannot be fetched from the Hub.
        OutputError: an output exists, lies in the source, another process is writing it, or cannot be written.
        PlanError: the disk is too full, or a value does not fit into the requested dtype.
    """
    _check_outputs(targets)
    processor, threads = processor or find_processor(), threads or all_threads()
    if calibration is None and any(target.plan.method == "calibrated" for target in targets):
        raise ValueError("a plan whose method is calibrated needs pages")
    try:
        return _write_models(targets, progress, threads, processor, calibration, measure)
    except SourceChangedError as error:
        _log.warning("%s", error)  # nothing is left of the earlier run, so this cannot happen again
        return _write_models(targets, progress, threads, processor, calibration, measure)


def _write_models(
    targets: Sequence[Target],
    progress: Progress,
    threads: int,
    processor: Processor,
    calibration: Calibration | None,
    measure: Measure | None,
) -> list[ConversionReport]:
    started = time.monotonic()
    source = targets[0].plan.source.folder
    with contextlib.ExitStack() as stack:
        partials = [
            stack.enter_context(partial_folder(each.output, _fingerprint(each.plan, processor, calibration)))
            for each in targets
        ]
        _require_room(targets, partials, calibration)
        resumed = [len(partial.whole) for partial in partials]
        calibrated = _calibrate(targets, partials, processor, threads, calibration)
        hashes = _write_shards(targets, partials, progress, processor, threads, calibrated)
        reports = []
        for target, partial, count in zip(targets, partials, resumed, strict=True):
            report = make_report(
                target.plan,
                partial.whole.values(),
                hashes,
                processor=processor,
                threads=threads,
                resumed_shards=count,
                seconds=time.monotonic() - started,
                peak_memory=peak_memory(),
                calibration=calibrated.report(target.plan),
                divergence=measure(target.plan, partial.path) if measure and target.plan.predicted_nats else None,
            )
            _complete(target, partial, report)
            reports.append(report)
        calibrated.remove()
    if source.remote_weights:
        _log.info("the source's shards were fetched one by one and were not kept")
    return reports


@dataclass(frozen=True)
class _Calibrated:
    """What calibration made for some plans, and the folder that holds it until the shards are written."""

    parts: CalibratedParts = NO_PARTS
    calibration: Calibration | None = None
    folder: CalibrationFolder | None = None
    seconds: float = 0.0

    def report(self, plan: ConversionPlan) -> CalibrationReport | None:
        if self.calibration is None or plan.method != "calibrated":
            return None
        from olmocr.conversion.calibrated.calibrate import calibration_report

        return calibration_report(plan, self.calibration, self.parts_of(plan), self.seconds)

    def parts_of(self, plan: ConversionPlan) -> CalibratedParts:
        """Return the parts for *plan*."""
        if self.calibration is None or plan.method != "calibrated":
            return NO_PARTS
        return self.parts.for_rounding(rounding_before(plan, self.calibration.propagated_bits))

    def remove(self) -> None:
        if self.folder:
            self.folder.remove()


def _calibrate(
    targets: Sequence[Target],
    partials: Sequence[PartialFolder],
    processor: Processor,
    threads: int,
    calibration: Calibration | None,
) -> _Calibrated:
    """Calibrate for the plans before any shard is written; the lock on the first folder keeps other runs out."""
    plans = [target.plan for target in targets]
    if calibration is None or not wanted_matrices(plans):
        return _Calibrated()
    from olmocr.conversion.calibrated.calibrate import calibrate

    started = time.monotonic()
    first = targets[0].output
    identity = (__version__, processor, calibration.fingerprint, _source_identity(plans[0]))
    fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()
    folder = CalibrationFolder(first.with_name(f".{first.name}.calibration"), fingerprint)
    folder.resume()
    parts = calibrate(plans, calibration, folder, processor, threads)
    return _Calibrated(parts, calibration, folder, time.monotonic() - started)


def _write_shards(
    targets: Sequence[Target],
    partials: Sequence[PartialFolder],
    progress: Progress,
    processor: Processor,
    threads: int,
    calibrated: _Calibrated,
) -> dict[str, str]:
    """Write what is missing; return the SHA-256 of the source's shards."""
    source = targets[0].plan.source.folder
    names = sorted({tensor.source.shard for target in targets for tensor in target.plan.tensors})
    earlier = {name: sha256 for partial in partials for name, sha256 in partial.hashes.items()}
    sources = {
        name: SourceShard(shard_sha256(source, name), earlier.get(name), source.remote_weights) for name in names
    }

    def remember(name: str, sha256: str) -> None:
        stated = shard_sha256(source, name)
        if stated is not None and stated != sha256:
            raise CheckpointError(
                f"{name} of {source.where} is not the file that the Hub lists: its SHA-256 is {sha256}, not {stated}; "
                "remove it from the Hub's cache (HF_HOME) and run it again"
            )
        for partial in partials:  # a later run may resume any of them alone
            partial.add_hash(name, sha256)

    conversion = Conversion(
        variants=[
            VariantToWrite(
                target.plan,
                partial.path,
                dict(partial.whole),
                calibrated.parts_of(target.plan),
            )
            for target, partial in zip(targets, partials, strict=True)
        ],
        open_shard=_opener(source, partials[0].downloads),
        processor=processor,
        threads=threads,
        progress=progress,
        shard_is_whole=lambda number, shard: partials[number].add(shard),
        source_is_read=remember,
    )
    return write_shards(conversion, sources)


def _opener(source: ModelFolder, downloads: Path) -> OpenShard:
    """Return how a source shard comes to this disk: it is there already, or is fetched and dropped after use."""

    @contextlib.contextmanager
    def here(shard: str) -> Iterator[Path]:
        yield source.path / shard

    @contextlib.contextmanager
    def fetched(shard: str) -> Iterator[Path]:
        downloads.mkdir(exist_ok=True)
        for other in downloads.iterdir():  # an interrupted run may have left a later one
            if other.name not in (shard, f"{shard}.incomplete") and not is_stray(other.name):
                other.unlink(missing_ok=True)
        path = fetch_shard(source, shard, downloads)
        yield path
        path.unlink(missing_ok=True)

    return fetched if source.remote_weights else here


def _complete(target: Target, partial: PartialFolder, report: ConversionReport) -> None:
    """Add everything except the weights, and rename the folder to its final name."""
    try:
        write_companions(target.plan, partial.path)
        write_file(partial.path / REPORT_FILE, report_json(report).encode())
        write_file(partial.path / HASHES_FILE, _sums_file(partial.path, partial.whole.values()).encode())
        partial.finish(target.output)
    except OSError as error:
        raise output_error(error, str(target.output)) from error


def _sums_file(folder: Path, shards: Iterable[WrittenShard]) -> str:
    """Return what ``sha256sum`` prints for all files of the model.

    The report is left out, because it contains the time taken, and two conversions of one source must have the same
    sums. Files that a system adds are left out, too: a disk that is not a Mac's own gets a ``._NAME`` beside each file.
    """
    known = {shard.file_name: shard.sha256 for shard in shards}
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (REPORT_FILE, HASHES_FILE, STATE_FILE) and not is_stray(path.name):
            sha256 = known.get(path.name) or sha256_of(path)
            lines.append(f"{sha256}  {path.name}\n")
    return "".join(lines)


def _fingerprint(plan: ConversionPlan, processor: Processor, calibration: Calibration | None) -> str:
    """Return a fingerprint of this conversion: a run may only resume what was made with the same one."""
    pages = calibration.fingerprint if calibration and plan.method == "calibrated" else None
    identity = (__version__, processor, plan.method, plan.recipe, plan.shards, _source_identity(plan), pages)
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _source_identity(plan: ConversionPlan) -> tuple[object, ...]:
    """Return what is cheap to learn about the source; its bytes are compared when they are read again."""
    folder = plan.source.folder
    names = sorted({tensor.source.shard for tensor in plan.tensors})
    stats = [(folder.path / name).stat() for name in names if (folder.path / name).is_file()]
    files = [(stat.st_size, stat.st_mtime_ns) for stat in stats] if not folder.remote_weights else folder.revision
    return folder.repo_id or folder.name, files


def _check_outputs(targets: Sequence[Target]) -> None:
    outputs = [folded(str(target.output.resolve())) for target in targets]  # most Macs' disks treat A and a as the same
    if len(set(outputs)) < len(outputs):
        raise UsageError("two variants would become the same folder; name each recipe once")
    for target in targets:
        output, source = target.output, target.plan.source.folder.path.resolve()
        if output.name in ("", ".."):
            raise UsageError(f"{output} cannot be a folder's name; choose another `output`")
        if os.path.ismount(output):
            raise OutputError(f"{output} is an entire disk; choose an `output` in it, like {output / 'model'}")
        if _is_taken(output):
            raise OutputError(f"{output} exists; choose another `output`, or remove it first")
        if _is_within(output.resolve(), source):
            raise OutputError(f"{output} lies in the source {source}; choose an `output` outside it")


def _is_within(path: Path, folder: Path) -> bool:
    """Say whether *path*, which may not exist, lies in *folder*, however the two are spelled."""
    try:
        return any(parent.samefile(folder) for parent in (path, *path.parents) if parent.exists())
    except OSError:  # a folder that may not be read: compare their names
        return path.is_relative_to(folder)


def _require_room(
    targets: Sequence[Target], partials: Sequence[PartialFolder], calibration: Calibration | None
) -> None:
    there = sum(shard.nbytes for partial in partials for shard in partial.whole.values())
    needed = (find_resources(targets, calibration=calibration).disk_needed or 0) - there
    free = min(_free(target.output) for target in targets)
    if free < needed:
        output = targets[0].output
        raise PlanError(
            f"{output} needs {needed / 1e9:.2f} GB, and {output.resolve().parent} has {free / 1e9:.2f} GB free; "
            "make room first, or choose another `output`"
        )


def _free(output: Path) -> int:
    try:
        parent = next(folder for folder in output.resolve().parents if folder.is_dir())
        return shutil.disk_usage(parent).free
    except OSError as error:
        raise output_error(error, str(output)) from error


def _is_taken(output: Path) -> bool:
    try:
        return output.is_symlink() or (output.exists() and not (output.is_dir() and is_empty(output)))
    except OSError as error:  # a folder that may not be read, or a name that is too long
        raise output_error(error, str(output)) from error
