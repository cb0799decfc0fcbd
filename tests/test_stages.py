"""What happens before there are pages is told as data."""

from olmocr.stages import Downloading, Loading, unwatched


def test_a_download_is_done_when_all_of_its_bytes_are_here():
    assert [Downloading("org/name", done, 10).is_done for done in (0, 9, 10, 11)] == [False, False, True, True]


def test_nobody_needs_to_watch():
    assert unwatched(Loading("model")) is None
