import asyncio
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.errors import InputError, UsageError
from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline
from olmocr.workspace.cost import PageCost, cost_lines, cost_of, read_cost
from tests.conftest import ROOT
from tests.pipeline.doubles import answer, write_numbered_pdf
from tests.rendered_here import PoolHere


def run(pages, seconds, *servers):
    return {"pages": pages, "seconds": seconds, "servers": {url: {"pages": 1} for url in servers}}


RUN = st.builds(run, st.integers(0, 10**6), st.floats(0.001, 10**6))


def test_pages_of_all_runs_count_over_the_hours_of_all_machines():
    cost = cost_of([run(100, 1800), run(20, 1800)], price_per_hour=3.0)
    assert (cost.runs, cost.pages, cost.machines, cost.machine_seconds) == (2, 120, 1, 3600)
    assert (cost.pages_per_hour, cost.per_million_pages) == (120, 25000)


def test_each_host_of_a_runs_servers_is_a_machine_however_many_servers_it_has():
    three = run(60, 600, "http://mac-1:8000/v1", "http://mac-1:8001/v1", "http://mac-2:8000/v1")
    cost = cost_of([three, run(1, 60)], price_per_hour=1)
    assert (cost.machines, cost.machine_seconds) == (2, 1260)
    assert cost_of([three], 1, machines=3).machine_seconds == 1800, "who knows better says so"


@given(st.lists(RUN, min_size=1), st.floats(0.01, 1000), st.integers(1, 1000))
def test_so_many_machines_for_one_price_cost_as_much_as_one_machine_for_so_many_prices(runs, price, machines):
    several, one = cost_of(runs, price, machines), cost_of(runs, price * machines, 1)
    assert (several.per_million_pages is None) == (sum(each["pages"] for each in runs) == 0)
    if one.per_million_pages is not None and one.machine_seconds > 1:
        assert several.per_million_pages == pytest.approx(one.per_million_pages, rel=1e-3)


@given(st.lists(RUN), st.lists(RUN))
def test_what_two_lists_of_runs_measured_adds_up(some, others):
    one, two, both = cost_of(some, 1), cost_of(others, 1), cost_of([*some, *others], 1)
    assert both.pages == one.pages + two.pages
    assert both.machine_seconds == pytest.approx(one.machine_seconds + two.machine_seconds, abs=0.01)


@pytest.mark.parametrize("runs", [[], [run(0, 0.0)], [run(0, 12.5)]])
def test_without_a_page_there_is_no_rate_and_no_price(runs):
    cost = cost_of(runs, price_per_hour=2.5)
    assert (cost.pages_per_hour, cost.per_million_pages) == (None, None)
    (line,) = cost_lines(cost)
    assert "read no pages: there is nothing to compute from" in line


def test_numbers_that_cannot_be_read_are_left_out():
    broken = [{}, {"pages": None, "seconds": 1}, {"pages": "x", "seconds": 1}, {"pages": 5}]
    odd = {"pages": 10, "seconds": 36.0, "servers": {"http://[": {}}}
    assert cost_of([*broken, odd], 1) == PageCost(1, 10, 1, 36.0, 1)


def test_what_was_measured_is_told_before_what_follows_from_it():
    assert cost_lines(cost_of([run(120, 3600)], 2.5)) == [
        "measured:  120 pages read in 1 run by 1 machine, in 1.000 machine hours, without loading",
        "cost:      120.0 pages an hour for each machine; at 2.50 an hour 20,833.33 for a million pages",
    ]
    several = cost_lines(cost_of([run(120, 3600, "http://a/v1", "http://b/v1"), run(0, 0.0)], 0))
    assert several == [
        "measured:  120 pages read in 2 runs by up to 2 machines, in 2.000 machine hours, without loading",
        "cost:      60.0 pages an hour for each machine; at 0.00 an hour 0.00 for a million pages",
    ]


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_refused(price, tmp_path):
    with pytest.raises(UsageError, match="`price_per_hour` must be what one machine costs in an hour"):
        read_cost(tmp_path, price)


def test_what_is_not_a_workspace_has_no_cost(tmp_path):
    with pytest.raises(InputError, match="is not a workspace"):
        read_cost(tmp_path, 1.0)


def test_the_table_in_the_docs_is_computed_as_the_command_computes_it():
    text = (ROOT / "docs/scale.md").read_text().partition("| machine, and what it reads |")[2].partition("\n\n")[0]
    rows = [[cell.strip().replace(",", "") for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    known = [row for row in rows if row[1]]
    assert len(known) == 6
    for _, pages, _, price, million in known:
        cost = cost_of([run(int(pages), 3600.0)], float(price))
        assert f"{cost.per_million_pages:.2f}" == million


@pytest.mark.parametrize("is_shared", [False, True])
def test_pages_that_an_earlier_run_read_are_not_counted_again(is_shared, tmp_path):
    for name in ("a.pdf", "b.pdf"):
        write_numbered_pdf(tmp_path / name, [1, 2] if name == "a.pdf" else [3])
    place = (tmp_path / "ws").as_uri() if is_shared else str(tmp_path / "ws")

    async def ask(request):
        return answer()

    def read(*names):
        config = PipelineConfig(workspace=place, pdfs=[str(tmp_path / name) for name in names], model="m")
        asyncio.run(run_pipeline(config, ask=ask, open_pool=PoolHere))
        return config.workspace

    read("a.pdf")
    read("a.pdf")
    workspace = read("a.pdf", "b.pdf")
    cost = read_cost(workspace, 1.0)
    assert (cost.runs, cost.pages) == (3, 3)
    assert cost.machine_seconds > 0
    assert json.loads(json.dumps(cost.as_json()))["per_million_pages"] == cost.per_million_pages
