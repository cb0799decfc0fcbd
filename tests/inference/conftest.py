"""What these tests share."""

import numpy as np
import pytest

from olmocr.inference.model import load_model
from olmocr.model_folder import ModelFolder
from tests.conftest import DEVICE
from tests.inference.random_models import random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A model that writes, whatever it is asked, `---\\n` `primary` `_language` `\\n`, and that again."""
    written = [198, 290, 342, 338, 198]  # a prompt ends with 198, a new line

    def change(tensors):
        def put(name, entries):
            _, shape, _ = tensors[name]
            values = np.zeros(shape, np.float32)
            for place in entries:
                values[place] = 1.0
            tensors[name] = ("F32", shape, values.tobytes())

        put("lm_head.weight", [(token, place) for place, token in enumerate(written[1:])])
        put("model.embed_tokens.weight", [(token, place) for place, token in enumerate(written[:-1])])
        put("model.norm.weight", [...])
        put("model.layers.0.self_attn.o_proj.weight", [])
        put("model.layers.0.mlp.down_proj.weight", [])
        return tensors

    return load_model(ModelFolder(random_model(tmp_path_factory.mktemp("chain") / "model", change=change)), DEVICE)


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory):
    return ModelFolder(random_model(tmp_path_factory.mktemp("random") / "model"))


@pytest.fixture(scope="module")
def loaded(converted):
    return load_model(ModelFolder(converted("4bit")), DEVICE)


@pytest.fixture(scope="module")
def model(converted):
    """The demo's model in float32."""
    return load_model(ModelFolder(converted("8bit")), DEVICE).model
