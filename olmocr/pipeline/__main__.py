"""The command ``olmocr``: arguments -> PipelineConfig -> run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from olmocr import __version__
from olmocr.command import (
    CommandWithBothSpellings,
    ends_with_exit_code,
    printable,
    progress_bar,
    say,
    several_values,
    start_logging,
)
from olmocr.pipeline.config import BACKENDS, PipelineConfig

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class _OcrCommand(CommandWithBothSpellings):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, several_values(args, "--pdfs"))


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"olmocr {__version__}")
        raise typer.Exit


@app.command(cls=_OcrCommand)
@ends_with_exit_code
def ocr(
    workspace: Annotated[str, typer.Argument(help="Folder for results; made if it is not there.")],
    pdfs: Annotated[
        list[str],
        typer.Option(metavar="FILE...", help="PDF, PNG and JPEG files: one or many.", show_default=False),
    ],
    model: Annotated[str, typer.Option(help="A converted model: its folder, or a Hub repository.", show_default=False)],
    backend: Annotated[str, typer.Option(help=f"What answers: {', '.join(BACKENDS)} (in this process).")] = "mlx",
    markdown: Annotated[bool, typer.Option("--markdown", help="Also write a markdown file for each document.")] = False,
    target_longest_image_dim: Annotated[
        int, typer.Option(help="Pixels on the longest side of a page's image.", rich_help_panel="Pages")
    ] = PipelineConfig.target_longest_image_dim,
    max_page_retries: Annotated[
        int, typer.Option(help="Attempts at a page, the first one counted.", rich_help_panel="Pages")
    ] = PipelineConfig.max_page_retries,
    max_page_error_rate: Annotated[
        float,
        typer.Option(
            help="Share of a document's pages that may fall back to the file's own text.",
            rich_help_panel="Pages",
        ),
    ] = PipelineConfig.max_page_error_rate,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens in one answer; a longer one is not accepted.", rich_help_panel="Pages")
    ] = PipelineConfig.max_tokens,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Read documents with an olmOCR model: markdown and Dolma JSONL out of PDF, PNG and JPEG.

    Run it again to go on after an interruption, or to try again what failed.
    """
    config = PipelineConfig(
        workspace=workspace,  # type: ignore[arg-type]  # text becomes a path in the config, which refuses none
        pdfs=tuple(pdfs),
        model=model,
        backend=backend,
        markdown=markdown,
        target_longest_image_dim=target_longest_image_dim,
        max_page_retries=max_page_retries,
        max_page_error_rate=max_page_error_rate,
        max_tokens=max_tokens,
    )
    _run(config, quiet=quiet)


def _run(config: PipelineConfig, *, quiet: bool) -> None:
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from olmocr.pipeline.run import RunSummary, run_pipeline

    console = start_logging(quiet=quiet)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:.0f} pages"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with progress_bar(console, *columns, quiet=quiet) as progress:
        task = progress.add_task("", total=None)
        summary: RunSummary = asyncio.run(
            run_pipeline(
                config,
                on_page=lambda source, number, result: progress.update(
                    task, advance=1, description=printable(f"last: {source.name}, page {number}")
                ),
            )
        )
    if not quiet:
        _say_summary(summary, config)
    raise typer.Exit(summary.exit_code)


def _say_summary(summary: Any, config: PipelineConfig) -> None:
    say(f"documents: {summary.done} done, {len(summary.failures)} failed, {summary.skipped} done before")
    if summary.pages:
        say(
            f"pages:     {summary.pages} ({summary.fallback_pages} from the file's own text) "
            f"in {summary.seconds:.1f} s, {60 * summary.pages / summary.seconds:.1f} pages/min"
        )
    say(f"results:   {config.workspace / 'results'}")
    if config.markdown:
        say(f"markdown:  {config.workspace / 'markdown'}")
    if summary.failures:
        say(f"failed:    {config.workspace / 'failed'} (run it again to try these again)")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
