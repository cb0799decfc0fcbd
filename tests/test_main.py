"""The command ``olmocr``: its first word leads to the command of that name, and help lists them all."""

import os
import subprocess
import sys

import pytest

from olmocr.__main__ import COMMANDS, misspelt, overview
from tests.conftest import ROOT


def olmocr(*arguments):
    return subprocess.run([sys.executable, "-m", "olmocr", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [("help",), ("--help",), ("-h",)])
def test_help_lists_the_commands_in_groups(arguments):
    done = olmocr(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, overview() + "\n", "")


def test_help_ends_well_where_its_reader_has_seen_enough():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "olmocr", "help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_word_help_is_a_complaint():
    done = olmocr()
    assert (done.returncode, done.stdout, done.stderr) == (2, "", overview() + "\n")


def test_every_command_is_in_the_help_in_80_columns():
    lines = overview().splitlines()
    assert all(len(line) <= 80 for line in lines)
    for name, command in COMMANDS.items():
        assert any(line.split()[:1] == [name] and command.does in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("order", [("{}", "--help"), ("help", "{}")])
def test_each_command_tells_its_own_options_under_its_own_name(name, order):
    done = olmocr(*(each.format(name) for each in order))
    assert done.returncode == 0, done.stderr
    assert f"olmocr {name}" in done.stdout


def test_a_command_ends_with_its_own_exit_code(tmp_path):
    assert olmocr("validate", "weights", str(tmp_path)).returncode == 4
    assert olmocr("convert", str(ROOT / "demo/checkpoint"), "--quantize", "nothing").returncode == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("covert demo/checkpoint", "convert"),
        ("srve --model m", "serve"),
        ("raed x.pdf", "read"),
        ("viewer ws", "view"),
        ("validat weights m", "validate"),
        ("convert_to_mlx demo/checkpoint", "convert"),
        ("hlep", "help"),
    ],
)
def test_a_commands_name_with_a_slip_is_told(typed, meant):
    first, *rest = typed.split()
    assert misspelt(first, rest) == (
        f"there is no command {first}; did you mean {meant}? A folder of that name is ./{first}"
    )


@pytest.mark.parametrize(
    "typed", ["ws x.pdf", "x.pdf", "reader --pdfs x.pdf", "reader --pdfs=x.pdf", "./srve", "--server"]
)
def test_what_is_not_a_slip_is_left_alone(typed):
    first, *rest = typed.split()
    assert misspelt(first, rest) is None


def test_a_folder_that_is_called_almost_like_a_command_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "serv").mkdir()
    assert misspelt("serv", []) is None
    assert misspelt("d" * 300, []) is None


def test_a_slip_ends_with_one_sentence():
    done = olmocr("covert", "demo/checkpoint")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no command covert; did you mean convert?")


def test_help_does_not_load_what_commands_need():
    code = "import sys, olmocr.__main__ as m; m.overview(); print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"typer", "rich", "mlx", "numpy"} & set(loaded.split())
