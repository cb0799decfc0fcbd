"""Checkpoints with one thing wrong."""

from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from olmocr.conversion.source.checkpoint import read_checkpoint
from olmocr.errors import OlmocrError
from olmocr.model_folder import ModelFolder
from tests.checkpoints import TINY_FAMILIES


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


SOURCES = st.sampled_from([*TINY_FAMILIES, "fp8"])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def read_or_refused(folder):
    """Return whether the checkpoint was read; anything else than that or an OlmocrError is a bug."""
    try:
        read_checkpoint(ModelFolder(folder))
    except OlmocrError as error:
        assert str(error)
        return False
    return True


def read_with(folder, shard):
    """Read the checkpoint with other bytes as its shard, and leave it as it was."""
    path = folder / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(shard)
    try:
        was_read = read_or_refused(folder)
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, ValueError):
            assert not was_read, "the safetensors library refuses it"
    finally:
        path.write_bytes(before)
    return was_read
