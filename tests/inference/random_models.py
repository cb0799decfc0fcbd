"""Makes very small models with random weights that know the demo checkpoint's tokens."""

import json

from tests.checkpoints import TINY, tiny_checkpoint, tiny_tensors
from tests.conftest import CHECKPOINT

_DEMO = json.loads((CHECKPOINT / "config.json").read_text())
_TOKENS = {key: value for key, value in _DEMO.items() if key.endswith("_token_id")}

CONFIG = {
    **_TOKENS,
    "vocab_size": _DEMO["vocab_size"],
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
}


def random_model(folder, seed=0, change=lambda tensors: tensors, vision_blocks=1):
    """Write a model that writes nonsense, after *change* had its way with its tensors."""
    config = {**CONFIG, "vision_config": {**TINY["vision_config"], "depth": vision_blocks}}
    tensors = tiny_tensors({**TINY, **config}, seed)
    return tiny_checkpoint(folder, config, lambda _: change(tensors))
