"""Makes checkpoints on the spot: the demo one in another layout, or a very small one with random weights."""

import json
import math
import shutil
import struct

import numpy as np

from olmocr.conversion.checkpoint import read_header
from olmocr.conversion.config import flat_config
from olmocr.conversion.names import expected_shapes
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
    """Return a flat config as transformers 5 saves it."""
    root = {key: config[key] for key in ("architectures", "model_type", "tie_word_embeddings", "image_token_id")}
    text = {key: value for key, value in config.items() if key not in {*root, "vision_config", "torch_dtype"}}
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    vision = {**config["vision_config"], "model_type": "qwen2_5_vl_vision"}
    vision.pop("in_channels")
    text |= {"model_type": "qwen2_5_vl_text", "dtype": "bfloat16"}
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
    },
}


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


def tiny_checkpoint(folder, config=None, change=lambda tensors: tensors):
    """Write a checkpoint of 60 thousand random parameters, after *change* had its way with the tensors."""
    config = {**TINY, **(config or {})}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in COMPANIONS:
        shutil.copyfile(CHECKPOINT / name, folder / name)
    write_tensors(folder / "model.safetensors", change(tiny_tensors(config)))
    return folder


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
