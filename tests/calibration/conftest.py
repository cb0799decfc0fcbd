"""What all tests of calibration share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _heard(caplog):
    """Let caplog hear all that the package's log tells people."""
    caplog.set_level(logging.INFO, "olmocr")
