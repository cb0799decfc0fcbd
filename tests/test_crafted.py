"""benchmarks/crafted.py: a model of random weights writes its scripted answer, and PDFs show that."""

import sys

import pytest

from olmocr.inference.decode import decode
from olmocr.inference.model import load_model, load_processor
from olmocr.model_folder import ModelFolder
from olmocr.page import PageRequest, parse_page_response
from olmocr.rendering.render import open_document
from tests.conftest import CHECKPOINT, DEVICE, ROOT
from tests.inference.decoded import picture

sys.path.append(str(ROOT / "benchmarks"))
from crafted import make_checkpoint, make_pdf, pieces, words
from drafts import Count, generated_pages, read
from true_size import Wanted


def text_of(path, page=1):
    with open_document(path, path.name) as pages:
        return pages.text(page).split()


def test_a_pdf_shows_the_answers_words_and_no_two_pages_have_the_same_pixels(tmp_path):
    make_pdf(tmp_path / "a.pdf", 2, count=40)
    assert text_of(tmp_path / "a.pdf") == words(40)
    with open_document(tmp_path / "a.pdf", "a.pdf") as pages:
        assert pages.render(1, 300).pixels.tobytes() != pages.render(2, 300).pixels.tobytes()


@pytest.mark.parametrize(("changed", "least", "most"), [(0.1, 0.05, 0.2), (1.0, 1.0, 1.0)])
def test_so_large_a_share_of_the_words_is_changed_as_is_asked(tmp_path, changed, least, most):
    make_pdf(tmp_path / "a.pdf", 1, count=300, changed=changed)
    other = sum(shown != word for shown, word in zip(text_of(tmp_path / "a.pdf"), words(300), strict=True))
    assert least <= other / 300 <= most


def test_each_token_of_the_answer_is_in_it_once():
    assert len(set(pieces(900))) == len(pieces(900))


def test_a_run_is_three_pages_for_each_one_at_once_unless_it_says_how_many():
    assert Wanted.of("4:right") == Wanted(4, "right", 12)
    assert Wanted.of("4:10:5") == Wanted(4, "10", 5)


@pytest.mark.slow
def test_a_crafted_model_writes_its_answer_and_ends_it(tmp_path):
    make_checkpoint(tmp_path / "model", "demo", count=12)
    answer = decode(load_model(ModelFolder(tmp_path / "model"), DEVICE), PageRequest(picture(1), max_tokens=100))
    assert (answer.finish_reason, len(answer.tokens)) == ("stop", len(pieces(12)))
    assert parse_page_response(answer.text).natural_text.split() == words(12)


def test_a_generated_page_of_drafts_is_written_in_few_passes_if_its_own_text_is_right():
    tokenizer, counts = load_processor(ModelFolder(CHECKPOINT)).tokenizer, {}
    for name, pages in generated_pages(ROOT / "demo/pages").items():
        counts[name] = Count()
        read(pages[0], tokenizer, "cuda", counts[name])
    assert counts["prose"].passes < counts["an invoice"].passes < counts["a scan without text"].passes / 2
    assert counts["prose"].accepted == counts["prose"].proposed
