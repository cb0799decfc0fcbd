"""What these tests share."""

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is the working one, beside a scratch."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
