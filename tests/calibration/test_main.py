"""``python -m olmocr.calibration`` draws the pages into a folder, for a person to look at."""

import pytest
from typer.testing import CliRunner

from olmocr.calibration.__main__ import app
from olmocr.errors import ExitCode


def test_the_pages_are_drawn_with_their_texts_and_listed(tmp_path):
    done = CliRunner().invoke(app, [str(tmp_path / "new"), "--longest-side", "644"])
    assert done.exit_code == ExitCode.OK
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert len(names) == 48
    assert [name.rpartition(".")[2] for name in names[:2]] == ["md", "pdf"]
    assert all(name in done.stdout for name in names if name.endswith(".pdf"))
    assert done.stdout.splitlines()[-1].startswith("24 pages for 644 pixels")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [str(tmp_path / place)])
    assert done.exit_code == ExitCode.OUTPUT
