"""Sensitivities of any checkpoint, made up: no weight is read for them."""

import random

from olmocr.conversion.calibrated.allocation.sensitivities import MatrixSensitivity, MeasuredPages, Sensitivities
from olmocr.conversion.recipe import BITS
from olmocr.conversion.source.names import LANGUAGE
from olmocr.reports.conversion import ConvertedSource, SourceFile


def measured_of(source, seed=1, source_id=None):
    """Return sensitivities of all language matrices of *source*, which differ, and fall by a factor of 4 a bit."""
    drawn = random.Random(seed)
    matrices = []
    for name, info in sorted(source.tensors.items()):
        if name.startswith(LANGUAGE) and len(info.shape) == 2:
            scale = 10 ** drawn.uniform(-7, -4)
            nats = {str(bits): scale * 4.0 ** (4 - bits) for bits in BITS}
            matrices.append(MatrixSensitivity(name.removesuffix(".weight"), tuple(info.shape), {"fit": nats}))
    made_up = ConvertedSource("made up", None, (SourceFile("model.safetensors", "0123456789abcdef" * 4),))
    pages = MeasuredPages("f" * 64, 8, 20_000, 5_000)
    return Sensitivities(source_id or made_up, pages, 64, 0, "none", tuple(matrices), {"olmocr": "0"})
