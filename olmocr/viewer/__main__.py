"""The command ``python -m olmocr.viewer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmocr.errors import MissingDependencyError
from olmocr.runtime.extras import install_command
from olmocr.terminal.command import (
    CommandWithBothSpellings,
    counting_columns,
    ends_with_exit_code,
    progress_bar,
    say,
    start_logging,
)
from olmocr.terminal.options import Quiet
from olmocr.viewer.catalogue import Choice
from olmocr.viewer.katex import Katex, read_katex
from olmocr.workspace.objects.copying import copied_results
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import workspace_place

if TYPE_CHECKING:
    from olmocr.viewer.site import Site

_CHOICE = "Which documents"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=CommandWithBothSpellings)
@ends_with_exit_code
def view(
    workspace: Annotated[str, typer.Argument(help="The folder or the URL with olmocr's results.", show_default=False)],
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the HTML. Default: WORKSPACE/viewer, or ./NAME-viewer if that is a URL.",
            show_default=False,
        ),
    ] = None,
    katex: Annotated[
        Path | None,
        typer.Option(help="Folder of a KaTeX release for typesetting equations; it is put into each page."),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only failed documents; with --poor, both kinds.", rich_help_panel=_CHOICE)
    ] = False,
    poor: Annotated[
        bool,
        typer.Option(
            "--poor",
            help="Only documents with a page that has no good answer, has low coverage, or was never found upright.",
            rich_help_panel=_CHOICE,
        ),
    ] = False,
    document: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this document: its path, its file's name, or a pattern.", rich_help_panel=_CHOICE
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Only this many of the rest, drawn at random.", rich_help_panel=_CHOICE)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number draws another --sample.", rich_help_panel=_CHOICE)] = 0,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the pages on this machine until Ctrl-C; opening one makes it.")
    ] = False,
    port: Annotated[int, typer.Option(help="The port for --serve; 0 for any free port.")] = 8137,
    quiet: Quiet = False,
) -> None:
    """Write HTML that shows each page's image beside the text that was read. It needs no network and no server.

    Run it again to write what has changed since. With --serve no page is written.
    """
    place = workspace_place(workspace)
    own = Path(f"{place.name or 'workspace'}-viewer") if isinstance(place, StorePlace) else place / "viewer"
    folder = (output_dir or own).expanduser()
    choice = Choice(failed, poor, tuple(document or ()), sample, seed)
    typesetting = read_katex(katex.expanduser()) if katex else None
    _require_extra()
    results = copied_results(place, folder / "copy") if isinstance(place, StorePlace) else place
    if serve:
        _serve(results, folder, choice, typesetting, port, quiet=quiet)
    else:
        _write(results, folder, choice, typesetting, quiet=quiet)


def _require_extra() -> None:
    try:
        import olmocr.viewer.pages  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"the viewer needs {error.name}, which is not installed: {install_command('viewer')}"
        ) from error


def _write(workspace: Path, folder: Path, choice: Choice, katex: Katex | None, *, quiet: bool) -> None:
    from olmocr.viewer.site import write_site

    with progress_bar(start_logging(quiet=quiet), *counting_columns(), quiet=quiet) as progress:
        task = progress.add_task("documents", total=None)
        site = write_site(
            workspace,
            folder,
            katex=katex,
            choice=choice,
            on_index=lambda site: None if quiet else _say_site(site),
            on_document=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if not quiet and (site.unchanged or site.removed):
        removed = f", {site.removed} removed" if site.removed else ""
        say(f"written:   {site.written}, {site.unchanged} as they were{removed}")


def _say_site(site: Site) -> None:
    failed = f" ({site.totals.failed} failed)" if site.totals.failed else ""
    say(f"documents: {site.totals.documents}{failed}")
    say(f"pages:     {site.totals.pages}, {site.totals.to_look_at} to look at")
    say(f"open:      {site.index}")


def _serve(workspace: Path, folder: Path, choice: Choice, katex: Katex | None, port: int, *, quiet: bool) -> None:
    """Serve until Ctrl-C, which is the usual way to end this, not an error."""
    from olmocr.viewer.pages import Look
    from olmocr.viewer.serve import ServedSite, address, make_server, set_site
    from olmocr.viewer.site import opened_catalogue, title_of

    server = make_server(port)  # first, so that a busy port costs no time
    try:
        with opened_catalogue(workspace, folder, choice) as catalogue:
            set_site(server, ServedSite(catalogue, Look(title_of(workspace), str(choice), katex, is_served=True)))
            totals = catalogue.totals()
            if not quiet:
                say(f"documents: {totals.documents}{f' ({totals.failed} failed)' if totals.failed else ''}")
            say(f"serving:   {address(server)} (Ctrl-C ends it)")
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    app()
