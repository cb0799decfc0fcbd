"""One step of a batch: what it shares and what it counts."""

from olmocr.inference.decode import BatchLimits, Counts, Scheduler
from olmocr.inference.draft import Costs
from olmocr.inference.engine import Engine
from olmocr.inference.prompt import make_inputs
from olmocr.page import PageRequest
from tests.conftest import DEVICE
from tests.inference.decoded import finished, picture, request, together

"""Keys and values of one token of the random model: 1 layer, 1 head of 32 numbers, float32."""


TOKEN_BYTES = 2 * 32 * 4


def test_pages_that_are_written_together_share_passes(folder):
    with Engine(folder, DEVICE, most_pages=8, drafted_pages=0) as engine:
        together(engine, [request(number) for number in range(8)])
        counts = engine.counts
    assert counts.tokens == 8 * 40
    assert counts.steps < 2 * 40 + 8


def test_passes_tokens_and_drafts_are_counted(chain):
    """Drafts are the usual front matter, continued with `: en`; they are at most as long as the rest of the answer."""
    limits = BatchLimits(1, 10_000 * TOKEN_BYTES, 512, drafted_pages=1, costs=Costs({1: 1.0, 64: 1.6}))
    scheduler = Scheduler(chain, limits, None)
    short, long = finished(scheduler, PageRequest(picture(1), max_tokens=3), PageRequest(picture(2), max_tokens=6))
    assert short.tokens == (290, 342, 338)  # one pass: two tokens of a draft, and one behind it
    assert long.tokens == (290, 342, 338, 198, 290, 342)  # 3 of 5 were right, then 0 of 1, then there was no draft
    ids = make_inputs(chain.processor, PageRequest(picture(1))).input_ids[0].tolist()
    assert scheduler.counts == Counts(
        prompt_tokens=2 * (len(ids) - 1) - ids.index(chain.model.config.image_token_id),  # the text is read once
        steps=1 + 3,
        row_steps=1 + 3,
        tokens=3 + 6,
        drafts=1 + 2,
        drafted=2 + 6,
        accepted=2 + 3,
        ended_length=2,
    )
    assert scheduler.counts.steps_a_token == 4 / 9
    assert scheduler.counts.accepted_a_draft == 5 / 3
