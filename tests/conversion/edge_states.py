"""Groups of every kind of number, for the tests of rounding."""

import os
import subprocess
import sys

import numpy as np
from hypothesis import strategies as st

from olmocr.conversion.recipe import QuantParams

any_params = st.builds(QuantParams, st.sampled_from([3, 4, 5, 6, 8]), st.sampled_from([32, 64, 128]))


KINDS = {
    "tiny": lambda values: values * np.float32(1e-38),
    "about the least scale": lambda values: values * np.float32(1e-4),
    "at its edge": lambda values: values * np.float32(3e-5),
    "one side": lambda values: np.abs(values) + np.float32(0.01),
    "the other side": lambda values: -np.abs(values) - np.float32(0.01),
    "far from zero": lambda values: 1 + values * np.float32(1e-4),
    "ties": lambda values: np.rint(values * 200) / 2,
    "constant": lambda values: np.full_like(values, values[0, 0]),
    "large": lambda values: values * np.float32(1e30),
}


def rows_of(kind, params, seed):
    values = np.random.default_rng(seed).normal(0, 0.02, (5, 2 * params.group_size)).astype(np.float32)
    return KINDS[kind](values)


LOW_DISK = """
import sys
from pathlib import Path
from olmocr.conversion.convert import convert, plan_targets, with_weights
downloads, stop_in, most = Path(".out.partial/source"), sys.argv[1], 0
def watch(nbytes):
    global most
    names = [path.name for path in downloads.glob('*')]
    most = max(most, len(names))
    if stop_in in names:
        raise SystemExit(9)
convert("demo/olmocr", "4bit", Path("out"), low_disk=True, progress=watch)
print(most)
"""


def low_disk(hub, folder, stop_in=""):
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", LOW_DISK, stop_in], cwd=folder, env=os.environ | names, capture_output=True, text=True
    )
