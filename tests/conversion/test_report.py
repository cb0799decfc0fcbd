""""""

import importlib.metadata
import math
import platform
import shlex
import time
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest

from olmocr.conversion.convert import convert, plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.conversion.source.names import mlx_name
from olmocr.conversion.write import write_models
from olmocr.files import sha256_of
from olmocr.model_folder import ModelFolder
from olmocr.reports.conversion import (
    ConversionReport,
    ConvertedSource,
    OutputFile,
    RecipeReport,
    RuleReport,
    SourceFile,
    TensorReport,
)
from olmocr.reports.parts import ComponentBits
from olmocr.reports.typed_json import parse_as, report_json
from olmocr.runtime import facts
from olmocr.runtime.memory import peak_memory
from olmocr.version import __version__
from tests.checkpoints import read_tensors, tiny_checkpoint

PARTS = {"lm_head.": "head", "model.embed_tokens.": "embeddings", "visual.merger.": "merger", "visual.": "vision"}


def part_of(name):
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "language")


def values_of(stored, module):
    """Return what MLX reads back of a quantized matrix, in float64."""
    parts = [np.frombuffer(stored[f"{module}.{part}"][2], np.uint32 if part == "weight" else np.uint16)
             for part in ("weight", "scales", "biases")]  # fmt: skip
    rows = stored[f"{module}.weight"][1][0]
    weight, scales, biases = (mx.array(part.reshape(rows, -1)) for part in parts)
    wide = [part.view(mx.bfloat16).astype(mx.float32) for part in (scales, biases)]
    with mx.stream(mx.cpu):
        return np.array(mx.dequantize(weight, *wide, group_size=64, bits=4)).astype(np.float64)


def test_every_field_is_what_can_be_counted_in_the_source_and_in_what_was_written(tmp_path):
    source, out = tiny_checkpoint(tmp_path / "source"), tmp_path / "out"
    before, started = peak_memory(), time.monotonic()
    (report,) = write_models(
        plan_targets(ModelFolder(source), [find_recipe("4bit")], "stock", out), threads=2, processor="numba"
    )
    took, after = time.monotonic() - started, peak_memory()
    tensors, stored = read_tensors(source), read_tensors(out)
    sizes, nbytes, expected, kept = Counter(), Counter(), [], Counter()
    for name, (_, shape, data) in tensors.items():
        mlx = mlx_name(name, {"tie_word_embeddings": False})
        module, is_quantized = mlx.removesuffix(".weight"), f"{mlx.removesuffix('.weight')}.scales" in stored
        assert is_quantized == (len(shape) == 2 and not name.startswith("visual."))
        names = [mlx, f"{module}.scales", f"{module}.biases"] if is_quantized else [mlx]
        written = sum(len(stored[each][2]) for each in names)
        sizes[part_of(name)] += math.prod(shape)
        nbytes[part_of(name)] += written
        reason, error = None, 0.0
        if is_quantized:
            values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
            error = np.linalg.norm(values - values_of(stored, module)) / np.linalg.norm(values.astype(np.float64))
        elif len(shape) == 2:
            reason = "the vision tower is kept, as stock mlx-vlm does"
        elif len(shape) == 5:
            reason = "MLX does not quantize convolutions such as the patch embedding"
        else:
            reason = "a norm or a bias is not a matrix"
        kept.update([reason] if reason else [])
        final = tuple(shape[axis] for axis in (0, 2, 3, 4, 1)) if len(shape) == 5 else tuple(shape)
        how = (4, 64, "affine") if is_quantized else (None, None, None)
        expected.append(TensorReport(mlx, final, *how, reason, written, pytest.approx(error, rel=1e-3)))
    weights, parameters = sum(nbytes.values()), sum(sizes.values())
    packages = {
        each: importlib.metadata.version(each) for each in ("mlx", "mlx-vlm", "numba", "numpy", "huggingface-hub")
    }
    assert report == ConversionReport(
        source=ConvertedSource(
            "source", None, (SourceFile("model.safetensors", sha256_of(source / "model.safetensors")),)
        ),
        recipe=RecipeReport(
            "4bit",
            "The language model with its head and embeddings at 4 bits, the vision tower kept, "
            "as stock mlx-vlm converts.",
            None,
            None,
            None,
            (),
            (
                RuleReport(
                    ("vision_tower.*",), None, None, None, "the vision tower is kept, as stock mlx-vlm does", None
                ),
                RuleReport(("language_model.*",), 4, 64, "affine", None, None),
            ),
        ),
        method="stock",
        command="python -m olmocr.convert_to_mlx source --quantize 4bit --method stock",
        parameters=parameters,
        weight_bytes=weights,
        bits_per_weight=pytest.approx(weights * 8 / parameters),
        components=tuple(
            ComponentBits(part, sizes[part], nbytes[part], pytest.approx(nbytes[part] * 8 / sizes[part]))
            for part in ("language", "head", "embeddings", "vision", "merger")
        ),
        kept=dict(kept),
        tensors=tuple(expected),
        files=(OutputFile("model.safetensors", *size_and_sha256(out / "model.safetensors")),),
        processor="numba",
        threads=2,
        resumed_shards=0,
        seconds=report.seconds,
        peak_memory=report.peak_memory,
        versions={
            "olmocr": __version__,
            "python": platform.python_version(),
            "platform": facts.platform.platform(terse=True),  # as the package is told, also where a Mac is imitated
            **packages,
        },
        version=2,
    )
    assert 0 < report.seconds <= took + 0.001
    assert before <= report.peak_memory <= after
    assert parse_as(ConversionReport, (out / "conversion_report.json").read_text()) == report


def size_and_sha256(path):
    return path.stat().st_size, sha256_of(path)


def test_more_bits_have_less_error(reports):
    def errors(recipe):
        return {each["name"]: each["relative_error"] for each in reports[recipe]["tensors"] if each["bits"]}

    four, eight = errors("4bit"), errors("8bit")
    assert set(four) == set(eight)
    assert all(0 < eight[name] < four[name] / 8 for name in four)


def test_the_command_names_all_that_changes_a_byte(reports):
    command = reports["mixed"]["command"]
    for part in ("--quantize mixed", "--method fit", "--group-size 32", "--keep '*.lm_head'"):
        assert part in command


def test_the_command_can_be_given_to_a_shell_whatever_the_source_is_called(tmp_path):
    (report,) = convert(tiny_checkpoint(tmp_path / "my model's; ls"), "4bit", tmp_path / "out")
    assert shlex.split(report.command)[3:6] == ["my model's; ls", "--quantize", "4bit"]


def test_no_path_of_the_machine_is_in_a_report(tmp_path):
    (report,) = convert(tiny_checkpoint(tmp_path / "source"), "4bit", tmp_path / "out")
    assert str(tmp_path) not in report_json(report)
