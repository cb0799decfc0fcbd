"""What runs measured, and what a machine costs in an hour -> pages an hour, and what a million pages cost."""

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
    """What a workspace's runs measured, and what follows from it for a price.

    Measured are *pages* that were read, not those that were found read, in so many *runs*, and *machine_seconds*: the
    seconds that each run spent on pages, times its machines, of which the largest run had *machines*. Loading a model
    is not in them. *price_per_hour* is that of one machine, in any currency. *pages_per_hour* are those of one machine.
    It and *per_million_pages* are None where no run has read a page.
    """

    runs: int
    pages: int
    machines: int
    machine_seconds: float
    price_per_hour: float

    @property
    def pages_per_hour(self) -> float | None:
        """Pages that one machine reads in an hour."""
        return self.pages / self.machine_seconds * _HOUR if self.pages and self.machine_seconds else None

    @property
    def per_million_pages(self) -> float | None:
        """What a million pages cost, in the currency of the price."""
        rate = self.pages_per_hour
        return None if rate is None else _MILLION / rate * self.price_per_hour

    def as_json(self) -> dict[str, Any]:
        """Return all of it by name."""
        more = {"pages_per_hour": self.pages_per_hour, "per_million_pages": self.per_million_pages}
        return {**vars(self), **more}


def read_cost(workspace: Path | StorePlace, price_per_hour: float, machines: int | None = None) -> PageCost:
    """Compute what *workspace* cost by the numbers that its runs left there.

    Raises:
        InputError: it is no workspace.
        OutputError: its records cannot be opened.
        UsageError: *price_per_hour* is no price.
    """
    require_price(price_per_hour)
    with memory_to_read(workspace) as records:
        return cost_of(records.runs(), price_per_hour, machines)


def require_price(price_per_hour: float) -> None:
    """See to it that a price is one.

    Raises:
        UsageError: it is not.
    """
    if not math.isfinite(price_per_hour) or price_per_hour < 0:
        raise UsageError(
            f"`price_per_hour` must be what one machine costs in an hour, such as 2.50, not {price_per_hour:g}"
        )


def cost_of(runs: Iterable[Mapping[str, Any]], price_per_hour: float, machines: int | None = None) -> PageCost:
    """Return what *runs* cost that left these numbers, as a workspace keeps them; what cannot be read is left out.

    A run had as many machines as its servers have names of hosts, or one, unless *machines* says how many each had.
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
    """Return *cost* as a person reads it: what was measured, then what follows."""
    rate, price = cost.pages_per_hour, cost.per_million_pages
    runs = f"{cost.runs} run" if cost.runs == 1 else f"{cost.runs} runs"
    if rate is None or price is None:
        return [
            f"cost:      {runs} of this workspace left numbers, and read no page: there is nothing to compute it from"
        ]
    machines = "1 machine" if cost.machines == 1 else f"up to {cost.machines} machines"
    return [
        f"measured:  {cost.pages} pages read in {runs} by {machines}, in {cost.machine_seconds / _HOUR:.3f} hours of a "
        "machine without loading",
        f"cost:      {rate:,.1f} pages an hour for each machine; at {cost.price_per_hour:,.2f} an hour "
        f"{price:,.2f} for a million pages",
    ]
