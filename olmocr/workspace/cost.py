"""What runs measured, and what a machine costs per hour -> pages per hour, and the cost of a million pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from olmocr.errors import UsageError
from olmocr.workspace.objects.place import StorePlace
from olmocr.workspace.opening import memory_to_read

_MILLION = 1_000_000
_HOUR = 3600.0


@dataclass(frozen=True)
class PageCost:
    """What a workspace's runs measured, and what a price makes of it.

    *pages* counts the pages that the *runs* read, not those that they found already read. *machine_seconds* is the time
    that each run spent on pages, times its machines; the largest run had *machines* of them. Loading a model is not
    included. *price_per_hour* is the price of one machine, in any currency. *pages_per_hour*, for one machine, and
    *per_million_pages* are None if no run has read a page.
    """

    runs: int
    pages: int
    machines: int
    machine_seconds: float
    price_per_hour: float

    @property
    def pages_per_hour(self) -> float | None:
        """The pages that one machine reads in an hour."""
        return self.pages / self.machine_seconds * _HOUR if self.pages and self.machine_seconds else None

    @property
    def per_million_pages(self) -> float | None:
        """The cost of a million pages, in the currency of the price."""
        rate = self.pages_per_hour
        return None if rate is None else _MILLION / rate * self.price_per_hour

    def as_json(self) -> dict[str, Any]:
        """Return all values by name."""
        more = {"pages_per_hour": self.pages_per_hour, "per_million_pages": self.per_million_pages}
        return {**vars(self), **more}


def read_cost(workspace: Path | StorePlace, price_per_hour: float, machines: int | None = None) -> PageCost:
    """Compute the cost of *workspace* from the numbers that its runs left there.

    Raises:
        InputError: it is not a workspace.
        OutputError: its records cannot be opened.
        UsageError: *price_per_hour* is not a price.
    """
    require_price(price_per_hour)
    with memory_to_read(workspace) as records:
        return cost_of(records.runs(), price_per_hour, machines)


def require_price(price_per_hour: float) -> None:
    """Check that a price is valid.

    Raises:
        UsageError: it is not.
    """
    if not math.isfinite(price_per_hour) or price_per_hour < 0:
        raise UsageError(
            f"`price_per_hour` must be what one machine costs in an hour, such as 2.50, not {price_per_hour:g}"
        )


def cost_of(runs: Iterable[Mapping[str, Any]], price_per_hour: float, machines: int | None = None) -> PageCost:
    """Return the cost of the *runs* that left these numbers in a workspace; numbers that cannot be read are left out.

    A run had as many machines as its servers have host names, or one, unless *machines* gives the number for each.
    """
    count = pages = most = 0
    seconds = 0.0
    for run in runs:
        try:
            run_pages, run_seconds = int(run["pages"]), float(run["seconds"])
        except (KeyError, TypeError, ValueError):
            continue
        had = machines or _machines(run.get("servers"))
        count, pages, most = count + 1, pages + run_pages, max(most, had)
        seconds += run_seconds * had
    return PageCost(count, pages, most, round(seconds, 3), price_per_hour)


def _machines(servers: object) -> int:
    if not isinstance(servers, Mapping):
        return 1
    return max(1, len({_host(str(url)) for url in servers}))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def cost_lines(cost: PageCost) -> list[str]:
    """Return *cost* as text for people: what was measured, then what follows."""
    rate, price = cost.pages_per_hour, cost.per_million_pages
    runs = f"{cost.runs} run" if cost.runs == 1 else f"{cost.runs} runs"
    if rate is None or price is None:
        return [f"cost:      {runs} of this workspace left numbers but read no pages: there is nothing to compute from"]
    machines = "1 machine" if cost.machines == 1 else f"up to {cost.machines} machines"
    return [
        f"measured:  {cost.pages} pages read in {runs} by {machines}, in {cost.machine_seconds / _HOUR:.3f} "
        "machine hours, without loading",
        f"cost:      {rate:,.1f} pages an hour for each machine; at {cost.price_per_hour:,.2f} an hour "
        f"{price:,.2f} for a million pages",
    ]
