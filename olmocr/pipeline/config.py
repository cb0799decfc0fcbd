"""The settings of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from olmocr.backends.config import BackendConfig
from olmocr.errors import UsageError
from olmocr.page import PAGE_PROMPT, TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.page_ranges import PageRanges, parse_page_ranges
from olmocr.settings import SETTING, Range, Setting, documented, setting
from olmocr.workspace.folder import require_local
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import workspace_place

TABLES = ("html", "markdown", "csv")
HEADERS = ("keep", "drop")

_PAGES, _OUTPUT, _RUN, _ANSWERS = "Pages", "Output", "Run", "Model or server"


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """How a text should differ from what the model wrote.

    Attributes:
        figures: cut figures out as files that the text links to.
        tables: ``"html"``, ``"markdown"``, or ``"csv"``, which makes files besides the HTML.
        headers: ``"keep"`` or ``"drop"`` running heads and page numbers, as far as the file's own text shows them.

    Raises:
        UsageError: a value is not one of these.
    """

    figures: bool = False
    tables: str = "html"
    headers: str = "keep"

    def __post_init__(self) -> None:
        if not isinstance(self.figures, bool):
            raise UsageError(f"figures must be True or False, not {self.figures!r}")
        for name, value, choices in (("tables", self.tables, TABLES), ("headers", self.headers, HEADERS)):
            if value not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")

    @property
    def makes_files(self) -> bool:
        """Whether there may be files beside the text."""
        return self.figures or self.tables == "csv"

    @property
    def looks_into_pages(self) -> bool:
        """Whether it needs the document itself, not only what was read."""
        return self.figures or self.headers == "drop"

    @property
    def is_as_read(self) -> bool:
        """Whether the text is what the model wrote."""
        return self == TextForm()


@documented
@dataclass(frozen=True, kw_only=True)
class ReadingConfig(BackendConfig):
    """How pages are read, wherever their text goes.

    Raises:
        UsageError: a value is out of its range.
    """

    prompt: str = setting(PAGE_PROMPT, "What the model is asked; olmOCR-2 knows only its own prompt.")
    target_longest_image_dim: int = setting(
        TARGET_LONGEST_IMAGE_DIM,
        "Pixels on the longest side of a page's image.",
        panel=_PAGES,
        range=Range(28, 8192, "pixels"),
    )
    max_page_retries: int = setting(
        8,
        "Attempts at a page, including the first.",
        note="If all fail, the file's own text is used instead.",
        panel=_PAGES,
        range=Range(1),
    )
    page_time_limit: float | None = setting(
        None,
        "Limit for one answer, from when the model begins it.",
        note="An answer that is cut off counts as an attempt; None means no limit.",
        panel=_PAGES,
        metavar="SECONDS",
        range=Range(0, unit="seconds", is_above=True),
    )
    page_timeout: float | None = setting(
        None,
        "Limit for all attempts at a page together.",
        note="None means no limit.",
        panel=_PAGES,
        metavar="SECONDS",
        range=Range(0, unit="seconds", is_above=True),
    )


@documented
@dataclass(frozen=True, kw_only=True)
class PipelineConfig(ReadingConfig):
    """The settings of a run; a combination that makes no sense is refused when the object is created.

    Raises:
        UsageError: a value is out of its range.
    """

    workspace: Path | StorePlace = field(
        metadata={
            SETTING: Setting(
                help="Folder for results, or s3://bucket/ws; created if it does not exist.",
                note="Several machines may share one: docs/bucket.md.",
            )
        }
    )
    pdfs: tuple[str, ...] = setting(
        (),
        "PDFs and pictures: files, folders, patterns, .txt lists, archives, URLs, - for standard input.",
        note="Each document keeps the name that you give for it (docs/inputs.md).",
        metavar="PATH...",
    )
    pages: str | None = setting(
        None, "Only these pages of each document: 1-5,9,12-", note="None means all.", panel=_PAGES, metavar="RANGES"
    )
    max_page_error_rate: float = setting(
        0.004,
        "Share of a document's pages that may fall back to the file's own text.",
        note="With more, the document counts as failed.",
        panel=_PAGES,
        range=Range(0, 1),
    )
    markdown: bool = setting(False, "Also write a markdown file for each document.", panel=_OUTPUT)
    output_dir: Path | None = setting(
        None, "Folder for markdown, instead of one in the workspace.", note="It implies `markdown`.", panel=_OUTPUT
    )
    page_separator: str = setting(
        "",
        "Between two pages in markdown; {page} is the next page's number, \\n a line end.",
        panel=_OUTPUT,
        metavar="TEXT",
    )
    front_matter: bool = setting(False, "Begin markdown with what is known about it.", note="As YAML.", panel=_OUTPUT)
    page_files: bool = setting(False, "Also write a markdown file for each page.", panel=_OUTPUT)
    page_records: bool = setting(
        False, "Also write all that is known about pages as JSON.", note="One file for each document.", panel=_OUTPUT
    )
    figures: bool = setting(
        False,
        "Cut figures out as files that markdown links.",
        note="It implies `markdown`. If the model's box is unusable, the model's name for the figure stays.",
        panel=_OUTPUT,
    )
    tables: str = setting(
        "html",
        "Tables as html, markdown or csv.",
        note="csv also leaves them in the text. csv implies `markdown`, as markdown does without `page_files`.",
        panel=_OUTPUT,
        choices=TABLES,
    )
    headers: str = setting(
        "keep",
        "keep or drop running heads and page numbers.",
        note="Only the file's own text shows which these are.",
        panel=_OUTPUT,
        choices=HEADERS,
    )
    apply_filter: bool = setting(
        False, "Leave out forms, advertising, and other languages.", note="(docs/inputs.md)", panel=_RUN
    )
    languages: tuple[str, ...] = setting(
        ("en",), "Languages that --apply-filter keeps: en,de", note="ISO 639-1 codes.", panel=_RUN, metavar="CODES"
    )
    workers: int = setting(
        4, "Documents at once.", note="With several servers or readers, this many for each.", panel=_RUN, range=Range(1)
    )
    ray: str | None = setting(
        None,
        "Read on a Ray cluster: auto, HOST:PORT, or no address to start Ray.",
        note="In Python, `local` starts one here (docs/scale.md).",
        panel=_ANSWERS,
        metavar="[ADDR]",
    )
    retry_failed: bool = setting(
        False, "Read again what failed or fell back; without --pdfs, in all of the workspace.", panel=_RUN
    )
    force: bool = setting(False, "Read again what was read before.", panel=_RUN)

    def __post_init__(self) -> None:
        if not str(self.workspace):
            raise UsageError("the workspace has no name; name a folder, or . for this one")
        self._set("workspace", workspace_place(self.workspace))
        self._set("output_dir", require_local(self.output_dir, "the folder for markdown") if self.output_dir else None)
        if self.output_dir is not None and isinstance(self.workspace, StorePlace):
            raise UsageError(f"{self.workspace} keeps its markdown in markdown/; leave out `output_dir`")
        self._set("pdfs", _names(self.pdfs))
        self._set("languages", tuple(self.languages))
        if not self.pdfs and not self.retry_failed:
            raise UsageError("no document is named: `pdfs` is empty; name at least one")
        if self.force and self.retry_failed:
            raise UsageError("`force` reads everything again, `retry_failed` only what failed; choose one")
        super().__post_init__()
        self._set("ray", str(self.ray) if self.ray else None)
        if self.ray and self.server:
            raise UsageError("the machines of `ray` read pages with their own model; leave out `server` or `ray`")
        if self.ray and "://" in self.ray:
            raise UsageError(
                f"`ray` must be auto, local, or HOST:PORT, not {self.ray!r}; run this on a machine of the cluster"
            )
        _ = self.selection  # invalid ranges are refused here

    @property
    def selection(self) -> PageRanges | None:
        """The pages to read of each document; None means all."""
        return parse_page_ranges(self.pages) if self.pages is not None else None

    @property
    def documents_at_once(self) -> int:
        """How many documents are read side by side."""
        return self.workers * max(1, len(self.servers))

    @property
    def markdown_folder(self) -> Path | StorePlace | None:
        """Where markdown goes; None if it is not requested."""
        if self.output_dir is not None:
            return self.output_dir
        implied = self.figures or self.tables == "csv" or (bool(self.shown_otherwise) and not self.page_files)
        return self.workspace / "markdown" if self.markdown or implied else None

    @property
    def shown_otherwise(self) -> dict[str, bool | str]:
        """How markdown should differ from what the model wrote: options and their values; empty by default."""
        found: dict[str, bool | str] = {"figures": self.figures, "tables": self.tables, "headers": self.headers}
        return {name: value for name, value in found.items() if value not in (False, "html", "keep")}

    @property
    def form(self) -> TextForm:
        """How markdown should differ from what the model wrote."""
        return TextForm(figures=self.figures, tables=self.tables, headers=self.headers)

    @property
    def writes_beside(self) -> bool:
        """Whether files under the documents' own names are requested."""
        return self.markdown_folder is not None or self.page_files or self.page_records


def _names(pdfs: Iterable[str | Path] | str | Path) -> tuple[str, ...]:
    """Return each document's name as it was given; one alone may come without a list around it."""
    if isinstance(pdfs, str | Path):
        return (str(pdfs),)
    return tuple(str(name) for name in pdfs)
