"""Pictures of fidelity, as SVG."""

import re
from itertools import combinations
from xml.etree import ElementTree

from olmocr.validate.fidelity.plots import (
    Point,
    Series,
    divergence_by_page,
    divergence_by_position,
    size_against_fidelity,
    size_by_method,
)

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_whiskers_reach_as_far_as_the_interval():
    (path,) = (
        each.get("d")
        for each in ElementTree.fromstring(size_against_fidelity([Point("a", 10**9, 0.01, 0.001, 0.1)])).iter(
            f"{SVG}path"
        )
        if "series" in each.get("class")
    )
    assert path.split("V")[0].split()[1] == "344.0"  # the bottom, where 0.001 is
    assert path.split("V")[1].startswith("18.0")  # the top, where 0.1 is


def test_labels_at_one_place_do_not_lie_upon_each_other():
    points = [Point(f"model {number}", 5 * 10**9, 0.01, 0.009, 0.011) for number in range(5)]
    places = [
        (float(each.get("x")), float(each.get("y")), each.get("text-anchor"))
        for each in ElementTree.fromstring(size_against_fidelity(points)).iter(f"{SVG}text")
        if each.text.startswith("model")
    ]
    assert all(abs(a[1] - b[1]) >= 12 or a[2] != b[2] for a, b in combinations(places, 2))


def test_labels_where_lines_end_keep_their_distance():
    series = [Series(f"model {number}", (0.01, 0.01)) for number in range(12)]
    tree = ElementTree.fromstring(divergence_by_position(["0 to 15", "16 to 31"], series))
    places = [float(each.get("y")) for each in tree.iter(f"{SVG}text") if each.text.startswith("model")]
    assert min(b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) >= 14
    assert max(places) < 400


def test_a_page_that_is_the_sources_is_hollow_and_a_page_without_a_figure_is_left_out():
    svg = divergence_by_page(["a", "b", "c"], [Series("4bit", (0.1, None, 0.0), frozenset({2}))])
    titles = [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert "4bit, a: 1.00e-01 nats" in titles
    assert not [title for title in titles if ", b:" in title]
    assert svg.count('class="hollow s0"') == 1


def test_labels_are_text_and_nothing_else():
    hostile = '</text><script>alert(1)</script>"\u202e'
    for svg in (
        size_against_fidelity([Point(hostile, 10**6, 0.1, 0.1, 0.1)]),
        divergence_by_position([hostile], [Series(hostile, (0.1,))]),
        divergence_by_page([hostile], [Series(hostile, (0.1,))]),
    ):
        assert {each.tag for each in ElementTree.fromstring(svg).iter()} <= {
            SVG + tag for tag in ("svg", "title", "style", "path", "circle", "text")
        }
        assert "\u202e" not in svg


def test_sizes_are_marked_in_their_unit():
    assert "weights, MB" in texts(size_against_fidelity([Point("a", 26_000_000, 0.1, 0.1, 0.1)]))
    assert "weights, GB" in texts(size_against_fidelity([Point("a", 5 * 10**9, 0.1, 0.1, 0.1)]))


def test_a_line_for_each_method_goes_through_its_points_by_size():
    def points(factor):
        return [Point(name, nbytes, factor * kl, 0, 1) for name, nbytes, kl in (("8bit", 9, 1e-5), ("4bit", 5, 1e-2))]

    svg = size_by_method({"stock": points(1), "calibrated": points(0.3)})
    assert svg.count('class="series') == 2
    assert "4bit, calibrated: 0.003 nats" in svg
    starts = re.findall(r'class="series s\d" d="M([\d.]+) [\d.]+L([\d.]+)', svg)
    assert all(float(smaller) < float(larger) for smaller, larger in starts)
