import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group

from olmocr.stages import Downloading, FindingDocuments, FirstText, Loading
from olmocr.terminal.stage_view import StageView, sized, spoken

REPOSITORY = "mlx-community/olmOCR-2-7B-1025-mlx-8bit"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def drawn(view, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(Group(*view.rows()))
    return captured.get().replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()


def downloading(seconds=10.0, done=500_000_000):
    clock = Clock()
    view = StageView(clock)
    view.show(Downloading(REPOSITORY, 0, 5_650_000_000))
    clock.now = seconds
    view.show(Downloading(REPOSITORY, done, 5_650_000_000))
    return view, clock


@pytest.mark.parametrize("width", [80, 120])
def test_a_download_shows_bytes_rate_and_time_left(width):
    name, bar = drawn(downloading()[0], width)
    assert name == f"downloading {REPOSITORY}"
    assert bar.rstrip().endswith("500.0 MB of 5.7 GB  50.0 MB/s  2 min left")
    assert bar.startswith("━")
    assert len(bar) <= width


def test_in_a_log_a_download_is_one_line():
    assert downloading()[0].line() == (f"downloading {REPOSITORY}: 500.0 MB of 5.7 GB, 50.0 MB/s, 2 min left")


def test_nothing_is_said_of_a_rate_before_it_can_be_measured():
    assert downloading(seconds=0.5)[0].line() == f"downloading {REPOSITORY}: 500.0 MB of 5.7 GB"
    assert downloading(done=0)[0].line() == f"downloading {REPOSITORY}: 0 bytes of 5.7 GB"


def test_the_rate_is_that_of_the_last_seconds():
    view, clock = downloading(seconds=10, done=5_000_000_000)
    clock.now = 1000
    view.show(Downloading(REPOSITORY, 5_000_000_000, 5_650_000_000))
    clock.now = 1010
    view.show(Downloading(REPOSITORY, 5_010_000_000, 5_650_000_000))
    assert "1.0 MB/s" in view.line()


def test_what_was_downloaded_is_told_when_it_is_there():
    view, _ = downloading()
    assert view.show(Downloading(REPOSITORY, 9, 9)) == f"downloaded {REPOSITORY}: 9 bytes in 10 s"
    assert (view.line(), drawn(view, 80)) == ("", [])


def test_each_stage_has_its_line():
    view = StageView(Clock())
    view.show(FindingDocuments(12_345))
    assert view.line() == "finding documents: 12,345 so far"
    view.show(Loading("a\x1b[2J"))
    assert view.line() == "loading a\\x1b[2J: 0 s"
    view.show(FirstText(""))
    assert view.line() == "reading the first page: 0 s"


def test_of_the_first_page_the_end_of_its_text_is_shown_and_no_front_matter():
    view = StageView(Clock())
    front = "---\nprimary_language: en\n"
    view.show(FirstText(front))
    assert "language" not in drawn(view, 80)[1]
    view.show(FirstText(f"{front}---\n{'One two. ' * 30}The\nend\x1b[2J"))
    assert drawn(view, 80)[1].endswith("One two. The end\\x1b[2J")
    assert len(drawn(view, 80)[1]) == 80


@given(st.text(max_size=300), st.integers(20, 130))
def test_whatever_a_page_says_takes_one_row(text, width):
    view = StageView(Clock())
    view.show(FirstText(f"---\na: b\n---\n{text}"))
    assert len(drawn(view, width)) == 2


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (7200, "2.0 h")]
)
def test_a_time_is_told_as_a_person_would(seconds, told):
    assert spoken(seconds) == told


def test_sizes_have_the_unit_that_suits():
    assert [sized(each) for each in (9, 1200, 26_100_000, 5_650_000_000)] == ["9 bytes", "1.2 kB", "26.1 MB", "5.7 GB"]


def test_a_model_for_which_kernels_are_compiled_says_so_and_that_it_happens_once():
    view = StageView(clock=lambda: 0.0)
    view.show(Loading("m"))
    view.show(Loading("m", kernels=3))
    assert view.line().endswith("compiling kernels for this GPU, once: 3 so far")
