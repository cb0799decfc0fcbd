"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from olmocr.backends.wire import Api
from olmocr.errors import UsageError
from olmocr.page import PAGE_PROMPT, TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.ocr_page import Guided
from olmocr.pipeline.page_ranges import PageRanges, parse_page_ranges

BACKENDS = ("mlx", "mlx-vlm", "vllm")
APIS: tuple[Api, ...] = ("chat", "responses")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a run is asked to do; a combination that makes no sense is refused when it is made.

    Attributes:
        workspace: the folder that results go to; made if it is not there.
        pdfs: files, folders, patterns, lists, archives, URLs, ``-`` (docs/inputs.md). Each document keeps the name it
            is given by.
        model: a converted model's folder, or a Hub repository that holds one; with a server, the name of its model.
        backend: what answers. ``mlx``: the model, in this process; ``mlx-vlm`` and ``vllm``: a server of theirs that is
            started on this machine, and stopped afterwards.
        server: the address of a server that runs already, instead of a backend: ``http://localhost:1234/v1``.
        api_key: what that server wants to be shown.
        port: of the server that is started; 8000 for mlx-vlm and 30024 for vllm unless it is given.
        api: how servers are spoken to, ``chat`` (chat completions) or ``responses``.
        server_options: further options for the server that is started, as its own command line takes them.
        workers: documents at once.
        max_concurrent_pages: pages that are asked for at once; None is 1 for mlx-vlm's server and 8 for all else. A
            model in this process also sees to it that they fit into its memory.
        markdown: also write one markdown file for each document.
        output_dir: the folder for markdown, instead of ``markdown`` in the workspace; asks for markdown, too.
        page_separator: what stands between two pages in markdown, ``{page}`` being the next one's number.
        front_matter: put what is known of a document before its markdown, as YAML.
        page_files: also write a markdown file for each page.
        page_records: also write a JSON file for each document, with all that is known of its pages.
        prompt: what the model is asked; olmOCR-2 knows none but its own.
        pages: the pages to read of each document, like ``1-5,9,12-``; None is all.
        target_longest_image_dim: pixels on the longest side of a page's image.
        max_page_retries: attempts at a page, the first one counted, before its text layer is taken instead.
        max_page_error_rate: share of a document's pages, from 0 to 1, that may fall back to their text
            layer; with more, the document counts as failed.
        max_tokens: tokens in one answer; an answer that is cut there is not accepted.
        page_timeout: seconds for all attempts at a page together; None is no limit.
        page_time_limit: seconds for one answer, from when the model begins with the page; one that is ended then counts
            as an attempt. None is no limit.
        kv_budget: bytes for keys and values of all pages that a model in this process reads at once; None is what the
            device has.
        drafts: whether a model in this process is given drafts of its answers, such as the file's own text; None leaves
            that to the device.
        guided_decoding: at which attempts the front matter's form is forced, by those that can: ``never``, ``retries``
            or ``always``.
        apply_filter: leave out forms, advertising, and what is in none of *languages* (docs/inputs.md).
        languages: ISO 639-1 codes of those that *apply_filter* lets through.
        force: read pages anew that the workspace has.
        retry_failed: read what failed before, pages that fell back included; without *pdfs* of all the workspace.

    Raises:
        UsageError: a value is out of its range.
    """

    workspace: Path
    pdfs: tuple[str, ...] = ()
    model: str | None = None
    backend: str = "mlx"
    server: str | None = None
    api_key: str | None = field(default=None, repr=False)
    port: int | None = None
    api: Api = "chat"
    server_options: tuple[str, ...] = ()
    workers: int = 4
    max_concurrent_pages: int | None = None
    markdown: bool = False
    output_dir: Path | None = None
    page_separator: str = ""
    front_matter: bool = False
    page_files: bool = False
    page_records: bool = False
    prompt: str = PAGE_PROMPT
    pages: str | None = None
    target_longest_image_dim: int = TARGET_LONGEST_IMAGE_DIM
    max_page_retries: int = 8
    max_page_error_rate: float = 0.004
    max_tokens: int = 8000
    page_timeout: float | None = None
    page_time_limit: float | None = None
    kv_budget: int | None = None
    drafts: bool | None = None
    guided_decoding: Guided = "retries"
    apply_filter: bool = False
    languages: tuple[str, ...] = ("en",)
    force: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not str(self.workspace):
            raise UsageError("the workspace has no name; name a folder, or . for this one")
        self._set("workspace", Path(self.workspace).expanduser())
        self._set("output_dir", Path(self.output_dir).expanduser() if self.output_dir else None)
        self._set("pdfs", _names(self.pdfs))
        self._set("server_options", tuple(map(str, self.server_options)))
        self._set("languages", tuple(self.languages))
        self._set("model", str(self.model) if self.model else None)
        self._require_one_of("backend", BACKENDS)
        self._require_one_of("api", APIS)
        self._require_one_of("guided_decoding", get_args(Guided))
        if not self.pdfs and not self.retry_failed:
            raise UsageError("no document is named: pdfs (--pdfs) is empty; name some")
        if self.model is None and self.server is None:
            raise UsageError("no model is named; name one with --model, or a server that has one with --server")
        if self.force and self.retry_failed:
            raise UsageError("force reads everything anew and retry_failed only what failed; choose one")
        if self.server_options and (self.server or self.backend == "mlx"):
            raise UsageError("options for a server go to one that is started here: --backend mlx-vlm or vllm")
        if (self.kv_budget is not None or self.drafts is not None) and (self.server or self.backend != "mlx"):
            name = "a KV budget" if self.kv_budget is not None else "a choice of drafts"
            raise UsageError(f"{name} is for a model in this process; leave it out, or choose --backend mlx")
        self._require_ranges()
        _ = self.selection  # refused here if it is none

    def _require_ranges(self) -> None:
        self._require(28 <= self.target_longest_image_dim <= 8192, "target_longest_image_dim", "28 to 8192 pixels")
        self._require(self.max_page_retries >= 1, "max_page_retries", "1 or more")
        self._require(0 <= self.max_page_error_rate <= 1, "max_page_error_rate", "0 to 1")
        self._require(self.max_tokens >= 1, "max_tokens", "1 or more")
        self._require(self.workers >= 1, "workers", "1 or more")
        self._require((self.max_concurrent_pages or 1) >= 1, "max_concurrent_pages", "1 or more")
        self._require(self.port is None or 1 <= self.port <= 65535, "port", "1 to 65535")
        self._require(self.kv_budget is None or self.kv_budget > 0, "kv_budget", "1 byte or more")
        is_limit = self.page_time_limit is None or self.page_time_limit > 0
        self._require(is_limit, "page_time_limit", "more than 0 seconds")
        self._require(self.page_timeout is None or self.page_timeout > 0, "page_timeout", "more than 0 seconds")

    @property
    def selection(self) -> PageRanges | None:
        """The pages to read of each document; None is all."""
        return parse_page_ranges(self.pages) if self.pages is not None else None

    @property
    def markdown_folder(self) -> Path | None:
        """Where markdown goes; None if it is not asked for."""
        if self.output_dir is not None:
            return self.output_dir
        return self.workspace / "markdown" if self.markdown else None

    @property
    def writes_beside(self) -> bool:
        """Whether files under the documents' own names are asked for."""
        return self.markdown_folder is not None or self.page_files or self.page_records

    @property
    def pages_at_once(self) -> int:
        """How many pages are asked for at once."""
        is_single = self.server is None and self.backend == "mlx-vlm"
        return self.max_concurrent_pages or (1 if is_single else 8)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _require_one_of(self, name: str, choices: tuple[str, ...]) -> None:
        given = getattr(self, name)
        if given not in choices:
            raise UsageError(f"there is no {name} {given!r}; choose one of {', '.join(choices)}")

    def _require(self, holds: bool, name: str, range_: str) -> None:
        if not holds:
            given = getattr(self, name)
            raise UsageError(f"{name} must be {range_}, not {given!r}")


def _names(pdfs: Iterable[str | Path] | str | Path) -> tuple[str, ...]:
    """Return each document's name as it was given; one alone may come without a list around it."""
    if isinstance(pdfs, str | Path):
        return (str(pdfs),)
    return tuple(str(name) for name in pdfs)
