"""Checkpoints of any size that exist as headers only: enough for a plan."""

import copy
import math
from pathlib import Path

from olmocr.conversion.source.checkpoint import SourceCheckpoint
from olmocr.conversion.source.names import expected_shapes
from olmocr.model_folder import ModelFolder
from olmocr.tensors.header import TensorInfo

# The dimensions of Qwen2.5-VL-7B, which olmOCR-2-7B-1025 has: https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct
SEVEN_BILLION = {
    "model_type": "qwen2_5_vl",
    "torch_dtype": "bfloat16",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "in_channels": 3,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


def headers_of(config, dtype="BF16", repo_id="allenai/olmOCR-2-7B-1025"):
    """Return a checkpoint of *config* (flat): its tensors in one shard, in alphabetical order."""
    tensors, end = {}, 0
    for name, shape in sorted(expected_shapes(config).items()):
        nbytes = 2 * math.prod(shape)
        tensors[name] = TensorInfo(name, dtype, shape, Path("model.safetensors"), end, nbytes)
        end += nbytes
    return SourceCheckpoint(ModelFolder(Path("model"), repo_id), config, tensors)


def seven_billion(**changes):
    """Return the 7B model's headers; *changes* are fields of its config, those of ``vision`` of its vision_config."""
    config = copy.deepcopy(SEVEN_BILLION)
    config["vision_config"] |= changes.pop("vision", {})
    return headers_of(config | changes)


def tiny(layers=1, **changes):
    """Return the headers of a model whose every width 64 divides, but the vision MLP's (44)."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}
    vision = {"hidden_size": 64, "intermediate_size": 44, "out_hidden_size": 64, "depth": layers}
    return seven_billion(**small, num_hidden_layers=layers, vocab_size=96, vision=vision, **changes)


QWEN2_VL = {
    **{key: value for key, value in SEVEN_BILLION.items() if key != "vision_config"},
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "in_channels": 3,
        "mlp_ratio": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

# The dimensions of Qwen3-VL-4B, whose head is tied: https://huggingface.co/Qwen/Qwen3-VL-4B-Instruct
QWEN3_VL = {
    "model_type": "qwen3_vl",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
    "text_config": {
        "head_dim": 128,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "vocab_size": 151936,
    },
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_size": 1024,
        "in_channels": 3,
        "intermediate_size": 4096,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
