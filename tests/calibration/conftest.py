"""What all tests of calibration share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _heard(monkeypatch, caplog):
    """Let caplog hear the package's log, which a command run in this process may have led elsewhere."""
    monkeypatch.setattr(logging.getLogger("olmocr"), "propagate", True)
    caplog.set_level(logging.INFO, "olmocr")
