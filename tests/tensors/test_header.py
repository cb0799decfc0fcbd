"""Headers of safetensors files, right and damaged."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import CheckpointError
from olmocr.tensors.header import LONGEST_HEADER, parse_header
from tests.conversion.damaged import ANYTHING, SOURCES, entry, read_with


def file_of(entries, data=b"\0" * 24, length=None):
    """Return the bytes of a safetensors file, whatever its header says."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


GOOD = {"a": entry(0, 8), "b": entry(8, 24)}


SIZE = len(file_of(GOOD))


BROKEN = {
    "is truncated: 3 bytes are not a safetensors file": b"abc",
    "is a Git LFS pointer, not the weights; run 'git lfs pull'": b"version https://git-lfs.github.com/spec/v1\n",
    f"a header cannot have {LONGEST_HEADER + 1} bytes": file_of(GOOD, length=LONGEST_HEADER + 1),
    f"is truncated: {SIZE} bytes of at least 9008": file_of(GOOD, length=9000),
    "the header of model.safetensors cannot be read as JSON": file_of(b'{"a": '),
    "cannot be read as JSON: 'utf-8' codec can't decode": file_of(b'{"\xff": 1}'),
    "cannot be read as JSON: maximum recursion depth": file_of(b'{"a":' * 100_000),
    "cannot be read as JSON: Exceeds the limit": file_of(b'{"a": ' + b"9" * 5000 + b"}"),
    "the header of model.safetensors is not a JSON object": file_of([1]),
    "the header of model.safetensors names a twice": file_of(b'{"a": 1, "a": 2}'),
    "the header of model.safetensors names dtype twice": file_of(b'{"a": {"dtype": "F32", "dtype": "F16"}}'),
    "b overlaps the tensor before it": file_of({"a": entry(0, 8), "b": entry(4, 24)}),
    "b leaves a hole after the tensor before it": file_of({"a": entry(0, 8), "b": entry(12, 24)}),
    "a leaves a hole after": file_of({"a": entry(4, 24)}),
    f"is truncated: {SIZE - 4} bytes of {SIZE}": file_of(GOOD, data=b"\0" * 20),
    f"is damaged: it has {SIZE + 4} bytes, but its header says {SIZE}": file_of(GOOD, data=b"\0" * 28),
    "a has 24 bytes, but F32 of shape (7,) takes 28": file_of({"a": entry(0, 24, shape=[7])}),
    "a has dtype 'F99', which is unknown here": file_of({"a": entry(0, 24, dtype="F99")}),
    "a has dtype 'F4', which is unknown here": file_of({"a": entry(0, 24, dtype="F4")}),
    "a has dtype ['F32'], which is unknown here": file_of({"a": entry(0, 24, dtype=["F32"])}),
    "a has shape [-1, -6], which is invalid": file_of({"a": entry(0, 24, shape=[-1, -6])}),
    "a has shape [True], which is invalid": file_of({"a": entry(0, 4, shape=[True])}),
    "a has data_offsets [24, 0], which are not a range": file_of({"a": entry(24, 0, shape=[6])}),
    "a has data_offsets [0, nan], which are not a range": file_of(
        {"a": entry(0, 24) | {"data_offsets": [0, math.nan]}}
    ),
    "a does not have dtype, shape and data_offsets": file_of({"a": 1}),
    r"a \x1b[31m does not have dtype": file_of({"a\n\x1b[31m": 1}),
    "__metadata__ is not a group of texts": file_of({"__metadata__": [], **GOOD}),
    "damaged, download it again: __metadata__ is not a group of texts": file_of({"__metadata__": {"a": 1}, **GOOD}),
    "the header of model.safetensors is not a JSON object; download it again": file_of(b" {}"),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_damaged_header_is_refused_in_one_sentence(sentence):
    content = BROKEN[sentence]
    with pytest.raises(CheckpointError) as error:
        parse_header(content[: 1 << 20], len(content), "model.safetensors", "model.safetensors")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_header_that_is_right_is_read():
    content = file_of(
        {"__metadata__": {"format": "pt"}, **GOOD, "empty": entry(24, 24), "scalar": entry(24, 28, shape=[])}
    )
    header = parse_header(content, len(content) + 4, "model.safetensors", "anywhere")
    assert header.metadata == {"format": "pt"}
    start = len(content) - 24
    assert [(info.name, info.shape, info.offset - start, info.nbytes) for info in header.tensors] == [
        ("a", (2,), 0, 8), ("b", (4,), 8, 16), ("empty", (0,), 24, 0), ("scalar", (), 24, 4),
    ]  # fmt: skip


DTYPES = st.sampled_from(["F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "I16", "U8", "F4", "F64"]) | ANYTHING


SIZES = st.lists(st.integers(0, 200), max_size=3)


def changed_entries(data, entries):
    """Drop, repeat, rename, retype, reshape or shift a few of the (name, entry) pairs of a header."""
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(entries) - 1))
        name, info = entries[place]
        kind = data.draw(st.sampled_from(["drop", "repeat", "rename", "replace", "dtype", "shape", "data_offsets"]))
        if kind == "drop":
            del entries[place]
        elif kind == "repeat":
            entries.append((name, info))
        elif kind == "rename":
            others = st.sampled_from([f"{name}_scale", f"model.{name}", "__metadata__", f"language_model.{name}"])
            entries[place] = (data.draw(others | st.text(max_size=4)), info)
        elif kind == "replace" or not isinstance(info, dict):
            entries[place] = (name, data.draw(ANYTHING))
        else:
            values = {"dtype": DTYPES, "shape": SIZES | ANYTHING, "data_offsets": shifts(info) | ANYTHING}
            entries[place] = (name, {**info, kind: data.draw(values[kind])})
    return entries


def shifts(info):
    offsets = info.get("data_offsets")
    begin, end = offsets if isinstance(offsets, list) and len(offsets) == 2 else (0, 0)
    if not isinstance(begin, int) or not isinstance(end, int):
        return ANYTHING
    shift = st.sampled_from([-64, -2, 0, 2, 64, 1 << 40])
    return st.tuples(shift, shift).map(lambda pair: [begin + pair[0], end + pair[1]])


@given(data=st.data(), which=SOURCES)
def test_a_shard_with_any_entries_of_its_header_changed_is_read_or_refused(data, which, sources):
    content = (sources[which] / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    entries = changed_entries(data, list(json.loads(content[8:end]).items()))
    text = "{" + ",".join(f"{json.dumps(name)}: {json.dumps(info)}" for name, info in entries) + "}"
    read_with(sources[which], file_of(text.encode(), content[end:]))
