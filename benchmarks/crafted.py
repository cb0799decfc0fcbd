"""A checkpoint of random weights that writes one valid answer, and PDFs that show it: ``crafted.py FOLDER --shape 7b``.

With it, a complete model of the true size runs without the real weights. It costs as much to compute as with them, and
its answers end, are parsed and have drafts like real ones. Each token occurs only once in the answer, so the last token
alone determines the next one: its embedding outweighs everything that the blocks add, and the head has a matching row
for the successor. All other weights are random.

The tokens are those of the demo checkpoint, and one for each word and each line of the answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from olmocr.conversion.source.config import flat_config
from olmocr.conversion.source.names import expected_shapes

DEMO = Path(__file__).resolve().parent.parent / "demo/checkpoint"
COMPANIONS = (
    *("chat_template.json", "chat_template.jinja", "generation_config.json", "merges.txt", "preprocessor_config.json"),
    *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
)

VISION_7B = {
    "depth": 32,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "hidden_act": "silu",
    "hidden_size": 1280,
    "in_channels": 3,
    "in_chans": 3,
    "intermediate_size": 3420,
    "model_type": "qwen2_5_vl",
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 112,
}

SHAPES: dict[str, dict[str, Any]] = {
    "demo": {"vocab_size": 5120},
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 128000,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]},
        "vision_config": VISION_7B,
        "vocab_size": 152064,
    },
}
"""What differs from the demo checkpoint's config.json."""

FRONT_MATTER = (
    "---\n",
    "primary_language: en\n",
    "is_rotation_valid: True\n",
    "rotation_correction: 0\n",
    "is_table: False\n",
    "is_diagram: False\n---\n",
)
WORDS = 350
MOST_WORDS = 900  # the demo's shape has room for so many tokens of its own

MOST_PIXELS = 12845056
"""Of an image, as Qwen publishes it; the demo's model takes smaller ones."""

_SPREAD = 0.02  # of the random weights
_EMBEDDED = 60.0  # of an embedding in the chain: all blocks together add less
_SCORE = 200.0  # of the token that is next in it; the others have about 1
_SHARD_BYTES = 4 << 30
_POOL = (1 << 22) + 15  # numbers that are drawn; all weights are made of them, each from a place of its own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="demo", help="(default: %(default)s)")
    parser.add_argument("--words", type=int, default=WORDS, help="in the answer (default: %(default)s)")
    args = parser.parse_args()
    make_checkpoint(args.folder, args.shape, args.words)


def words(count: int) -> list[str]:
    """Return *count* different words that are not in the prompt, in an order that does not predict the next one."""
    found = ["".join(letters) for letters in itertools.product("bdfgklmnprstvz", "aeio", "bdfgklmnprstvz", "u")]
    random.Random(0).shuffle(found)
    return found[:count]


def pieces(count: int) -> list[str]:
    """Return the answer's tokens except the last, which ends it: the front matter, and *count* words."""
    first, *others = words(count)
    return [*FRONT_MATTER, first, *(f" {word}" for word in others)]


def make_checkpoint(folder: Path, shape: str, count: int = WORDS) -> None:
    """Write a checkpoint in Hugging Face's layout, in bfloat16, whose every answer is the same *count* words."""
    folder.mkdir(parents=True)
    for name in COMPANIONS:
        shutil.copyfile(DEMO / name, folder / name)
    config = {**json.loads((DEMO / "config.json").read_text()), **SHAPES[shape]}
    config["vision_config"] = {**config["vision_config"], "out_hidden_size": config.get("hidden_size")}
    _put(folder / "config.json", config)
    preprocessor = json.loads((DEMO / "preprocessor_config.json").read_text())
    size = {**preprocessor["size"], "longest_edge": MOST_PIXELS}
    _put(folder / "preprocessor_config.json", {**preprocessor, "max_pixels": MOST_PIXELS, "size": size})
    chain = [*_add_tokens(folder, pieces(MOST_WORDS))[: len(FRONT_MATTER) + count]]
    newline = json.loads((folder / "vocab.json").read_text())["Ċ"]  # a prompt ends with it
    _write_weights(folder, config, [newline, *chain, config["eos_token_id"]])


def _put(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def _add_tokens(folder: Path, texts: Iterable[str]) -> list[int]:
    """Add *texts* as tokens to *folder*'s tokenizer; return their numbers."""
    path, settings_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    tokenizer, settings = json.loads(path.read_text()), json.loads(settings_path.read_text())
    first = 1 + max(entry["id"] for entry in tokenizer["added_tokens"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    new = [{"id": number, "content": text, **plain} for number, text in enumerate(texts, first)]
    tokenizer["added_tokens"] += new
    settings["added_tokens_decoder"] |= {str(entry["id"]): {**plain, "content": entry["content"]} for entry in new}
    _put(path, tokenizer)
    _put(settings_path, settings)
    return [int(entry["id"]) for entry in new]


def _write_weights(folder: Path, config: dict[str, Any], chain: list[int]) -> None:
    shapes = {_hf_name(name): shape for name, shape in expected_shapes(flat_config(config)).items()}
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        nbytes = 2 * int(np.prod(shape))
        if filled and filled + nbytes > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += nbytes
    rng = np.random.default_rng(0)
    pool = (rng.standard_normal(_POOL, np.float32) * _SPREAD).astype(ml_dtypes.bfloat16)
    unit = rng.standard_normal((len(chain) - 1, config["hidden_size"]), np.float32)
    rows = {  # behind the last norm a token's embedding is nearly *unit* again
        "model.embed_tokens.weight": (chain[:-1], unit * _EMBEDDED),
        "lm_head.weight": (chain[1:], unit * (_SCORE / config["hidden_size"])),
    }
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    with ThreadPoolExecutor(len(shards)) as threads:
        list(threads.map(lambda name, inside: _write_shard(folder / name, inside, shapes, pool, rows), names, shards))
    weight_map = {each: name for name, inside in zip(names, shards, strict=True) for each in inside}
    _put(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _hf_name(name: str) -> str:
    """Return the name of a tensor in Qwen2.5-VL's published checkpoints; *name* is MLX's name for it."""
    for mlx, published in (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", "visual."),
    ):
        if name.startswith(mlx):
            return published + name.removeprefix(mlx)
    return name


def _write_shard(
    path: Path,
    names: list[str],
    shapes: Mapping[str, tuple[int, ...]],
    pool: npt.NDArray[Any],
    rows: Mapping[str, tuple[list[int], npt.NDArray[np.float32]]],
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + 2 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = _tensor(name, shapes[name], pool)
            if name in rows:
                places, values = rows[name]
                tensor[places] = values.astype(ml_dtypes.bfloat16)
            file.write(memoryview(tensor.view(np.uint16)).cast("B"))


def _tensor(name: str, shape: tuple[int, ...], pool: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if "norm" in name or name.endswith("ln_q.weight"):
        return np.ones(shape, ml_dtypes.bfloat16)
    count, start = int(np.prod(shape)), zlib.crc32(name.encode()) % len(pool)
    return np.resize(np.roll(pool, -start), count).reshape(shape)


def make_pdf(path: Path, pages: int, count: int = WORDS, changed: float = 0.0, first: int = 1) -> None:
    """Write *pages* A4 pages that show the answer, of whose words so large a share is *changed*.

    Each has squares of its own at its foot, for its number from *first* on, so that no two have the same pixels.
    """
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for number in range(first, first + pages):
        stream = zlib.compress(_page_stream(number, count, changed))
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream))
        resources = b"/Resources << /Font << /F1 3 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] %s /Contents %d 0 R >>"
        objects.append(page % (resources, len(objects)))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), pages)
    write_objects(path, objects)


def write_objects(path: Path, objects: Sequence[bytes]) -> None:
    """Write a PDF of *objects*, of which the first is its catalog."""
    written, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, len(written))
    path.write_bytes(written + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer)


def _page_stream(number: int, count: int, changed: float) -> bytes:
    draw = random.Random(number)
    lines = [""]
    for word in words(count):
        shown = f"{word[::-1]}q" if draw.random() < changed else word
        if len(lines[-1]) + 1 + len(shown) > 92:
            lines.append("")
        lines[-1] = f"{lines[-1]} {shown}".strip()
    shown_lines = [f"({line}) Tj T*" for line in lines]
    squares = [f"{50 + 12 * bit} 20 8 8 re f" for bit in range(24) if number >> bit & 1]
    return "\n".join(["BT /F1 9 Tf 12 TL 50 790 Td", *shown_lines, "ET", *squares]).encode()


if __name__ == "__main__":
    main()
