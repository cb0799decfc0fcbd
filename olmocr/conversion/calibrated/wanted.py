"""Plans -> which matrices are calibrated, what each is rounded to, and what that takes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.conversion.calibrated.store import PartKey, key_of
from olmocr.conversion.calibrated.terms import FEW_BITS
from olmocr.conversion.plan import ConversionPlan, PlannedTensor
from olmocr.conversion.source.names import EMBEDDINGS, LANGUAGE, LM_HEAD, head_tensor

# Language and vision blocks. The head is calibrated too; the merger and embeddings that are not the head are not.
_BLOCK = re.compile(r"(?:language_model\.model\.layers|vision_tower\.blocks)\.\d+(?=\.)")

_ONE_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


@dataclass(frozen=True)
class WantedMatrix:
    """A matrix to calibrate: the *block* it is in, and what the plans of one command need of it, each kind once."""

    block: str
    asked: Mapping[PartKey, PlannedTensor]

    @property
    def module(self) -> str:
        """The name of its module in MLX."""
        return next(iter(self.asked)).tensor.removesuffix(".weight")

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows and columns in the source."""
        rows, columns = next(iter(self.asked.values())).source.shape
        return rows, columns

    @property
    def input_name(self) -> str:
        """What identifies its input; matrices of a block may share one."""
        parent, _, last = self.module.rpartition(".")
        return f"{parent}.{_ONE_INPUT.get(last, last)}"


def block_of(tensor: str, head: str = LM_HEAD) -> str | None:
    """Return the block that *tensor* (MLX's name) is calibrated with; None if it is not calibrated.

    *head* is the name of the matrix that makes logits.
    """
    found = _BLOCK.match(tensor)
    return head.removesuffix(".weight") if tensor == head else found[0] if found else None


def rounding_before(plan: ConversionPlan, propagated_bits: int) -> str:
    """Return what identifies how *plan* rounds its language model.

    It is empty where no block makes up for the rounding before it: some matrix of a block has more than
    *propagated_bits*, or none is calibrated.
    """
    language = [each for each in plan.tensors if each.name.startswith(LANGUAGE)]
    bits = [key.bits for each in language if (key := key_of(each)) and _BLOCK.match(key.tensor)]
    is_wanted = bool(bits) and max(bits) <= propagated_bits
    return hashlib.sha256(repr([(each.name, each.params) for each in language]).encode()).hexdigest() * is_wanted


def wanted_matrices(plans: Iterable[ConversionPlan], propagated_bits: int = FEW_BITS) -> tuple[WantedMatrix, ...]:
    """Return the matrices of the plans whose method is ``calibrated``, in the order of the first plan.

    *propagated_bits* are those of `Calibration`.
    """
    found: dict[str, WantedMatrix] = {}
    for plan in plans:
        head, before = head_tensor(plan.source.config), rounding_before(plan, propagated_bits)
        for tensor in plan.tensors if plan.method == "calibrated" else ():
            block = block_of(tensor.name, head)
            key = key_of(tensor, before if tensor.name.startswith(LANGUAGE) else "")
            if block and key:
                earlier = found[tensor.name].asked if tensor.name in found else {}
                found[tensor.name] = WantedMatrix(block, {**earlier, key: tensor})
    return tuple(found.values())


@dataclass(frozen=True)
class CalibrationCost:
    """What a calibration takes: multiply-adds in float32 and in float64, and bytes of memory and of results.

    *propagates* means that some matrices depend on the rounding before them.
    """

    multiply_adds: float
    double_multiply_adds: float
    peak_memory: int
    part_bytes: int
    propagates: bool = False

    def seconds(self, rate: float, double_rate: float) -> float:
        """Return how many seconds it takes at *rate* and *double_rate* multiply-adds a second."""
        return (self.multiply_adds / rate + self.double_multiply_adds / double_rate) / _EFFICIENCY


# Share of the rate of one large product: attention, gates and pages of all sizes lower it (benchmarks/calibration.py).
_EFFICIENCY = 0.25

# What the search takes per weight, in multiply-adds that a product of matrices does in that time
# (benchmarks/calibration.py measures it).
_SEARCH = 3_000

# Products of a matrix with H: feedback, the refit, descent, the losses of both roundings.
_PRODUCTS = 6

# Products of a token with a matrix: forward, again for its block's states, by its input, and by its output.
_THERE_AND_BACK = 4

# The same where errors are propagated: both models up to each of a block's four inputs, the states after it, and two
# products for what a matrix makes up for.
_PROPAGATED = 5

# Python, MLX and numpy, and the memory of threads that round matrices.
_LIBRARIES = 400 << 20
_A_THREAD = 80 << 20
_WIDEST_IN_FLOAT64 = 8192
_WEIGHTS_AT_ONCE = 1 << 25


def work_of(
    matrices: Sequence[WantedMatrix],
    pages: Sequence[CalibrationPage],
    down_slices: int = 1,
    *,
    by_gradients: bool = False,
) -> CalibrationCost:
    """Return what calibrating *matrices* on *pages* takes.

    *down_slices* is the number of slices into which the columns of the widest input are cut. With *by_gradients*, a
    forward and backward pass comes first.
    """
    tokens = sum(len(page.token_ids) for page in pages)
    patches = sum(len(page.pixel_values) for page in pages)
    widest = max((each.shape[1] for each in matrices), default=0)
    single = double = 0.0
    for name, each in {each.input_name: each for each in matrices}.items():
        columns = each.shape[1]
        slices = down_slices if columns == widest else 1
        before = {key.before for other in matrices if other.input_name == name for key in other.asked}
        single += len(before) * _positions(each, tokens, patches) * columns**2 / slices
        double += (len(before) + len(before - {""})) * columns**3 / slices**2
    for each in matrices:
        weights = each.shape[0] * each.shape[1]
        recipes = len({key.before for key in each.asked} - {""})
        single += _PROPAGATED * recipes * _positions(each, tokens, patches) * weights
        there_and_back = _THERE_AND_BACK if by_gradients and not each.block.startswith("vision") else 0
        single += (1 + there_and_back) * _positions(each, tokens, patches) * weights
        single += len(each.asked) * weights * (_SEARCH + _PRODUCTS * each.shape[1])
    parts = sum(_part_bytes(tensor, key) for each in matrices for key, tensor in each.asked.items())
    propagates = any(key.before for each in matrices for key in each.asked)
    memory = _peak_memory(matrices, pages, down_slices, by_gradients=by_gradients)
    return CalibrationCost(single, double, memory, parts, propagates)


def _positions(matrix: WantedMatrix, tokens: int, patches: int) -> int:
    return patches if matrix.block.startswith("vision") else tokens


def _peak_memory(
    matrices: Sequence[WantedMatrix], pages: Sequence[CalibrationPage], down_slices: int, *, by_gradients: bool
) -> int:
    blocks: dict[str, list[WantedMatrix]] = {}
    for each in matrices:
        blocks.setdefault(each.block, []).append(each)
    longest = max((len(page.token_ids) for page in pages), default=0)
    peaks = [_block_memory(block, longest, down_slices) for block in blocks.values()]
    if by_gradients:
        tokens = sum(len(page.token_ids) for page in pages)
        peaks += [_back_memory(block, longest, tokens) for name, block in blocks.items() if name.startswith(LANGUAGE)]
    return _LIBRARIES + _A_THREAD * (os.cpu_count() or 1) + max(peaks, default=0)


def _block_memory(block: Sequence[WantedMatrix], longest: int, down_slices: int) -> int:
    """Return the bytes that a block takes while pages pass through it, or while it is rounded, whichever is more.

    It always includes the sums H of its inputs: float64 up to 8192 columns and float32 beyond, and a second time in
    float32 for the held-out pages. While pages pass, it includes the weights in float32 and a page's widest states
    about 3.5 times. Rounding needs the factor of one slice, in float64 while it is made, some rows, and all codes of a
    matrix.
    """
    weights = sum(rows * columns for rows, columns in (each.shape for each in block))
    largest = max(rows * columns for rows, columns in (each.shape for each in block))
    *narrower, widest = sorted({each.input_name: each.shape[1] for each in block}.values())
    sliced = widest // down_slices
    is_wide = widest > _WIDEST_IN_FLOAT64
    sums = 12 * sum(columns**2 for columns in narrower) + (8 if is_wide else 12) * widest**2 // down_slices
    factor = max((12 if is_wide else 16) * sliced**2, 16 * max(narrower, default=0) ** 2)
    page = int(3.5 * 4 * longest * widest)
    # A head that is not used in computing is read some rows at a time.
    computed = 0 if f"{block[0].block}.weight" in (LM_HEAD, EMBEDDINGS) else 4 * weights
    if any(key.before for each in block for key in each.asked):
        # The rounded weights beside the source's, another page, and what the largest matrix makes up for.
        computed, page, sums = 2 * computed, 2 * page, sums + (12 * largest if computed else 0)
    return sums + max(computed + page, factor + 12 * min(_WEIGHTS_AT_ONCE, largest) + 2 * largest)


def _back_memory(block: Sequence[WantedMatrix], longest: int, tokens: int) -> int:
    """Return the bytes of a backward pass through a block: its weights, all pages' gradients, one page's states.

    All are float32. It includes a page's inputs and outputs of matrices, and about twice as much for gradients.
    """
    weights = sum(rows * columns for rows, columns in (each.shape for each in block))
    outputs = sum(each.shape[0] for each in block)
    inputs = {each.input_name: each.shape[1] for each in block}
    return 4 * (weights + tokens * min(inputs.values()) + 3 * longest * (outputs + sum(inputs.values())))


def _part_bytes(tensor: PlannedTensor, key: PartKey) -> int:
    weights = tensor.parameters
    return weights * key.bits // 8 + 2 * (4 if key.dtype == "F32" else 2) * weights // key.group_size
