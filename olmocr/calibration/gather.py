"""Pages and a source's processor -> CalibrationPages: token ids, positions and pixels as the engine sends a page."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olmocr.calibration.drawn_pages import SEED, draw_pages
from olmocr.calibration.pages import LeftOut, find_pages
from olmocr.calibration.texts import (
    PageText,
    TextOf,
    asked_text,
    first_of,
    kept_text,
    layer_text,
    remembered,
    true_text,
)
from olmocr.conversion.calibrated.passes.samples import CalibrationPage
from olmocr.errors import InputError, output_error
from olmocr.files import cache_folder, sha256_of, temporary_folder
from olmocr.inference.prompt import make_inputs, mrope_positions
from olmocr.model_folder import ModelFolder, read_config
from olmocr.page import END_OF_TURN, IMAGE_TOKEN, PAGE_PROMPT, Ask, PageImage, PageRequest
from olmocr.pipeline.repetition import has_looped
from olmocr.rendering.render import open_document, turned
from olmocr.runtime.device import Device, start_mlx
from olmocr.runtime.facts import weight_hashes
from olmocr.validate.known_pages.page_set import KnownPage, longest_side_for

MOST_ANSWER_TOKENS = 24_000
"""The default number of answer tokens: six for each of olmOCR-2's 3584 columns.

The drawn pages have fewer.
"""

MOST_PAGES = 64
"""The most pages used, however short their answers: each takes a pass through the complete source."""

OnPage = Callable[[int, int], None]
"""Called after each page with the number of pages done, and the total."""


@dataclass(frozen=True)
class CalibrationTerms:
    """The options for the pages to calibrate on.

    *pages* are documents and folders, or empty for the drawn ones, which come from *seed*. *longest_side* is in pixels,
    None for what suits the source. *answering* is the folder of a conversion of the same source, ideally to 8 bits; its
    greedy answers are used where none of the source's own are stored. *work* is where fidelity stores the source's
    answers, and *answers* where the conversion's are stored, None for the user's cache. Once all answers together have
    *most_answer_tokens*, no more pages are added. The user's pages are sampled by *seed*, so that a long
    document leaves room for others.
    """

    pages: tuple[Path, ...] = ()
    longest_side: int | None = None
    most_answer_tokens: int = MOST_ANSWER_TOKENS
    answering: Path | None = None
    work: Path | None = None
    answers: Path | None = None
    seed: int = SEED


@dataclass(frozen=True)
class Gathered:
    """Pages to calibrate on. *longest_side* is in pixels; *unused* pages came after there were enough tokens."""

    pages: tuple[CalibrationPage, ...]
    longest_side: int
    left_out: tuple[LeftOut, ...]
    unused: int

    @property
    def answer_tokens(self) -> int:
        """Tokens of all answers, including end tokens."""
        return sum(_answer_tokens(page) for page in self.pages)

    @property
    def sha256(self) -> str:
        """A hash of all pages' hashes."""
        return hashlib.sha256("".join(page.sha256 for page in self.pages).encode()).hexdigest()


def gather(
    source: ModelFolder,
    terms: CalibrationTerms = CalibrationTerms(),
    ask: Ask | None = None,
    on_page: OnPage = lambda done, total: None,
) -> Gathered:
    """Return the pages to calibrate *source* on; its weights are not loaded.

    *ask* replaces the conversion in ``terms.answering``. Pages are answered one at a time, so that answers do not
    depend on which pages happen to be in a batch.

    Raises:
        CheckpointError: *source* or the conversion cannot be loaded.
        InputError: no page can be used.
        MissingDependencyError: MLX or mlx-vlm is not installed.
        OutputError: the disk for temporary files, or that of the user's cache, is full.
        ServerError: *ask* can no longer answer.
    """
    read_config(source)
    device = start_mlx()
    from olmocr.inference.model import load_processor

    processor = load_processor(source)
    side = terms.longest_side or longest_side_for(source.path)
    with temporary_folder() as scratch, contextlib.ExitStack() as stack:
        found, unreadable = find_pages(terms.pages) if terms.pages else (draw_pages(scratch, side, terms.seed), ())
        text_of = first_of(tuple(_ways(source, terms, side, ask, stack, device)))
        order = range(len(found)) if not terms.pages else _shuffled(len(found), terms.seed)
        pages: dict[int, CalibrationPage] = {}
        left_out: dict[int, LeftOut] = {}
        tokens = 0
        for number in order:
            try:
                page = _sample(processor, found[number], side, text_of)
            except InputError as error:
                left_out[number] = LeftOut(found[number].name, str(error))
                continue
            tokens += _answer_tokens(page)
            if pages and tokens > terms.most_answer_tokens:
                break
            pages[number] = page
            on_page(len(pages) + len(left_out), len(found))
            if len(pages) == MOST_PAGES:
                break
    named = (*unreadable, *(left_out[number] for number in sorted(left_out)))
    if not pages:
        raise InputError(f"there are no pages to calibrate on: {_reasons(named)}")
    used = tuple(pages[number] for number in sorted(pages))
    return Gathered(used, side, named, len(found) - len(pages) - len(left_out))


def _shuffled(count: int, seed: int) -> list[int]:
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)  # noqa: S311
    return numbers


def _reasons(left_out: Sequence[LeftOut]) -> str:
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    return f"{left_out[0].why}{more}" if left_out else "nothing was given"


def _ways(
    source: ModelFolder,
    terms: CalibrationTerms,
    side: int,
    ask: Ask | None,
    stack: contextlib.ExitStack,
    device: Device,
) -> Iterator[TextOf]:
    """Yield the ways to get a page's text, the best first."""
    from olmocr.validate.fidelity.earlier import earlier_answers, is_anything_kept
    from olmocr.validate.fidelity.work import default_work

    work = terms.work or default_work()
    hash_of = functools.cache(sha256_of)  # a document of many pages is hashed once
    if is_anything_kept(work) and not source.remote_weights:
        yield kept_text(earlier_answers(work, weight_hashes(source.path), side), lambda page: hash_of(page.path))
    if ask is not None:
        yield asked_text(ask, "a conversion's answers")
    elif terms.answering is not None:
        yield _answering(terms.answering, terms.answers or cache_folder("calibration"), stack, device)
    yield true_text
    yield layer_text


def _answering(folder: Path, answers: Path, stack: contextlib.ExitStack, device: Device) -> TextOf:
    """Return a way that asks the model in *folder*, which is loaded for the first page that needs it.

    Its answers are stored below *answers*.
    """
    opened: list[TextOf] = []

    def text_of(page: KnownPage, image: PageImage) -> PageText | None:
        if not opened:
            from olmocr.inference.engine import Engine

            engine = stack.enter_context(Engine(ModelFolder(folder), device, is_looping=has_looped, most_pages=1))
            opened.append(asked_text(engine.ask, f"answers of {folder.resolve().name}"))
        return opened[0](page, image)

    hashes = json.dumps([weight_hashes(folder), PAGE_PROMPT, str(device)], sort_keys=True)
    return remembered(answers / hashlib.sha256(hashes.encode()).hexdigest()[:24], text_of)


def _sample(processor: Any, known: KnownPage, side: int, text_of: TextOf) -> CalibrationPage:
    """Return a page as the model sees it, with its answer.

    Raises:
        InputError: it cannot be rendered, its text is unknown, or the model cannot take its image.
    """
    with open_document(known.path, known.path.name) as document:
        image = document.render(known.page_number, side)
    text = text_of(known, image)
    if text is None:
        raise InputError(f"the text of {known.name} is unknown; put it into a file {known.path.stem}.md beside it")
    inputs = make_inputs(processor, PageRequest(turned(image, text.rotation)))
    prompt = inputs.input_ids[0]
    token_ids = np.concatenate([prompt, answer_ids(processor.tokenizer, text)])
    image_token = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return CalibrationPage(
        name=known.name,
        sha256=hashlib.sha256(inputs.image_key + token_ids.astype("<i4").tobytes()).hexdigest(),
        kind=known.kind,
        whose_text=text.whose,
        token_ids=token_ids,
        position_ids=mrope_positions(
            token_ids, image_token, inputs.image_grid_thw[0], processor.image_processor.merge_size
        ),
        answer_start=prompt.size,
        pixel_values=_on_disk(inputs.pixel_values),
        grid_thw=inputs.image_grid_thw,
    )


def _on_disk(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return *values* in a nameless file that disappears with them: those of 24 pages take 0.7 GB.

    Raises:
        OutputError: the disk for temporary files is full.
    """
    try:
        with tempfile.TemporaryFile() as file:
            values.tofile(file)
            file.flush()
            return np.memmap(file, values.dtype, "r", shape=values.shape)
    except OSError as error:
        raise output_error(error, "the pixels of a page, in the folder for temporary files,") from error


def answer_ids(tokenizer: Any, text: PageText) -> npt.NDArray[np.int32]:
    """Return the token ids of an answer with its end token, as in training, int32 (tokens,)."""
    tokens = text.tokens or tokenizer(text.text, add_special_tokens=False)["input_ids"]
    return np.array([*tokens, tokenizer.convert_tokens_to_ids(END_OF_TURN)], np.int32)


def _answer_tokens(page: CalibrationPage) -> int:
    return page.token_ids.size - page.answer_start
