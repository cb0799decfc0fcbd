"""An option that several commands share is spelled and explained alike in each."""

import typer
from typer.testing import CliRunner

from olmocr.terminal import options

app = typer.Typer()


@app.command()
def command(
    model: options.ModelFolder,
    source: options.MadeFrom = None,
    quiet: options.Quiet = False,
    json: options.JsonObject = False,
    license_id: options.License = None,
    max_tokens: options.MaxTokens = 100,
) -> None:
    typer.echo(f"{model} {source} {quiet} {json} {license_id} {max_tokens}")


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_each_option_reaches_its_command():
    done = run("folder", "--source", "there", "--quiet", "--json", "--license", "apache-2.0", "--max-tokens", "7")
    assert done.output == "folder there True True apache-2.0 7\n"


def test_what_is_not_given_keeps_the_commands_default():
    assert run("folder").output == "folder None False False None 100\n"


def test_fewer_than_one_token_is_refused():
    assert run("folder", "--max-tokens", "0").exit_code == 2
