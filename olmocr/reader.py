"""Documents -> their text, for programs: a model that stays loaded, and no workspace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from olmocr.errors import UsageError, output_error
from olmocr.files import temporary_folder
from olmocr.inputs.local_file import content_hash, fetched, scratch_folder
from olmocr.inputs.sources import Source, find_sources
from olmocr.page import Ask
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.config import ReadingConfig, TextForm
from olmocr.pipeline.one_document import PageReader, terms_of
from olmocr.pipeline.page_ranges import parse_page_ranges, wanted_numbers
from olmocr.pipeline.shown import Showing, look_into
from olmocr.pipeline.turns import side_by_side
from olmocr.rendering.pool import RenderPool
from olmocr.runtime.threads import EventLoopThread
from olmocr.workspace.document import AttachedFile, Document, PageRecord
from olmocr.workspace.folder import require_local

OnPage = Callable[[PageRecord], None]
"""Called with each page as soon as it is read, as the model wrote it; pages may come in any order."""

_OF_A_DOCUMENT = ("pages", "figures", "tables", "headers", "files_folder", "on_page")


class Reader:
    """Reads documents with a model that is loaded once, when the first page needs it.

    ::

        with Reader("build/demo-8bit") as reader:
            for name in ("a.pdf", "b.png"):
                print(reader.read(name).text)

    ``async with`` and :meth:`read_async` do the same for asynchronous programs. Nothing is kept on the disk: for many
    documents, which should survive an interruption, use :func:`olmocr.run_pipeline`.
    """

    def __init__(self, model: str | Path | None = None, *, ask: Ask | None = None, **settings: Any) -> None:
        """Prepare a reader; nothing is loaded yet.

        Args:
            model: a converted model's folder, or a repository on the Hub; with *server*, the name of its model.
            ask: answers instead of a model; for tests, and for your own models.
            **settings: the other fields of :class:`~olmocr.pipeline.config.ReadingConfig`, such as *server*.

        Raises:
            UsageError: a setting is out of its range, or neither a model nor a server is named.
            TypeError: a setting does not exist.
        """
        if unknown := sorted(settings.keys() - {field.name for field in fields(ReadingConfig)}):
            where = "; give it with each document: reader.read(name, …)" if unknown[0] in _OF_A_DOCUMENT else ""
            raise TypeError(f"a Reader has no setting {unknown[0]!r}{where}")
        name = str(model) if model is not None else None
        if ask is not None and name is None:
            name = getattr(ask, "__name__", type(ask).__name__)
        self._config = ReadingConfig(model=name, **settings)
        self._ask = ask
        self._loop: EventLoopThread | None = None
        self._documents = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._loop = stack.enter_context(EventLoopThread())
            self._loop.run(self.__aenter__())
            self._sync_stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        loop, self._loop = self._loop, None
        with self._sync_stack:
            if loop is not None:
                loop.run(self.__aexit__(*exception))

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._scratch = stack.enter_context(scratch_folder())
            self._pool = await stack.enter_async_context(RenderPool())
            self._answers = await stack.enter_async_context(Answers(self._config, self._scratch, self._ask))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    def read(
        self,
        document: str | Path,
        *,
        pages: str | None = None,
        figures: bool = False,
        tables: str = "html",
        headers: str = "keep",
        files_folder: str | Path | None = None,
        on_page: OnPage = lambda page: None,
    ) -> Document:
        """Return what :meth:`read_async` returns. Ctrl-C, or a notebook's Stop, ends it at once."""
        if self._loop is None:
            raise RuntimeError("use a Reader in a with block: with Reader(model) as reader: reader.read(name)")
        return self._loop.run(
            self.read_async(
                document,
                pages=pages,
                figures=figures,
                tables=tables,
                headers=headers,
                files_folder=files_folder,
                on_page=on_page,
            )
        )

    async def read_async(
        self,
        document: str | Path,
        *,
        pages: str | None = None,
        figures: bool = False,
        tables: str = "html",
        headers: str = "keep",
        files_folder: str | Path | None = None,
        on_page: OnPage = lambda page: None,
    ) -> Document:
        """Read one document: its ``text``, its ``pages``, and its ``failures``, pages without a good answer.

        Args:
            document: a PDF or a picture: a path, a URL, a member of an archive (``a.zip::b.pdf``), or ``-`` for
                standard input.
            pages: only these: ``"1-5,9,12-"``.
            figures: whether to cut out figures; the document's ``files`` has them, as PNG.
            tables: ``"html"``, ``"markdown"``, or ``"csv"``, which puts CSV into ``files`` and keeps HTML in the text.
            headers: ``"keep"`` or ``"drop"`` running heads and page numbers, as far as the file's own text shows them.
            files_folder: where to write figures and tables instead of keeping them in memory; it is made if it is
                missing, and the text's links begin with it as given here. An existing file is never replaced: if a name
                is taken, the next free one is used.
            on_page: called with each page as soon as it is read, as the model wrote it.

        Raises:
            InputError: it cannot be read, or has none of those pages.
            ServerError: the server does not answer.
            UsageError: it stands for several documents, or an argument makes no sense.
            OutputError: *files_folder* cannot be written.
            OlmocrError: the model cannot be loaded.
        """
        form = TextForm(figures=figures, tables=tables, headers=headers)
        folder = _folder_for_files(files_folder, form)
        selection = parse_page_ranges(pages) if pages is not None else None
        source = _only_source(str(document))
        self._documents += 1
        place = self._documents
        async with fetched(source, self._scratch) as path:
            count = await self._pool.page_count(path, source.name)
            numbers = wanted_numbers(selection, count)
            if not numbers:
                raise UsageError(f"{source.name} has no page {pages}: it ends with page {count}")
            sha256 = await asyncio.to_thread(content_hash, path, source.name)
            records = await self._read_pages(
                PageReader(
                    path,
                    source.name,
                    self._pool,
                    self._config.target_longest_image_dim,
                    terms_of(self._config),
                    is_only=count == 1,
                ),
                place,
                numbers,
                on_page,
            )
            read = Document(source, sha256, tuple(sorted(records, key=lambda page: page.page_number)), count)
            return read if form.is_as_read else await self._shown(read, path, form, folder)

    async def _shown(self, document: Document, path: Path, form: TextForm, folder: Path | None) -> Document:
        """Return the *document*, which was read from the file at *path*, in the requested form."""
        with temporary_folder(self._scratch) as temporary:
            looked = await look_into(document, path, self._pool, temporary, form)
            showing = Showing(document, looked, form)
            showing.tell()
            files = {each.name: await asyncio.to_thread(_kept, each, folder) for each in showing.attached()}
        return replace(showing.shown(lambda name: files[name].link), files=tuple(files.values()))

    async def _read_pages(
        self, reader: PageReader, document: int, numbers: tuple[int, ...], on_page: OnPage
    ) -> list[PageRecord]:
        async def read(number: int) -> PageRecord:
            place = (document, number)
            async with self._answers.in_hand.turn(place):
                return await reader.read(number, self._answers.turn(place))

        records = []
        async with contextlib.aclosing(side_by_side(numbers, read, self._answers.most_in_hand)) as pages:
            async for page in pages:
                records.append(page)
                on_page(page)
        return records


def read(
    document: str | Path,
    *,
    model: str | Path | None = None,
    pages: str | None = None,
    figures: bool = False,
    tables: str = "html",
    headers: str = "keep",
    files_folder: str | Path | None = None,
    on_page: OnPage = lambda page: None,
    **settings: Any,
) -> Document:
    """Read one document: ``read("x.pdf", model="build/demo-8bit").text``.

    The model is loaded for this document alone; a :class:`Reader` keeps it. Arguments and errors are those of
    :class:`Reader` and of :meth:`Reader.read_async`.
    """
    with Reader(model, **settings) as reader:
        return reader.read(
            document,
            pages=pages,
            figures=figures,
            tables=tables,
            headers=headers,
            files_folder=files_folder,
            on_page=on_page,
        )


async def read_async(
    document: str | Path,
    *,
    model: str | Path | None = None,
    pages: str | None = None,
    figures: bool = False,
    tables: str = "html",
    headers: str = "keep",
    files_folder: str | Path | None = None,
    on_page: OnPage = lambda page: None,
    **settings: Any,
) -> Document:
    """Do what :func:`read` does, for asynchronous programs."""
    async with Reader(model, **settings) as reader:
        return await reader.read_async(
            document,
            pages=pages,
            figures=figures,
            tables=tables,
            headers=headers,
            files_folder=files_folder,
            on_page=on_page,
        )


def _only_source(name: str) -> Source:
    sources = find_sources([name])
    if len(sources) != 1:
        raise UsageError(f"{name} stands for {len(sources)} documents; read them one by one, or with run_pipeline")
    return sources[0]


def _folder_for_files(name: str | Path | None, form: TextForm) -> Path | None:
    """Return the folder for figures and tables, created if it was missing; None if they stay in memory."""
    if name is None:
        return None
    if not form.makes_files:
        raise UsageError("`files_folder` would stay empty: choose `figures=True` or `tables='csv'`, or leave it out")
    folder = require_local(name, "the folder for figures and tables")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, str(folder)) from error
    return folder


def _kept(file: AttachedFile, folder: Path | None) -> AttachedFile:
    """Return *file* as it stays: in *folder*, or in memory."""
    if folder is None:
        return replace(file, path=None, data=file.content)
    path = _placed(file, folder)
    return replace(file, name=path.name, link=quote(path.as_posix()), path=path, data=b"")


def _placed(file: AttachedFile, folder: Path) -> Path:
    """Write *file* into *folder* under the first name that is free, or that already has the same bytes."""
    for path in _names_for(file, folder):
        try:
            with path.open("xb") as target, _removed_if_cut(path), file.open() as source:
                shutil.copyfileobj(source, target)
        except FileExistsError:
            if path.is_file() and not path.is_symlink() and path.read_bytes() == file.content:
                break
        except OSError as error:
            raise output_error(error, str(path)) from error
        else:
            break
    return path


def _names_for(file: AttachedFile, folder: Path) -> Iterator[Path]:
    name = Path(file.name)
    yield folder / name
    for count in itertools.count(2):
        yield folder / f"{name.stem}-{count}{name.suffix}"


@contextlib.contextmanager
def _removed_if_cut(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
