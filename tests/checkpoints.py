"""Makes checkpoints on the spot: the demo one in another layout, or a very small one with random weights."""

import json
import math
import shutil
import struct

import numpy as np

from olmocr.conversion.source.config import flat_config
from olmocr.conversion.source.names import expected_shapes
from olmocr.tensors.header import read_header
from tests.conftest import CHECKPOINT

COMPANIONS = ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.json"]


def read_tensors(folder):
    """Return {name: (dtype, shape, data)} of every shard."""
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        content = shard.read_bytes()
        for info in read_header(shard):
            tensors[info.name] = (info.dtype, info.shape, content[info.offset : info.offset + info.nbytes])
    return tensors


def new_keys(name):
    """Return what newer transformers call the tensor."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def nested_config(config):
    """Return a config of transformers 4, of any family, as transformers 5 saves it."""
    family = config["model_type"]
    own = ("architectures", "model_type", "tie_word_embeddings", "image_token_id", "quantization_config")
    root = {key: config[key] for key in own if key in config}
    beside = {*root, "vision_config", "text_config", "torch_dtype"}
    text = {key: value for key, value in config.items() if key not in beside} | config.get("text_config", {})
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    text.pop("tie_word_embeddings", None)
    vision = {**config["vision_config"], "model_type": f"{family}_vision"}
    vision.pop("in_channels", None)
    text |= {"model_type": f"{family}_text", "dtype": "bfloat16"}
    return {**root, "dtype": "bfloat16", "text_config": text, "vision_config": vision}


def demo_checkpoint(folder, rename=lambda name: name, reconfigure=lambda config: config):
    """Copy the demo checkpoint with other names for its tensors and another config.json, in one file."""
    folder.mkdir()
    for name in COMPANIONS:
        shutil.copyfile(CHECKPOINT / name, folder / name)
    config = json.loads((CHECKPOINT / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(reconfigure(config)))
    tensors = {rename(name): entry for name, entry in read_tensors(CHECKPOINT).items()}
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def write_tensors(path, tensors):
    """Write {name: (dtype, shape, data)} as a safetensors file."""
    write_header(path, {name: (dtype, shape, len(data)) for name, (dtype, shape, data) in tensors.items()})
    with path.open("ab") as file:
        file.writelines(data for _, _, data in tensors.values())


def write_header(path, tensors):
    """Write the header of a safetensors file that holds {name: (dtype, shape, bytes)}."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


TINY = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "torch_dtype": "bfloat16",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "vocab_size": 96,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
    },
}

TINY_QWEN2 = {key: value for key, value in TINY.items() if key != "vision_config"} | {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 1,
        "embed_dim": 32,
        "hidden_size": 64,
        "in_chans": 3,
        "mlp_ratio": 2.5,
        "model_type": "qwen2_vl",
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

# Its heads are wider than the model, and two blocks of its vision tower have a merger of their own.
TINY_QWEN3 = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "text_config": {
        "attention_bias": False,
        "dtype": "bfloat16",
        "head_dim": 32,
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 4096,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
        "rope_theta": 5e6,
        "vocab_size": 96,
    },
    "vision_config": {
        "deepstack_visual_indexes": [0, 1],
        "depth": 2,
        "hidden_size": 32,
        "in_channels": 3,
        "intermediate_size": 44,
        "model_type": "qwen3_vl",
        "num_heads": 2,
        "num_position_embeddings": 16,
        "out_hidden_size": 64,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

TINY_FAMILIES = {config["model_type"]: config for config in (TINY_QWEN2, TINY, TINY_QWEN3)}


def tiny_tensors(config, seed=0):
    """Return random bfloat16 tensors for *config*, with the original names."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(flat_config(config)).items():
        original = name.replace("vision_tower.", "visual.").replace("language_model.", "")
        values = random.normal(0, 0.02, shape).astype(np.float32)
        data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        tensors[original] = ("BF16", shape, data)
    return tensors


def tiny_checkpoint(folder, config=None, change=lambda tensors: tensors, base=TINY):
    """Write a checkpoint of 60 thousand random parameters, after *change* had its way with the tensors.

    *base* is the config of its family, *config* what differs from it.
    """
    config = {**base, **(config or {})}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in COMPANIONS:
        shutil.copyfile(CHECKPOINT / name, folder / name)
    write_tensors(folder / "model.safetensors", change(tiny_tensors(config)))
    return folder


def _e4m3_value(code):
    """Decode a sign, 4 bits of exponent with bias 7, and 3 of mantissa; all ones is NaN, and nothing is infinite."""
    sign, exponent, mantissa = -1.0 if code & 0x80 else 1.0, code >> 3 & 0xF, code & 0x7
    if code & 0x7F == 0x7F:
        return math.nan
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


E4M3 = np.array([_e4m3_value(code) for code in range(256)], dtype=np.float32)
"""What each FP8 code stands for."""

FP8_CONFIG = {
    "config_groups": {
        "group_0": {
            "input_activations": {
                "dynamic": True,
                "num_bits": 8,
                "strategy": "token",
                "symmetric": True,
                "type": "float",
            },
            "output_activations": None,
            "targets": ["Linear"],
            "weights": {
                "dynamic": False,
                "num_bits": 8,
                "observer": "minmax",
                "strategy": "channel",
                "symmetric": True,
                "type": "float",
            },
        }
    },
    "format": "float-quantized",
    "ignore": ["lm_head", "visual.merger.mlp.0"],
    "kv_cache_scheme": None,
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
}
"""What compressed-tensors writes of FP8 weights with a scale for each row, as in olmOCR-2-7B-1025-FP8."""


def fp8_tensors(tensors, per_row=True):
    """Return *tensors* with the linear layers of the language model in FP8, scaled by row or as a whole."""
    changed = {}
    for name, (dtype, shape, data) in tensors.items():
        changed[name] = (dtype, shape, data)
        if "layers." not in name or len(shape) != 2:
            continue
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        largest = np.abs(values).max(axis=1, keepdims=True) if per_row else np.abs(values).max().reshape(1)
        # Rounded up to bfloat16, so that no value is beyond the largest code's.
        scale = ((largest / E4M3[:0x7F].max()).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) + np.uint16(
            1
        )
        widened = (scale.astype(np.uint32) << 16).view(np.float32)
        changed[name] = ("F8_E4M3", shape, _e4m3_codes(values / widened).tobytes())
        changed[f"{name}_scale"] = ("BF16", scale.shape, scale.tobytes())
    return changed


def _e4m3_codes(values):
    positive = E4M3[:0x7F]
    nearest = np.searchsorted((positive[1:] + positive[:-1]) / 2, np.abs(values))
    return (nearest + np.where(np.signbit(values), 0x80, 0)).astype(np.uint8)


def fp8_checkpoint(folder, base=TINY, per_row=True):
    """Write the tiny checkpoint in the layout of olmOCR-2-7B-1025-FP8."""
    return tiny_checkpoint(
        folder, {"quantization_config": FP8_CONFIG}, lambda tensors: fp8_tensors(tensors, per_row), base
    )


def sparse_checkpoint(folder, vocab_size):
    """Write a checkpoint of zeros whose vocabulary makes it slow to convert, and which takes no room: it is a hole."""
    tiny_checkpoint(folder)
    config = TINY | {"vocab_size": vocab_size}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {name: entry[1] for name, entry in tiny_tensors(TINY).items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        shapes[name] = (vocab_size, TINY["hidden_size"])
    sizes = {name: ("BF16", shape, 2 * math.prod(shape)) for name, shape in shapes.items()}
    path = folder / "model.safetensors"
    write_header(path, sizes)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + sum(nbytes for _, _, nbytes in sizes.values()))
    return folder


def decided_checkpoint(folder, layers):
    """Write a tiny checkpoint of so many layers that finds some tokens likelier than others, which rounding changes.

    Its head is 2**6 times as large: otherwise all tokens would be about as likely, whatever was rounded.
    """
    special = {"vocab_size": 4126, "image_token_id": 4086, "num_hidden_layers": layers}

    def with_large_head(tensors):
        dtype, shape, data = tensors["lm_head.weight"]
        exponents = np.frombuffer(data, np.uint16) + np.uint16(6 << 7)
        return tensors | {"lm_head.weight": (dtype, shape, exponents.tobytes())}

    return tiny_checkpoint(folder, {**TINY, **special}, with_large_head)
