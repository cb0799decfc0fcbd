"""A checkpoint in transformers, which the port to MLX is compared with."""

import sys

import pytest

from olmocr.errors import MissingDependencyError
from olmocr.validate.fidelity.distributions import diverge, keep
from olmocr.validate.fidelity.forced import ForcedAnswer
from olmocr.validate.fidelity.measure import FidelityTerms, measure_fidelity
from olmocr.validate.fidelity.reading import inputs_of
from olmocr.validate.fidelity.reference import Reference
from tests.conftest import CHECKPOINT, PAGES


def test_transformers_gives_what_the_source_in_mlx_gives(source, image, answer):
    pytest.importorskip("torch")
    reference = Reference(CHECKPOINT)
    kept = keep(ForcedAnswer(source, inputs_of(source, image, 0), answer).blocks(), len(answer) + 1)
    found = diverge(kept, reference.blocks(image, answer))
    assert found.divergence.max() < 1e-4
    assert (found.choices == kept.choices).all()


@pytest.mark.slow
def test_transformers_reads_every_demo_page_as_the_source_in_mlx_does(converted, tmp_path):
    pytest.importorskip("torch")
    terms = FidelityTerms((PAGES,), work=tmp_path, reference="transformers")
    parity = measure_fidelity(converted("8bit"), CHECKPOINT, terms).parity
    assert (parity.pages, parity.identical_pages, parity.top1_agreement) == (24, 24, 1.0)
    assert parity.mean_kl < 2e-6
    assert parity.max_log_probability_difference < 5e-3


@pytest.mark.skipif("torch" in sys.modules, reason="torch is installed")
def test_without_torch_the_reference_says_what_to_install():
    try:
        import torch  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"install it with: .*\[torch\]"):
            Reference(CHECKPOINT)
