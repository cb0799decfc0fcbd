"""Documents are chosen: by what failed, by name, as a sample."""

import re

import pytest

from olmocr.errors import InputError
from olmocr.viewer.catalogue import Choice
from tests.viewer.sites import site, write_three
from tests.viewer.workspaces import write_record


def listed(pages):
    return [re.sub("-.*", "", a["href"].removeprefix("documents/")) for a in pages["index.html"].all("a")[1:]]


def write_mixed(workspace):
    write_three(workspace)
    write_record(workspace, ["x"], name="in/low.pdf", file="output_low.jsonl", low_coverage=[True])
    write_record(workspace, ["x"], name="in/turned.pdf", file="output_turned.jsonl", is_rotation_valid=[False])
    write_record(workspace, ["x"], name="in/own.pdf", file="output_own.jsonl", is_fallback=[True])
    write_record(workspace, ["x"], name="retried.pdf", file="output_retried.jsonl", attempts=[3])
    write_record(workspace, [], name="broken.pdf", file="broken.json", failed="why")


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(failed=True), ["broken"]),
        (Choice(poor=True), ["low", "own", "turned"]),
        (Choice(failed=True, poor=True), ["broken", "low", "own", "turned"]),
        (Choice(names=("a.pdf", "low.pdf")), ["a", "low"]),
        (Choice(names=("in/own.pdf",)), ["own"]),
        (Choice(names=("in/*",), poor=True), ["low", "own", "turned"]),
    ],
)
def test_those_that_are_chosen_are_listed_and_written(tmp_path, choice, names):
    write_mixed(tmp_path)
    pages = site(tmp_path, choice=choice)
    assert listed(pages) == names
    assert len(pages) == len(names) + 1
    assert f"{len(names)} document" in pages["index.html"].text
    assert "of 8 (" in pages["index.html"].text


def test_a_sample_is_the_same_each_time_and_a_larger_one_holds_it(tmp_path):
    for number in range(30):
        write_record(tmp_path / "ws", ["x"], name=f"{number}.pdf", file=f"output_{number}.jsonl")
    sites = iter(range(100))

    def drawn(count, seed):
        return listed(site(tmp_path / "ws", tmp_path / str(next(sites)), choice=Choice(sample=count, seed=seed)))

    assert drawn(5, 1) == drawn(5, 1)
    assert len(drawn(5, 1)) == 5
    assert set(drawn(5, 1)) < set(drawn(9, 1))
    assert drawn(5, 1) != drawn(5, 2)


def test_pages_that_are_not_chosen_this_time_stay(tmp_path):
    write_mixed(tmp_path)
    site(tmp_path)
    assert len(site(tmp_path, choice=Choice(failed=True))) == 9


def test_a_name_that_no_document_has_is_refused(tmp_path):
    write_mixed(tmp_path)
    with pytest.raises(InputError, match=r"has no document called nothing\.pdf; give its path as"):
        site(tmp_path, choice=Choice(names=("nothing.pdf",)))
    assert listed(site(tmp_path, choice=Choice(names=("b.pdf",)))) == ["b"], "the next time is not harmed"
