"""What each part takes for wrong, and that mlx-vlm fails alone."""

from dataclasses import replace

import pytest

from olmocr.doctor.measure import parts
from olmocr.doctor.measure.apart import PartFailedError
from olmocr.doctor.measure.parts import PARTS, SETTINGS, StockReaders, Workshop
from olmocr.doctor.measure.reading import Round
from olmocr.doctor.measure.terms import PAGES, MeasureTerms, find_demo
from olmocr.reports.machine import MeasuredConversion
from tests.reports.machines import FULL

TERMS = MeasureTerms(find_demo())
STEPS = []


class Answers:
    """Stands for processes: a function's name -> what it returns, or raises; *asked* are their names."""

    def __init__(self, scratch, **answers):
        self.scratch, self.limit, self.asked, self._answers = scratch, 1.0, [], answers

    def call(self, function, *arguments):
        self.asked.append(function.__name__)
        answer = self._answers[function.__name__]
        if isinstance(answer, Exception):
            raise answer
        return answer(*arguments) if callable(answer) else answer


def converted(demo, recipe, method, output):
    return MeasuredConversion(recipe, method, 1.0, 2, "numba", 3, "f" * 64, "same")


def measured(name, work):
    (part,) = [each for each in PARTS if each.name == name]
    return part.measure(work, lambda share, what: STEPS.append((share, what)))


def work_with(tmp_path, *, is_gpu=False, terms=TERMS, **answers):
    return Workshop(terms, Answers(tmp_path, **({"convert_demo": converted} | answers)), is_gpu=is_gpu)


def test_the_model_that_reads_is_made_once(tmp_path):
    work = work_with(tmp_path)
    assert work.model == work.model == tmp_path / "demo-8bit-fit"
    assert work.apart.asked == ["convert_demo"]
    named = work_with(tmp_path, terms=replace(TERMS, model=tmp_path / "mine"))
    assert named.model == tmp_path / "mine"
    assert named.apart.asked == []


def test_other_bytes_are_wrong_except_those_of_calibrated(tmp_path):
    def other(*arguments):
        return replace(converted(*arguments), known="other")

    found = measured("conversion", work_with(tmp_path, convert_demo=other))
    assert [each.split(" has")[0] for each in found.wrong] == ["8bit by fit", "4bit by stock", "4bit by fit"]
    assert {each.method for each in found.fields["conversions"]} == {"fit", "stock", "calibrated"}


def test_a_quick_run_says_that_it_calibrates_nothing(tmp_path):
    found = measured("conversion", work_with(tmp_path, terms=replace(TERMS, is_quick=True)))
    assert not found.wrong
    assert [(each.name, each.state) for each in found.other] == [("calibrated conversion", "unmeasured")]


def test_a_page_that_was_not_read_is_told(tmp_path):
    found = measured("answers", work_with(tmp_path, read_demo=FULL.answers))
    assert found.wrong == ["b.pdf, page 2: fallback, 100.0% of it is wrong"]


def rounds(texts):
    return [Round(2.0, 30, 0.5, 100, texts) for _ in SETTINGS]


ALONE = ("a", "b", "c", "d", "e", "f")


def readers(tmp_path, *, server=None, is_gpu=False, engine=None):
    few = Round(9.0, 10, None, 50, ALONE[:2])
    return work_with(
        tmp_path, is_gpu=is_gpu, read_with_engine=engine or rounds(ALONE), read_with_generate=few,
        read_with_server=server or few,
    )  # fmt: skip


def test_all_readers_take_turns_forwards_and_backwards(tmp_path):
    work = readers(tmp_path)
    found = measured("reading", work)
    order = [name for name in work.apart.asked if name.startswith("read")]
    there = ["read_with_engine", "read_with_generate", "read_with_server"]
    assert order == [*there, *there[::-1], *there]
    engine, stock = found.fields["readings"][:8], found.fields["readings"][8:]
    assert [(each.at_once, each.has_drafts) for each in engine][:3] == [(1, False), (1, True), (2, False)]
    assert {(each.pages, each.same_texts, len(each.seconds)) for each in engine} == {(6, 6, 3)}
    assert [(each.reader, each.at_once, each.weights, each.same_texts) for each in stock] == [
        ("mlx_vlm.generate", 1, "bfloat16", 2),
        ("mlx_vlm.server", 2, "bfloat16", 2),
    ]
    assert not found.wrong
    assert [(each.name, each.state) for each in found.other] == [("mlx-vlm", "measured")]


def test_on_a_gpu_mlx_vlm_reads_with_the_same_weights(tmp_path):
    found = measured("reading", readers(tmp_path, is_gpu=True))
    assert {each.weights for each in found.fields["readings"]} == {"8bit"}


def test_a_reader_of_mlx_vlms_that_fails_is_not_asked_again_and_the_others_go_on(tmp_path):
    work = readers(tmp_path, server=PartFailedError("its process ended"))
    found = measured("reading", work)
    assert work.apart.asked.count("read_with_server") == 1
    assert work.apart.asked.count("read_with_generate") == 3
    assert [each.reader for each in found.fields["readings"][8:]] == ["mlx_vlm.generate"]
    assert [(each.state, each.why) for each in found.other] == [("failed", ("mlx_vlm.server: its process ended",))]


def test_as_many_pages_are_read_as_are_ever_read_at_once():
    assert max(setting.at_once for setting in SETTINGS) == PAGES


@pytest.mark.parametrize(("is_gpu", "count"), [(False, 1), (True, 0)])
def test_texts_that_differ_by_how_many_are_read_at_once_are_wrong_on_a_cpu(is_gpu, count, tmp_path):
    engine = rounds(ALONE)
    engine[-1] = replace(engine[-1], texts=(*ALONE[:5], "x"))
    found = measured("reading", readers(tmp_path, is_gpu=is_gpu, engine=engine))
    assert found.wrong == ["8 at once with drafts: 1 of 6 texts differ from those of one at a time"][:count]


def test_mlx_vlm_is_left_out_where_a_page_would_take_it_many_minutes(tmp_path):
    model = tmp_path / "large"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(300_000_000)
    work = work_with(tmp_path, terms=replace(TERMS, model=model))
    assert StockReaders(work).as_part().state == "unmeasured"
    assert StockReaders(replace(work, is_gpu=True)).names


@pytest.mark.parametrize(
    ("part", "function", "good", "changes", "word"),
    [
        ("vision", "measure_vision", FULL.vision, {"difference": 0.2}, "features differ by 20.0%"),
        ("guided", "read_guided", FULL.guidance, {"valid": 3}, "1 of 4 guided answers break the format"),
        ("growth", "measure_growth", FULL.growth, {"late_resident": 900 << 20}, "the process grew from"),
        ("growth", "measure_growth", FULL.growth, {"late_active": 900 << 20}, "MLX's arrays grew from"),
        ("serving", "serve_once", FULL.serving, {"page_right": False}, "the text of the page"),
        ("serving", "serve_once", FULL.serving, {"exit_code": -9}, "ended with status -9"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(part, function, good, changes, word, tmp_path):
    found = measured(part, work_with(tmp_path, **{function: good}))
    assert (list(found.fields.values()), list(found.wrong)) == ([good], [])
    (wrong,) = measured(part, work_with(tmp_path, **{function: replace(good, **changes)})).wrong
    assert word in wrong


def test_limits_that_are_not_in_force_or_not_kept_are_wrong(tmp_path):
    assert not measured("memory", work_with(tmp_path, measure_memory=FULL.memory)).wrong
    wired, memory, cache = FULL.memory.limits
    bad = replace(FULL.memory, limits=(replace(wired, in_force=0), memory, replace(cache, held=cache.wanted + 1)))
    first, second = measured("memory", work_with(tmp_path, measure_memory=bad)).wrong
    assert "the wired limit is 0 bytes" in first
    assert "were in use, but the cache limit is" in second


def test_pages_that_are_lost_or_read_again_are_wrong(tmp_path, monkeypatch):
    for changes, word in (
        ({"missing": 2}, "2 of 8 pages were lost"),
        ({"asked_again": 1}, "1 saved pages were read again"),
    ):
        monkeypatch.setattr(parts, "kill_and_resume", lambda *given, c=changes: replace(FULL.resumption, **c))
        (wrong,) = measured("resuming", work_with(tmp_path)).wrong
        assert word in wrong
