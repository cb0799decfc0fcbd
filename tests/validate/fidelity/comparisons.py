"""Comparisons made on the spot: no model has read their pages."""

import dataclasses

from PIL import Image, ImageDraw

from olmocr.reports.fidelity import PositionBin
from olmocr.validate.fidelity.measure import MeasuredModels, ReadPage
from olmocr.validate.fidelity.reading import PageAnswer, PageReading
from olmocr.validate.known_pages.page_set import KnownPage
from olmocr.validate.score import character_error_rate
from tests.validate.reports import page, report

FRONT = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\n"
    "is_table: False\nis_diagram: False\n---\n"
)


def reading(text, *, rejected=(), valid=True, rotation=0, front=FRONT):
    answer = PageAnswer((1, 2), front + text, "stop", rotation, False, 1.0)
    return PageReading(answer, valid, "stop", valid, 1 + len(rejected), tuple(rejected), False, 1.0)


def comparison(folder, pages, names=("4bit",), *, sizes=(), **fields):
    """Return what models made of *pages*, each given as the source's text and every model's text or reading.

    The pages' images are drawn into *folder*; *fields* are those of every report.
    """
    known = [_draw(folder, number) for number in range(len(pages))]
    read = [[each if isinstance(each, PageReading) else reading(each) for each in texts] for texts in pages]
    reports = []
    for number, name in enumerate(names, 1):
        shown = [_page(each, texts, number) for each, texts in zip(known, read, strict=True)]
        made = report(recipe=name, mean_kl=10.0**-number, pages=shown)
        bins = (PositionBin(0, 15, 16, 10.0**-number), PositionBin(16, 20, 5, 2 * 10.0**-number))
        reports.append(
            dataclasses.replace(
                made,
                model=name,
                distribution=dataclasses.replace(made.distribution, by_position=bins),
                cost=dataclasses.replace(made.cost, weight_bytes=sizes[number - 1] if sizes else number * 10**9),
                **fields,
            )
        )
    return MeasuredModels(
        tuple(reports), tuple(ReadPage(each, it[0], tuple(it[1:])) for each, it in zip(known, read, strict=True))
    )


def _draw(folder, number):
    path = folder / f"page_{number}.png"
    image = Image.new("RGB", (300, 400), "white")
    ImageDraw.Draw(image).text((20, 20), f"Page {number}", fill="black")
    image.save(path)
    return KnownPage(path, 1, truth="true text")


def _page(known, readings, number):
    source, model = readings[0], readings[number]
    text = model.greedy.natural_text
    return page(
        document=known.path.name,
        mean_kl=10.0**-number,
        identical=model.greedy.text == source.greedy.text,
        valid=model.valid,
        attempts=model.attempts,
        rejected=model.rejected,
        character_error_rate=character_error_rate(text, source.greedy.natural_text),
    )
