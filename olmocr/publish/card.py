"""Reports of a model and of its siblings -> its card, in which every number comes from a report."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from olmocr.conversion.macs import smallest_mac
from olmocr.model_folder import BF16_REPOSITORY
from olmocr.page import MAX_TOTAL_TOKENS, PAGE_PROMPT, TARGET_LONGEST_IMAGE_DIM
from olmocr.publish.eval_results import why_no_score
from olmocr.publish.folder_reports import Reports
from olmocr.publish.front_matter import SourceFacts, front_matter
from olmocr.publish.gates import Gate
from olmocr.publish.markup import code_block, escaped
from olmocr.publish.rows import CardRow, Measured, row_of
from olmocr.publish.scan import CHART_FILE
from olmocr.reports.bench import percent
from olmocr.reports.conversion import CalibrationReport, TensorReport
from olmocr.reports.parts import Interval
from olmocr.runtime.extras import DISTRIBUTION
from olmocr.validate.fidelity.plots import Point, size_against_fidelity

_METHODS = {
    "calibrated": "codes and scales are chosen so that the model's output on pages changes least",
    "fit": "scales and biases of each group are searched for the least error",
    "stock": "the numbers are those of mx.quantize, bit for bit",
}

_STOCK = '''\
import mlx_vlm
import pypdfium2
from mlx_vlm.prompt_utils import apply_chat_template

PROMPT = """{prompt}"""

model, processor = mlx_vlm.load({model!r})
asked = apply_chat_template(processor, model.config, PROMPT, num_images=1)
sheet = pypdfium2.PdfDocument("document.pdf")[0]
page = sheet.render(scale={side} / max(sheet.get_size())).to_pil().convert("RGB")
answer = mlx_vlm.generate(model, processor, asked, image=[page], max_tokens=8000, temperature=0.0)
print(answer.text)'''

_CITATION = """\
@misc{poznanski2025olmocr2unittest,
  title = {olmOCR 2: Unit Test Rewards for Document OCR},
  author = {Jake Poznanski and Luca Soldaini and Kyle Lo},
  year = {2025},
  eprint = {2510.19817},
  archivePrefix = {arXiv},
  primaryClass = {cs.CV}
}"""


@dataclass(frozen=True)
class Variant:
    """A model under its name in a card: *title* is its repository, or its folder's own name."""

    title: str
    reports: Reports

    @property
    def row(self) -> CardRow:
        """Its row in a card's tables."""
        return row_of(self.title, self.reports)


def make_card(
    variant: Variant,
    facts: SourceFacts,
    siblings: Sequence[CardRow] = (),
    failing: Sequence[Gate] = (),
    repository: str | None = None,
) -> str:
    """Return the card of *variant* as markdown, with a table of it and its *siblings*.

    *repository* is the address of this package, if it is known.

    The card says what was not measured. Text from reports is escaped, so it never becomes markup.
    """
    conversion = variant.reports.conversion
    rows = [variant.row, *siblings]
    text = _template().render(
        front_matter=Markup(front_matter(conversion, facts)),  # noqa: S704
        failing=list(failing),
        title=variant.title,
        facts=facts,
        source_link=_source_link(conversion.source.name, facts),
        reports=variant.reports,
        conversion=conversion,
        smoke=variant.reports.smoke,
        fidelity=variant.reports.fidelity,
        bench=variant.reports.bench,
        why_no_score=why_no_score(variant.reports.bench) if variant.reports.bench else ("it was not measured",),
        rows=rows,
        components=_components(rows),
        chart=CHART_FILE if make_chart(rows) else None,
        kinds=_kinds(variant.reports),
        quantized=_quantized(conversion.tensors),
        tokens=MAX_TOTAL_TOKENS,
        longest_side=TARGET_LONGEST_IMAGE_DIM,
        prompt=PAGE_PROMPT,
        repository=repository,
        install_command=shlex.join(["pip", "install", f"{DISTRIBUTION}[mlx] @ git+{repository}"]),
        pipeline_command=f"olmocr document.pdf --model {shlex.quote(variant.title)}",
        stock_install="pip install 'mlx-vlm>=0.7.10,<0.8' pypdfium2",
        source_is_folder=conversion.source.name != facts.base_model,
        stock_code=_STOCK.format(prompt=PAGE_PROMPT, model=variant.title, side=TARGET_LONGEST_IMAGE_DIM),
        method=_METHODS.get(conversion.method, "not known to this version"),
        calibrated_on=_calibrated_on(conversion.calibration) if conversion.calibration else None,
        citation=_CITATION if facts.base_model == BF16_REPOSITORY else None,
    )
    return text.rstrip("\n") + "\n"


def _calibrated_on(calibration: CalibrationReport) -> str:
    """Return how it was calibrated and on what, in two sentences."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(page.kind for page in calibration.pages).items())
    texts = " and ".join(sorted({page.whose_text for page in calibration.pages}))
    whose = "drawn for it" if calibration.drawn else "of the publisher's own"
    inputs = "the inputs that the rounded blocks before it give" if calibration.propagated else "its inputs"
    return (
        f"Each matrix was rounded for {inputs} on {len(calibration.pages)} pages {whose} ({kinds}), with the "
        f"OCR prompt, {calibration.tokens:,} tokens in all, {calibration.answer_tokens:,} of them answers ({texts}). "
        "Pages of other kinds may be read slightly differently from the source; measure yours with "
        "olmocr validate fidelity."
    )


def make_chart(rows: Sequence[CardRow]) -> str | None:
    """Return the chart for a card with *rows*; None unless the fidelity of at least two was measured."""
    points = [_point(row.title, row.measured) for row in rows if row.measured]
    return size_against_fidelity(sorted(points, key=lambda point: -point.nbytes)) if len(points) >= 2 else None


def _point(title: str, measured: Measured) -> Point:
    interval = measured.mean_kl_interval
    return Point(title.rpartition("/")[2], measured.weight_bytes, measured.mean_kl, interval.low, interval.high)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": _size, "mac": _mac, "small": _small, "percent": _percent, "code_block": code_block}
    environment.filters |= {"tenths": percent, "within": _within}
    return environment.from_string(resources.files(__package__).joinpath("template.md.j2").read_text(encoding="utf-8"))


def _shown(value: Any) -> Markup:
    """Return what the template may print: prepared markdown, and all other text escaped."""
    return value if isinstance(value, Markup) else escaped(str(value))


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _mac(nbytes: int) -> str:
    smallest = smallest_mac(nbytes)
    return "none" if smallest is None else f"{smallest} GB"


def _small(number: float) -> str:
    return f"{number:.3g}"


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _within(interval: Interval | None) -> str:
    return "none" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"


def _source_link(name: str, facts: SourceFacts) -> Markup:
    """Return a link if the source is a repository, whose checked name cannot contain markup."""
    if facts.base_model is None:
        return escaped(name)
    return Markup(f"[{escaped(facts.base_model)}](https://huggingface.co/{facts.base_model})")  # noqa: S704


def _components(rows: Sequence[CardRow]) -> list[str]:
    """Return the components' names in the order in which they are first named."""
    return list(dict.fromkeys(part.component for row in rows for part in row.components))


@dataclass(frozen=True)
class _Kind:
    """Pages of one kind in the smoke test; *error_rate* is their mean if the true text is known."""

    kind: str
    pages: int
    passed: int
    error_rate: float | None


def _kinds(reports: Reports) -> list[_Kind]:
    pages = reports.smoke.pages if reports.smoke else ()
    kinds = []
    for kind in dict.fromkeys(page.kind for page in pages):
        of_kind = [page for page in pages if page.kind == kind]
        rates = [page.character_error_rate for page in of_kind if page.character_error_rate is not None]
        mean = sum(rates) / len(rates) if rates else None
        kinds.append(_Kind(kind, len(of_kind), sum(page.passed for page in of_kind), mean))
    return kinds


@dataclass(frozen=True)
class _Quantized:
    """The matrices of one part that have the same bits; *error* is the mean of their relative errors."""

    component: str
    bits: int
    group_size: int
    mode: str
    tensors: int
    error: float


def _quantized(tensors: Sequence[TensorReport]) -> list[_Quantized]:
    groups: dict[tuple[str, int, int, str], list[float]] = {}
    for tensor in tensors:
        if tensor.bits is not None and tensor.group_size is not None and tensor.mode is not None:
            key = (_part(tensor.name), tensor.bits, tensor.group_size, tensor.mode)
            groups.setdefault(key, []).append(tensor.relative_error)
    return [_Quantized(*key, len(errors), sum(errors) / len(errors)) for key, errors in sorted(groups.items())]


def _part(name: str) -> str:
    """Return a matrix's name without its layer: ``language_model.model.layers.*.mlp.up_proj``."""
    path = name.removesuffix(".weight").split(".")
    return ".".join("*" if part.isdigit() else part for part in path)
