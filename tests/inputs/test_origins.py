"""A place has one key, and a name is kept as it was given."""

from olmocr.inputs.sources import find_sources
from tests.inputs.documents import write
from tests.pipeline.doubles import write_image


def test_a_name_is_kept_as_it_was_given_and_a_place_has_one_key(here):
    write(here / "a.pdf")
    write_image(here / "b.png")
    assert [source.name for source in find_sources(["./b.png", str(here / "a.pdf")])] == [
        "./b.png",
        str(here / "a.pdf"),
    ]
