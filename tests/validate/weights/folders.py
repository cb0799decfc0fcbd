"""Converted folders with one thing changed, and what is said of them."""

import json
import subprocess
import sys

import numpy as np

from olmocr.conversion.convert import convert
from olmocr.model_folder import HASHES_FILE, INDEX_FILE
from olmocr.validate.weights.check import check_weights
from tests.checkpoints import read_tensors, write_tensors

VALIDATE = [sys.executable, "-m", "olmocr.validate", "weights"]


SHARD = "model.safetensors"


def without_hashes(folder):
    (folder / HASHES_FILE).unlink()
    return folder


def problems(folder, check, source=None):
    """Return what the check called *check* found, after seeing that it failed."""
    report = check_weights(folder, source)
    assert not report.holds
    (found,) = [each for each in report.checks if each.name == check]
    assert found.holds is False
    return list(found.problems)


def rewrite(folder, change):
    """Write the folder's shard and index again, after *change* had its way with the tensors."""
    tensors = read_tensors(folder)
    changed = change(tensors) or tensors
    write_tensors(folder / SHARD, changed)
    size = sum(len(data) for _, _, data in changed.values())
    edit_index(
        folder, lambda index: index.update(weight_map=dict.fromkeys(changed, SHARD), metadata={"total_size": size})
    )


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_index(folder, change):
    edit_json(folder / INDEX_FILE, change)


def edit_config(folder, change):
    edit_json(folder / "config.json", change)


def edit_quantization(folder, change):
    """Change both places in which config.json has it."""
    edit_config(folder, lambda config: [change(config[key]) for key in ("quantization", "quantization_config")])


def put(folder, name, index, value):
    """Write *value* (two bytes) over one element of a tensor."""

    def change(tensors):
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.uint16).reshape(shape).copy()
        values[index] = value
        tensors[name] = (dtype, shape, values.tobytes())

    rewrite(folder, change)


def padded(folder, source, put_into=None, value=0):
    """Convert *source*, then pad its vision MLP from 44 to 64; *value* goes into the padding of one tensor."""
    convert(source, "4bit", folder)
    without_hashes(folder)

    def pad(tensors):
        for name in [name for name in tensors if name.startswith("vision_tower.blocks.0.mlp.")]:
            dtype, shape, data = tensors[name]
            axis = 0 if "down_proj" not in name else 1 if name.endswith("weight") else None
            if axis is None:
                continue
            widths = [(0, 20) if each == axis else (0, 0) for each in range(len(shape))]
            values = np.pad(np.frombuffer(data, np.uint16).reshape(shape), widths)
            if name == put_into:
                values[-1] = value
            tensors[name] = (dtype, list(values.shape), values.tobytes())

    rewrite(folder, pad)
    edit_config(folder, lambda config: config["vision_config"].update(intermediate_size=64))
    return folder


def run(*arguments, **options):
    return subprocess.run([*VALIDATE, *map(str, arguments)], capture_output=True, text=True, **options)
