"""What a model is whose language matrices were changed, computed page by page with all blocks at hand."""

import mlx.core as mx
import numpy as np

from olmocr.conversion.calibrated.passes.language import (
    decoder_block,
    head_input,
    language_shape,
    logits,
    rotary_angles,
)
from olmocr.conversion.calibrated.passes.source_blocks import SourceBlocks
from olmocr.conversion.calibrated.passes.statistics import predicts_answer
from olmocr.conversion.calibrated.passes.walk import block_names, states_of
from olmocr.conversion.source.names import number_of_blocks

HEAD = "language_model.lm_head"
EMBEDDINGS = "language_model.model.embed_tokens"


def measured_kl(source, pages, folder, change):
    """Return the mean KL of a model whose language matrices are ``change(module, matrix)``, in nats an answer token."""
    shape, names = language_shape(source.config), block_names(source)
    first = number_of_blocks(source.config)["blocks"]
    blocks, states = SourceBlocks(source, mx.float32), states_of(source, pages, folder)
    rows = [len(page.token_ids) for page in pages]
    total = positions = 0
    for place, page in enumerate(pages):
        hidden = states.read(first, rows, place)
        text = mx.array(np.flatnonzero(page.token_ids != source.config["image_token_id"]))
        embeddings = change(EMBEDDINGS, blocks.weights(EMBEDDINGS)["weight"])
        hidden[text] = embeddings[mx.array(page.token_ids)[text]]
        for name in names[first:-1]:
            weights = {
                part: change(f"{name}.{part}".removesuffix(".weight"), values) if values.ndim == 2 else values
                for part, values in blocks.weights(name).items()
            }
            hidden, _ = decoder_block(weights, hidden, rotary_angles(page.position_ids, shape), shape)
        answers = mx.array(np.flatnonzero(predicts_answer(page)))
        norm, head = (blocks.weights(name)["weight"] for name in ("language_model.model.norm", HEAD))
        of_source = states.read(len(names) - 1, rows, place)
        theirs, ours = (
            logits(matrix, head_input(norm, each[answers], shape))
            for matrix, each in ((head, of_source), (change(HEAD, head), hidden))
        )
        theirs, ours = (each - mx.logsumexp(each, axis=-1, keepdims=True) for each in (theirs, ours))
        total += float((mx.exp(theirs) * (theirs - ours)).sum())
        positions += len(answers)
    return total / positions
