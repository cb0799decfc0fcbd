"""How likely a model holds each token of an answer that it is told."""

import numpy as np
import pytest

from olmocr.validate.fidelity.forced import ForcedAnswer
from olmocr.validate.fidelity.reading import inputs_of


@pytest.mark.slow
def test_it_does_not_matter_how_many_positions_are_computed_at_once(source, image, answer):
    inputs = inputs_of(source, image, 0)
    whole = np.concatenate(list(ForcedAnswer(source, inputs, answer).blocks(1000)))
    parts = np.concatenate(list(ForcedAnswer(source, inputs, answer).blocks(7)))
    assert whole.shape == (len(answer) + 1, 4096)
    assert np.abs(whole - parts).max() < 1e-3
    assert np.allclose(np.exp(whole).sum(axis=1), 1, atol=1e-5)
    assert whole[:-1].argmax(axis=1).tolist() == list(answer)
    assert int(whole[-1].argmax()) in source.stop_tokens
