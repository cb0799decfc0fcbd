import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.errors import InputError
from olmocr.inputs.sources import find_sources
from olmocr.rendering.render import open_document
from olmocr.runtime.extras import install_command
from tests.rendering.hard_files import HARD_FILES


def ends(path, longest_side=1288):
    """Return how a file ends: its number of pages, the first one's image and its text; or a sentence."""
    try:
        with open_document(path, str(path)) as pages:
            images = [pages.render(number, longest_side).pixels for number in range(1, pages.page_count + 1)]
            return pages.page_count, images[0], pages.text(1)
    except InputError as error:
        return str(error), None, None


@pytest.mark.parametrize("name", HARD_FILES)
def test_every_hard_file_ends_as_pages_or_as_a_sentence(name, tmp_path):
    hard = HARD_FILES[name]
    outcome, image, text = ends(hard.write(tmp_path, name))
    if isinstance(hard.outcome, str):
        assert hard.outcome in outcome
        assert not outcome.startswith(("Traceback", "page 1 is"))
    else:
        assert outcome == hard.outcome
        assert image.mode == "RGB"
        assert hard.size is None or image.size == hard.size
        assert hard.text is None or hard.text in text


def test_there_are_forty_and_more():
    assert len(HARD_FILES) >= 40


def test_a_folder_of_them_is_found_whole(tmp_path):
    written = {str(hard.write(tmp_path, name)) for name, hard in HARD_FILES.items()}
    assert {source.name for source in find_sources([str(tmp_path)])} == written


def dark_share(image, box):
    """Return which part of *box* (fractions of the page) is dark."""
    width, height = image.size
    left, top, right, bottom = box
    part = image.convert("L").crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
    return sum(part.histogram()[:160]) / (part.width * part.height)


CORNER = {"top left": (0.02, 0.02, 0.12, 0.12), "bottom right": (0.88, 0.88, 0.98, 0.98)}


@pytest.mark.parametrize(
    "name",
    [
        "1-bit.png",
        "16-bit.png",
        "cmyk.jpg",
        "cmyk-adobe.jpg",
        "grey-transparent.png",
        "transparent.png",
        "fax.tif",
        "animated.webp",
        "plain.gif",
        "plain.bmp",
    ],
)
def test_ink_is_dark_and_paper_light_in_every_kind_of_picture(name, tmp_path):
    _, image, _ = ends(HARD_FILES[name].write(tmp_path, name))
    assert dark_share(image, CORNER["top left"]) > 0.95
    assert dark_share(image, CORNER["bottom right"]) < 0.05


@pytest.mark.parametrize(("name", "corner"), [("scan-1-bit.pdf", 0.95), ("scan-cmyk.pdf", 0.95)])
def test_ink_is_dark_and_paper_light_in_every_kind_of_scan(name, corner, tmp_path):
    _, image, _ = ends(HARD_FILES[name].write(tmp_path, name))
    assert dark_share(image, (0.06, 0.06, 0.12, 0.12)) > corner
    assert dark_share(image, (0.80, 0.80, 0.90, 0.90)) < 0.05


@pytest.mark.parametrize(
    ("orientation", "dark"),
    [(2, "tr"), (3, "br"), (4, "bl"), (5, "tl"), (6, "tr"), (7, "br"), (8, "bl")],
)
def test_a_photo_is_turned_and_mirrored_as_its_camera_says(orientation, dark, tmp_path):
    name = f"photo-turned-{orientation}.jpg"
    _, image, _ = ends(HARD_FILES[name].write(tmp_path, name))
    corners = {
        "tl": (0.02, 0.02, 0.12, 0.12),
        "tr": (0.88, 0.02, 0.98, 0.12),
        "bl": (0.02, 0.88, 0.12, 0.98),
        "br": (0.88, 0.88, 0.98, 0.98),
    }
    assert [corner for corner, box in corners.items() if dark_share(image, box) > 0.9] == [dark]


def test_the_whole_media_box_is_seen_wherever_a_crop_box_stands(tmp_path):
    _, whole, _ = ends(HARD_FILES["media-reversed.pdf"].write(tmp_path, "whole.pdf"))
    for name in ("cropped.pdf", "cropped-above.pdf", "cropped-beyond.pdf", "cropped-outside.pdf"):
        _, image, _ = ends(HARD_FILES[name].write(tmp_path, name))
        assert image.tobytes() == whole.tobytes(), name


def test_a_layer_that_is_switched_off_is_not_drawn(tmp_path):
    _, image, _ = ends(HARD_FILES["layers.pdf"].write(tmp_path, "a.pdf"))
    assert dark_share(image, (0.15, 0.44, 0.6, 0.50)) > 0.05, "the one that is on"
    assert dark_share(image, (0.15, 0.57, 0.6, 0.63)) == 0, "the one that is off"


@pytest.mark.parametrize("name", ["form.pdf", "form-without-look.pdf"])
def test_what_was_filled_in_is_drawn_with_or_without_a_look_of_its_own(name, tmp_path):
    _, image, _ = ends(HARD_FILES[name].write(tmp_path, name))
    assert dark_share(image, (0.16, 0.42, 0.5, 0.49)) > 0.05


def test_every_frame_of_a_tiff_is_a_page_of_its_own_size(tmp_path):
    path = HARD_FILES["frames.tif"].write(tmp_path, "a.tif")
    with open_document(path, "a.tif") as pages:
        widths = [pages.render(number, 400).pixels.width for number in (1, 2, 3, 2)]
    assert widths == [300, 320, 340, 320]


def test_a_page_of_a_picture_that_is_damaged_is_named(tmp_path):
    path = HARD_FILES["frames.tif"].write(tmp_path, "a.tif")
    path.write_bytes(re.sub(rb"II\*\0", b"II*\0", path.read_bytes())[:-200_000])
    assert re.search(r"damaged picture", ends(path)[0])


@pytest.mark.parametrize("name", ["frames.tif", "fax.tif", "palette.png", "photo-turned-6.jpg", "animated.webp"])
@settings(max_examples=30)
@given(data=st.data())
def test_a_picture_with_any_bytes_changed_or_lost_is_read_or_refused(name, data, tmp_path_factory):
    path = HARD_FILES[name].write(tmp_path_factory.mktemp("changed"), name)
    changed = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, min(len(changed), 3000) - 1), max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed)
    outcome, image, _ = ends(path, 300)
    assert image is not None or str(path) in outcome


def test_a_picture_of_a_telephone_is_refused_with_the_extra_that_it_needs(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    code = (
        "import sys; from pathlib import Path; from olmocr.rendering.render import open_document; "
        "sys.modules['pillow_heif'] = None\n"
        f"with open_document(Path({str(tmp_path / 'a.heic')!r}), 'a.heic'): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: a.heic is an HEIC picture, which needs an extra: " + install_command("heic") in done.stderr


def test_a_picture_of_a_telephone_is_read_where_its_extra_is_there(tmp_path):
    pytest.importorskip("pillow_heif")
    from tests.rendering.hard_files import heic

    (tmp_path / "a.pdf").write_bytes(heic())
    outcome, image, _ = ends(tmp_path / "a.pdf")
    assert (outcome, image.size) == (1, (966, 1288))
    assert dark_share(image, CORNER["top left"]) > 0.95
