"""What these tests share."""

import pytest

from tests.inference.random_models import random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("random") / "model")
