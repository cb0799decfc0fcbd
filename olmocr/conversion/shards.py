"""Plans -> safetensors shards. The source is read once, in order, by several threads; every piece has a fixed place.

All shapes are known before a weight is read. So headers are written first, and each piece is written to its place as
soon as it is done. A complete shard is read back from the disk and compared with what was written.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from olmocr.conversion.calibrated.store import NO_PARTS, CalibratedPart, CalibratedParts
from olmocr.conversion.disk import Buffer, FileReader, FileWriter, reading
from olmocr.conversion.interruption import interruption_held_back
from olmocr.conversion.plan import ConversionPlan, PlannedShard, PlannedTensor, shard_header
from olmocr.conversion.quantizing.planned import stored_rows, typed
from olmocr.conversion.quantizing.rows import StoredRows
from olmocr.conversion.recipe import Method
from olmocr.errors import CheckpointError, OutputError, output_error
from olmocr.reports.conversion import Processor
from olmocr.tensors.floats import Elements, Floats, widened
from olmocr.tensors.header import TensorInfo

# Source bytes that a thread works on at once. More would leave the processor's cache; a GPU call needs more.
CHUNK_BYTES = 4 << 20
GPU_CHUNK_BYTES = 16 << 20

# After so many bytes, what was written is synced to the disk and read back.
_REREAD_BYTES = 256 << 20

_Piece = tuple[int, int, int]
"""Offset, number of bytes, CRC-32."""

Progress = Callable[[int], None]
"""Called, from any thread, with the number of source bytes just finished."""

OpenShard = Callable[[str], AbstractContextManager[Path]]
"""Called with the name of a source shard; yields its path on this disk."""


class SourceChangedError(CheckpointError):
    """The source changed since an earlier run, so what that run left is useless."""


@dataclass(frozen=True)
class WrittenShard:
    """A shard that was read back and found right. *errors* has each tensor's squared error and energy.

    *sources* has, for each source shard, a digest of checksums of what was read from it for this one.
    """

    file_name: str
    nbytes: int
    sha256: str
    errors: Mapping[str, tuple[float, float]]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class SourceShard:
    """What is known about a source shard before it is read: its SHA-256 from the Hub, and from an earlier run.

    If *is_remote* and the two agree, it cannot have changed, and is not fetched again to check.
    """

    listed: str | None = None
    earlier: str | None = None
    is_remote: bool = False


@dataclass(frozen=True)
class VariantToWrite:
    """A plan, the folder for its shards, and the shards that an earlier run left there, by name.

    *parts* is the calibrated matrices of the plan.
    """

    plan: ConversionPlan
    folder: Path
    whole: Mapping[str, WrittenShard]
    parts: CalibratedParts = NO_PARTS


@dataclass(frozen=True)
class Conversion:
    """What the threads share and none of them changes.

    *shard_is_whole* is called with a variant's number and a shard once that was read back. *source_is_read* is called
    with a source shard and its SHA-256 once that was read to its end.
    """

    variants: Sequence[VariantToWrite]
    open_shard: OpenShard
    processor: Processor
    threads: int
    progress: Progress
    shard_is_whole: Callable[[int, WrittenShard], None]
    source_is_read: Callable[[str, str], object]

    @property
    def chunk_bytes(self) -> int:
        """Source bytes of a chunk."""
        return GPU_CHUNK_BYTES if self.processor == "gpu" else CHUNK_BYTES


def write_shards(conversion: Conversion, sources: Mapping[str, SourceShard]) -> dict[str, str]:
    """Write all shards of all variants that are not complete yet; memory use does not grow with the model.

    *sources* has the source shards in order. Returns the SHA-256 of each, computed from the bytes read. Shards left by
    an earlier run are compared with the source as it is now.

    Raises:
        CheckpointError: the source cannot be read, holds a value that is not a number, or is not what the Hub lists.
        SourceChangedError: the source is not what the earlier run read.
        OutputError: a shard cannot be written, or reads back differently.
        PlanError: a value is too large for the dtype that the plan stores it in.
    """
    outputs = [_open_outputs(number, variant) for number, variant in enumerate(conversion.variants)]
    hashes: dict[str, str] = {}
    try:
        for shard, source in sources.items():
            jobs = _jobs(conversion, outputs, shard, source)
            conversion.progress(_nbytes(conversion, shard) - sum(job.source.nbytes for job in jobs))
            if not jobs and source.is_remote and source.earlier is not None and source.earlier == source.listed:
                hashes[shard] = source.earlier
                continue
            with conversion.open_shard(shard) as path:
                hashes[shard] = _convert_shard(conversion, path, jobs)
                _require_same(path, source, hashes[shard], jobs)
            conversion.source_is_read(shard, hashes[shard])
    finally:
        for output in {id(each): each for named in outputs for each in named.values()}.values():
            output.close()
    return hashes


def _require_same(path: Path, source: SourceShard, sha256: str, jobs: Iterable[_Job]) -> None:
    """Refuse a source shard that is not what it should be, or not what an earlier run read."""
    if source.listed is not None and sha256 != source.listed:
        raise CheckpointError(
            f"{path} is not the file that the Hub lists: its SHA-256 is {sha256}, not {source.listed}; "
            "remove it and run this again, which downloads a new copy"
        )
    witnesses = {id(each): each for job in jobs for each in job.witnesses}.values()
    if source.earlier not in (None, sha256) or not all(witness.agrees() for witness in witnesses):
        raise SourceChangedError(f"{path} changed since this conversion was interrupted; starting over")


class _SourceSum:
    """Checksums of what was read of one source shard, by any number of threads, in any order."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, int, int]] = []

    def add(self, tensor: str, first_row: int, checksum: int) -> None:
        """Remember the CRC-32 of some rows."""
        self._parts.append((tensor, first_row, checksum))

    def hexdigest(self) -> str:
        """Return a digest of these bytes, cut into these rows."""
        return hashlib.sha256(repr(sorted(self._parts)).encode()).hexdigest()


class _Witness(_SourceSum):
    """A checksum that should match an earlier run's: the source still holds what a complete shard was made from."""

    def __init__(self, earlier: str | None) -> None:
        super().__init__()
        self._earlier = earlier

    def agrees(self) -> bool:
        """Return whether it matches."""
        return self.hexdigest() == self._earlier


class _Output:
    """A shard that is being written. Its complete front is read back now and then, and all of it at the end."""

    def __init__(self, number: int, shard: PlannedShard, path: Path) -> None:
        header, self.places = shard_header(shard)
        self.number = number
        self.path = path
        self._shard = shard
        self._size = len(header) + sum(tensor.nbytes for tensor in shard.tensors)
        self._writer: FileWriter | None = FileWriter(path, self._size)
        self._lock = threading.Lock()
        self._missing = self._size
        self._apart: list[_Piece] = []  # a heap: pieces written beyond a gap
        self._ready: list[_Piece] = []  # pieces without a gap after what was read back
        self._ready_end = 0
        self._errors: dict[str, list[tuple[int, float, float]]] = {}
        self._sources: dict[str, _SourceSum] = {}
        self._rereading = threading.Lock()
        self._digest, self._read_end, self._buffer = hashlib.sha256(), 0, Buffer()
        self.write(memoryview(header), 0)

    def write(self, piece: memoryview, offset: int) -> None:
        """Write *piece* where it belongs."""
        self._open_writer.write(piece, offset)
        checksum = zlib.crc32(piece)
        with self._lock:
            self._missing -= piece.nbytes
            heapq.heappush(self._apart, (offset, piece.nbytes, checksum))
            while self._apart and self._apart[0][0] == self._ready_end:
                self._ready.append(heapq.heappop(self._apart))
                self._ready_end += self._ready[-1][1]

    def add_source(self, source: TensorInfo, first_row: int, checksum: int) -> None:
        """Remember what some rows are made from; call it before they are written."""
        with self._lock:
            self._sources.setdefault(source.shard, _SourceSum()).add(source.name, first_row, checksum)

    def add_errors(self, tensor: str, first_row: int, stored: StoredRows) -> None:
        """Remember how far some rows of *tensor* are from the source."""
        with self._lock:
            self._errors.setdefault(tensor, []).append((first_row, stored.squared_error, stored.energy))

    def reread(self) -> WrittenShard | None:
        """Read back what is ready, if it is much or the last; return the shard once it is complete.

        Raises:
            OutputError: it reads back differently.
        """
        with self._lock:
            is_complete = self._missing == 0
            is_much = self._ready_end - self._read_end >= _REREAD_BYTES
        if not (is_complete or is_much) or not self._rereading.acquire(blocking=is_complete):
            return None
        try:
            self._reread_ready()
            if self._read_end < self._size or self._writer is None:
                return None
            self.close()
            errors = {name: _summed(parts) for name, parts in self._errors.items()}
            sources = {shard: each.hexdigest() for shard, each in self._sources.items()}
            return WrittenShard(self._shard.file_name, self._size, self._digest.hexdigest(), errors, sources)
        finally:
            self._rereading.release()

    def _reread_ready(self) -> None:
        with self._lock:
            pieces, self._ready = self._ready, []
        if not pieces:
            return
        self._open_writer.flush()
        with reading(self.path, past_cache=False) as reader:
            for offset, nbytes, checksum in pieces:
                piece = reader.read(offset, nbytes, self._buffer).data
                if zlib.crc32(piece) != checksum:
                    raise OutputError(f"{self.path} reads back differently from what was written; check the disk")
                self._digest.update(piece)
                self._read_end = offset + nbytes
        self._open_writer.drop(self._read_end)

    @property
    def _open_writer(self) -> FileWriter:
        if self._writer is None:
            raise AssertionError(f"{self.path} is closed")
        return self._writer

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _summed(parts: Iterable[tuple[int, float, float]]) -> tuple[float, float]:
    """Add up in the order of rows, so that the sum does not depend on which thread was first."""
    ordered = sorted(parts)
    return sum(error for _, error, _ in ordered), sum(energy for _, _, energy in ordered)


def _open_outputs(number: int, variant: VariantToWrite) -> dict[str, _Output]:
    """Create the variant's missing shards, header first; return where each source tensor goes, by name."""
    outputs: dict[str, _Output] = {}
    for shard in variant.plan.shards:
        if shard.file_name in variant.whole:
            continue
        path = variant.folder / shard.file_name
        try:
            output = _Output(number, shard, path)
        except OSError as error:
            raise output_error(error, str(path)) from error
        outputs |= {tensor.source.name: output for tensor in shard.tensors}
    return outputs


@dataclass(frozen=True)
class _Destination:
    """What a source tensor becomes in one variant, and where it goes."""

    output: _Output
    tensor: PlannedTensor
    method: Method
    part: CalibratedPart | None


@dataclass(frozen=True)
class _Job:
    """A source tensor, what it becomes in each variant that still needs it, and who checks it for changes."""

    source: TensorInfo
    targets: tuple[_Destination, ...]
    witnesses: tuple[_Witness, ...] = ()


def _jobs(
    conversion: Conversion, outputs: Sequence[Mapping[str, _Output]], shard: str, source: SourceShard
) -> list[_Job]:
    """Return what to do with one source shard, in the order of its bytes.

    A shard that an earlier run hashed completely needs no witness: its hash is computed again.
    """
    targets: dict[str, list[_Destination]] = {}
    for variant, named in zip(conversion.variants, outputs, strict=True):
        for tensor in variant.plan.tensors:
            if tensor.source.shard == shard and tensor.source.name in named:
                target = _destination(named[tensor.source.name], tensor, variant)
                targets.setdefault(tensor.source.name, []).append(target)
    witnesses = _witnesses(conversion, shard) if source.earlier is None else {}
    tensors = {tensor.source.name: tensor.source for variant in conversion.variants for tensor in variant.plan.tensors}
    needed = sorted((tensors[name] for name in {*targets, *witnesses}), key=lambda each: each.offset)
    return [_Job(each, tuple(targets.get(each.name, ())), tuple(witnesses.get(each.name, ()))) for each in needed]


def _destination(output: _Output, tensor: PlannedTensor, variant: VariantToWrite) -> _Destination:
    return _Destination(output, tensor, variant.plan.method, variant.parts.find(tensor))


def _witnesses(conversion: Conversion, shard: str) -> dict[str, list[_Witness]]:
    """Return the witnesses for each tensor of one source shard, for what an earlier run made of it."""
    witnesses: dict[str, list[_Witness]] = {}
    for variant in conversion.variants:
        for planned in variant.plan.shards:
            if planned.file_name in variant.whole:
                witness = _Witness(variant.whole[planned.file_name].sources.get(shard))
                for tensor in planned.tensors:
                    if tensor.source.shard == shard:
                        witnesses.setdefault(tensor.source.name, []).append(witness)
    return witnesses


def _nbytes(conversion: Conversion, shard: str) -> int:
    """Return how many bytes of a source shard the plans cover."""
    tensors = [tensor.source for variant in conversion.variants for tensor in variant.plan.tensors]
    return sum({each.name: each.nbytes for each in tensors if each.shard == shard}.values())


@dataclass(frozen=True)
class _Chunk:
    """Bytes of a source shard that are read at once: rows of a tensor, or (without a job) bytes only to hash."""

    index: int
    offset: int
    nbytes: int
    job: _Job | None = None
    first_row: int = 0
    rows: int = 0


def _chunks(jobs: Sequence[_Job], size: int, chunk_bytes: int) -> Iterator[_Chunk]:
    """Cut a file into chunks, front to back; bytes that no job needs are included, to be hashed."""
    index = end = 0
    for job in [*jobs, None]:
        begin = job.source.offset if job else size
        while end < begin:
            yield _Chunk(index, end, min(chunk_bytes, begin - end))
            index, end = index + 1, end + min(chunk_bytes, begin - end)
        if job is None:
            return
        all_rows = job.source.shape[0]
        row_bytes = job.source.nbytes // all_rows
        step = max(1, chunk_bytes // row_bytes)
        for first in range(0, all_rows, step):
            rows = min(step, all_rows - first)
            yield _Chunk(index, begin + first * row_bytes, rows * row_bytes, job, first, rows)
            index += 1
        end = begin + job.source.nbytes


# Two reads at once keep a disk busy; the buffers beyond the threads' own hold what is read ahead.
_READERS = 2
_BUFFERS_AHEAD = 4


@dataclass
class _Read:
    """A chunk in memory, and how many threads still use it."""

    chunk: _Chunk
    data: Elements
    buffer: Buffer
    users: int


class _ShardRun:
    """A source shard on its way: read ahead, hashed in order by one thread, converted by any free thread.

    None ends a queue. A signal handler may also put to queues of this kind.
    """

    def __init__(self, conversion: Conversion, path: Path, jobs: Sequence[_Job]) -> None:
        self.digest = hashlib.sha256()
        self._conversion = conversion
        self._chunks = _chunks(jobs, path.stat().st_size, conversion.chunk_bytes)
        self._scales = _row_scales(jobs, path)
        self._free: SimpleQueue[Buffer | None] = SimpleQueue()
        self._to_hash: SimpleQueue[_Read | None] = SimpleQueue()
        self._to_convert: SimpleQueue[_Read | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._reading = _READERS
        self._stopped = threading.Event()
        for _ in range(conversion.threads + _BUFFERS_AHEAD):
            self._free.put(Buffer())

    def read(self, reader: FileReader) -> None:
        """Read each chunk when a buffer is free for it, so that the chunk to be hashed next always gets one."""
        while (buffer := self._free.get()) is not None and not self._stopped.is_set():
            with self._lock:
                chunk = next(self._chunks, None)
            if chunk is None:
                break
            data = reader.read(chunk.offset, chunk.nbytes, buffer)
            queues = [self._to_hash] + [self._to_convert] * (chunk.job is not None)
            read = _Read(chunk, data, buffer, len(queues))
            for queue in queues:
                queue.put(read)
        with self._lock:
            self._reading -= 1
            is_last = self._reading == 0
        if is_last:
            self._end_queues()

    def hash(self) -> None:
        """Hash chunks in their order in the file."""
        waiting: dict[int, _Read] = {}
        due = 0
        while (read := self._to_hash.get()) is not None and not self._stopped.is_set():
            waiting[read.chunk.index] = read
            while first := waiting.pop(due, None):
                self.digest.update(first.data.data)
                self._release(first)
                due += 1

    def convert(self) -> None:
        """Convert chunks in any order."""
        while (read := self._to_convert.get()) is not None and not self._stopped.is_set():
            chunk = read.chunk
            if chunk.job:
                _convert_chunk(self._conversion, chunk, chunk.job, read.data, self._scales.get(chunk.job.source.name))
            self._conversion.progress(chunk.nbytes)
            self._release(read)

    def stop(self) -> None:
        """Make all threads end after their current chunk."""
        self._stopped.set()
        for _ in range(_READERS):
            self._free.put(None)
        self._end_queues()

    def _end_queues(self) -> None:
        self._to_hash.put(None)
        for _ in range(self._conversion.threads):
            self._to_convert.put(None)

    def _release(self, read: _Read) -> None:
        with self._lock:
            read.users -= 1
            is_free = read.users == 0
        if is_free:
            self._free.put(read.buffer)


def _convert_shard(conversion: Conversion, path: Path, jobs: Sequence[_Job]) -> str:
    """Convert what *jobs* need of one source shard; return its SHA-256."""
    run = _ShardRun(conversion, path, jobs)
    size = _READERS + 1 + conversion.threads
    with interruption_held_back(run.stop), reading(path) as reader, ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run.read, reader) for _ in range(_READERS)] + [pool.submit(run.hash)]
        futures += [pool.submit(run.convert) for _ in range(conversion.threads)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            run.stop()
            raise
    return run.digest.hexdigest()


def _row_scales(jobs: Sequence[_Job], path: Path) -> dict[str, Floats]:
    """Read the scales of float8 tensors: a number for each row, or one for all."""
    scales = {}
    for source in (job.source for job in jobs if job.source.scale):
        scale = source.scale
        if scale is None or not (path.parent / scale.shard).is_file():
            raise CheckpointError(f"{source.name} has its scale in another shard; convert without `low_disk`")
        with reading(path.parent / scale.shard) as reader:
            raw = reader.read(scale.offset, scale.nbytes, Buffer())
        scales[source.name] = widened(typed(raw, scale.dtype)).reshape(-1, 1)
    return scales


def _convert_chunk(conversion: Conversion, chunk: _Chunk, job: _Job, raw: Elements, row_scale: Floats | None) -> None:
    rows = typed(raw, job.source.dtype).reshape(chunk.rows, *job.source.shape[1:])
    if row_scale is not None and len(row_scale) > 1:
        row_scale = row_scale[chunk.first_row : chunk.first_row + chunk.rows]
    checksum = zlib.crc32(raw.data, 0 if row_scale is None else zlib.crc32(row_scale.tobytes()))
    for witness in job.witnesses:
        witness.add(job.source.name, chunk.first_row, checksum)
    for target in job.targets:
        output, tensor = target.output, target.tensor
        output.add_source(job.source, chunk.first_row, checksum)
        stored = stored_rows(rows, chunk.first_row, tensor, target.method, conversion.processor, row_scale, target.part)
        try:
            _write_rows(output, tensor, stored, chunk.first_row)
            whole = output.reread()
            if whole:
                conversion.shard_is_whole(output.number, whole)
        except OSError as error:
            raise output_error(error, str(output.path)) from error


def _write_rows(output: _Output, tensor: PlannedTensor, stored: StoredRows, first_row: int) -> None:
    """Write the parts of some rows to their places."""
    output.add_errors(tensor.name, first_row, stored)
    for planned, part in zip(tensor.outputs, stored.parts, strict=True):
        row_bytes = planned.nbytes // planned.shape[0]
        output.write(part.data, output.places[planned.name] + first_row * row_bytes)


def all_threads() -> int:
    """Return how many threads keep every core busy: two more than there are cores, since some wait to write."""
    count: Any = getattr(os, "process_cpu_count", os.cpu_count)()
    return int(count or 1) + 2


# Bytes in memory for each byte of a chunk, and for Python and its libraries; measured (benchmarks/README.md).
_MEMORY_PER_CHUNK_BYTE = {"numba": 4, "gpu": 40, "cpu": 40}
_LIBRARIES = {"numba": 185 << 20, "gpu": 300 << 20, "cpu": 150 << 20}


def peak_memory_of(processor: Processor, threads: int, variants: int) -> int:
    """Return the most memory, in bytes, that a conversion uses: what each thread works on, and the libraries."""
    chunk = GPU_CHUNK_BYTES if processor == "gpu" else CHUNK_BYTES
    at_once = 1 if processor == "gpu" else threads
    working = chunk * (_MEMORY_PER_CHUNK_BYTE[processor] * at_once + 2 * threads + variants)
    return _LIBRARIES[processor] + working
