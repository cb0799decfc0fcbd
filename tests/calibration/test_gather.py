"""Pages are made what the engine sends for them, with the answer that follows; what cannot be used is named."""

import numpy as np
import pytest
from PIL import Image

from olmocr.calibration.drawn_pages import front_matter
from olmocr.calibration.gather import CalibrationTerms, gather
from olmocr.errors import AnswerError, CheckpointError, InputError
from olmocr.files import sha256_of
from olmocr.inference.model import load_processor
from olmocr.inference.prompt import make_inputs
from olmocr.model_folder import ModelFolder
from olmocr.page import ModelResponse, PageRequest, chat_prompt
from olmocr.rendering.render import open_document, turned
from olmocr.runtime.facts import weight_hashes
from olmocr.validate.fidelity.distributions import KeptDistributions
from olmocr.validate.fidelity.earlier import write_asked
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.fidelity.work import PageMeasurement, Work
from olmocr.validate.known_pages.drawing import Type, text_sheet, turned_90, write_pdf
from olmocr.validate.known_pages.page_set import KnownPage
from tests.conftest import CHECKPOINT

SOURCE = ModelFolder(CHECKPOINT)
IMAGE_TOKEN = "<|image_pad|>"
END = "<|im_end|>"


@pytest.fixture(scope="module")
def processor():
    return load_processor(SOURCE)


@pytest.fixture
def terms(tmp_path):
    """Return a function: documents -> terms under which nothing is found that was kept before."""
    return lambda *paths, **more: CalibrationTerms(
        paths, work=more.pop("work", tmp_path / "no work"), answers=tmp_path / "answers", **more
    )


def document(path, *texts, true=True):
    """Write a PDF, a page for each text, with the texts beside it if they are to be known as *true*."""
    write_pdf(path, [text_sheet([text], Type(20)) for text in texts])
    for number, text in enumerate(texts if true else (), 1):
        name = path.stem if len(texts) == 1 else f"{path.stem}.p{number}"
        path.with_name(f"{name}.md").write_text(front_matter("en") + text, encoding="utf-8")
    return path


def image_of(path, side=644):
    with open_document(path, path.name) as opened:
        return opened.render(1, side)


def answering(text):
    async def ask(request):
        return ModelResponse(text, "stop", 1, 1)

    return ask


def test_a_page_is_the_question_that_the_engine_asks_and_then_the_answer_and_its_end(tmp_path, processor, terms):
    path = document(tmp_path / "letter.pdf", "A letter to read.")
    [page] = gather(SOURCE, terms(path)).pages
    asked = make_inputs(processor, PageRequest(image_of(path)))
    assert page.token_ids[: page.answer_start].tolist() == asked.input_ids[0].tolist()
    assert np.array_equal(page.pixel_values, asked.pixel_values)
    assert np.array_equal(page.grid_thw, asked.image_grid_thw)
    tokenizer = processor.tokenizer
    assert tokenizer.decode(page.token_ids[page.answer_start :]) == front_matter("en") + "A letter to read." + END
    question = tokenizer.decode(page.token_ids[: page.answer_start])
    assert question.replace(IMAGE_TOKEN, "") == chat_prompt().replace(IMAGE_TOKEN, "")
    assert (page.kind, page.whose_text) == ("given", "true text")
    assert [each.dtype for each in (page.token_ids, page.position_ids, page.grid_thw)] == [np.int32] * 3
    assert page.pixel_values.dtype == np.float32


def test_pages_are_drawn_where_none_are_given_until_there_are_tokens_enough(terms):
    gathered = gather(SOURCE, terms(most_answer_tokens=1))
    assert [(page.kind, page.whose_text) for page in gathered.pages] == [("clean", "true text")]
    assert (gathered.unused, gathered.longest_side, gathered.left_out) == (23, 644, ())
    assert gathered.answer_tokens == gathered.pages[0].token_ids.size - gathered.pages[0].answer_start


def test_a_sample_of_a_long_document_is_taken_in_its_order(tmp_path, terms):
    path = document(tmp_path / "long.pdf", *(f"Page {number}." for number in range(12)))
    sampled = gather(SOURCE, terms(path, most_answer_tokens=120))
    numbers = [int(page.name.rpartition(" ")[2]) for page in sampled.pages]
    assert numbers == sorted(numbers)
    assert len(numbers) == 12 - sampled.unused == 3
    assert numbers[-1] > 6
    assert gather(SOURCE, terms(path, most_answer_tokens=120)).sha256 == sampled.sha256


def test_what_was_used_has_one_hash_that_tells_pixels_and_answers_apart(tmp_path, terms):
    path = document(tmp_path / "a.pdf", "A letter to read.")
    first, again = (gather(SOURCE, terms(path)) for _ in range(2))
    other_answer = gather(SOURCE, terms(path), answering(front_matter("en") + "A letter."))
    other_pixels = gather(SOURCE, terms(path, longest_side=532))
    assert first.sha256 == again.sha256
    assert len({first.sha256, other_answer.sha256, other_pixels.sha256}) == 3


def test_pixels_lie_on_disk_and_can_be_computed_with(tmp_path, terms):
    import mlx.core as mx

    [page] = gather(SOURCE, terms(document(tmp_path / "a.pdf", "A letter to read."))).pages
    assert isinstance(page.pixel_values, np.memmap)
    assert mx.array(page.pixel_values).shape == page.pixel_values.shape
    with pytest.raises(ValueError, match="read-only"):
        page.pixel_values[0] = 0


def test_pages_are_asked_for_before_their_true_text_is_taken(tmp_path, terms):
    path = document(tmp_path / "a.pdf", "A letter to read.")
    [page] = gather(SOURCE, terms(path), answering(front_matter("en") + "A better.")).pages
    assert page.whose_text == "a conversion's answers"


def test_a_text_layer_is_taken_where_nothing_else_is_known(tmp_path, terms):
    [page] = gather(SOURCE, terms(document(tmp_path / "a.pdf", "A letter to read.", true=False))).pages
    assert page.whose_text == "text layer"


def test_a_page_that_is_turned_is_turned_upright(tmp_path, processor, terms):
    path = tmp_path / "turned.pdf"
    write_pdf(path, [turned_90(text_sheet(["A letter to read."], Type(20)))])
    stated = front_matter("en").replace("valid: True", "valid: False").replace("correction: 0", "correction: 90")
    path.with_suffix(".md").write_text(stated + "A letter to read.", encoding="utf-8")
    [page] = gather(SOURCE, terms(path)).pages
    upright = make_inputs(processor, PageRequest(turned(image_of(path), 90)))
    assert np.array_equal(page.pixel_values, upright.pixel_values)
    assert "is_rotation_valid: True" in processor.tokenizer.decode(page.token_ids[page.answer_start :])


def test_answers_that_the_source_gave_before_are_taken_token_by_token(tmp_path, terms):
    path = document(tmp_path / "a.pdf", "A letter to read.")
    work = tmp_path / "work"
    write_asked(work / "key", weight_hashes(CHECKPOINT), [KnownPage(path, 1)], 644)
    answer = PageAnswer((7, 8, 9), front_matter("en"), "stop", 0, False, 1.0)
    reading = PageReading(answer, True, "stop", True, 1, (), False, 1.0)
    Work(work / "key" / "source").keep(0, PageMeasurement(reading, 10, 1.0), KeptDistributions(*[[]] * 5))
    [page] = gather(SOURCE, terms(path, work=work)).pages
    assert page.token_ids[page.answer_start : -1].tolist() == [7, 8, 9]
    assert page.whose_text == "the source's answers, kept"


def test_pages_of_documents_and_pictures_are_taken_and_what_cannot_be_is_named(tmp_path, terms):
    folder = tmp_path / "pages"
    folder.mkdir()
    document(folder / "a.pdf", "The first page.", "The second page.")
    (folder / "b.pdf").write_bytes(b"%PDF-1.4 and no more")
    Image.new("RGB", (300, 400), "white").save(folder / "c.png")
    (folder / "c.md").write_text("A picture.", encoding="utf-8")
    Image.new("RGB", (300, 400), "white").save(folder / "d.png")
    Image.new("RGB", (4000, 4), "white").save(folder / "e.png")
    (folder / "e.md").write_text("A line.", encoding="utf-8")
    gathered = gather(SOURCE, terms(folder))
    assert [page.name for page in gathered.pages] == ["a.pdf, page 1", "a.pdf, page 2", "c.png, page 1"]
    left_out = {each.name: each.why for each in gathered.left_out}
    assert list(left_out) == ["b.pdf", "d.png, page 1", "e.png, page 1"]
    assert "d.md" in left_out["d.png, page 1"]


def test_documents_none_of_which_can_be_used_are_refused_in_a_sentence(tmp_path, terms):
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 and no more")
    with pytest.raises(InputError, match=r"no pages to calibrate on: broken\.pdf is a damaged PDF"):
        gather(SOURCE, terms(path))
    with pytest.raises(InputError, match="no file or folder"):
        gather(SOURCE, terms(tmp_path / "nothing"))


def test_a_source_without_a_tokenizer_is_refused(tmp_path, terms):
    (tmp_path / "config.json").write_bytes((CHECKPOINT / "config.json").read_bytes())
    with pytest.raises(CheckpointError):
        gather(ModelFolder(tmp_path), terms())


def test_a_model_that_gives_no_answer_leaves_the_true_text(tmp_path, terms):
    async def ask(request):
        raise AnswerError("the model failed")

    [page] = gather(SOURCE, terms(document(tmp_path / "a.pdf", "A letter to read.")), ask).pages
    assert page.whose_text == "true text"


@pytest.mark.slow
def test_a_conversion_is_asked_once_and_what_it_answered_is_kept(tmp_path, terms):
    path = document(tmp_path / "a.pdf", "A letter to read.")
    given = terms(path, answering=CHECKPOINT)
    [page] = gather(SOURCE, given).pages
    assert page.whose_text == "answers of checkpoint"
    [kept] = (tmp_path / "answers").glob("*/*.json")
    kept.write_text(kept.read_text().replace("answers of checkpoint", "kept answers of checkpoint"))
    assert gather(SOURCE, given).pages[0].whose_text == "kept answers of checkpoint"
    assert sha256_of(path) not in kept.read_text()
