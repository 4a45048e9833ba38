"""Four public data sets under data contracts. Ranges are declared, never taken from the data.

Every range is what the documentation of the data set says, or a round number of common sense; what
lies beyond is capped when the table is made, as a member would. Files are read in place.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.utility.tables import Table, through_the_door
from privacy.contract_table import ColumnTable, ContractTable
from privacy.terms import DataContract

__all__ = ["DATASETS", "adult", "bank", "credit", "retail"]

Columns = Mapping[str, ColumnTable]

CUT: Final = pd.Timestamp("2011-09-10")
"""Online Retail: features end here, and the 90 days of the label begin."""
WINDOW: Final = pd.Timedelta(days=90)


def _number(high: float, *, low: float = 0.0, log: bool = False, meaning: str = "") -> ColumnTable:
    return ColumnTable(low=low, high=high, scale="log" if log else "linear", meaning=meaning)


def _category(*values: str, meaning: str = "") -> ColumnTable:
    return ColumnTable(values=values, meaning=meaning)


def _contract(name: str, consumer_id: str, label: str, columns: Columns) -> DataContract:
    table = ContractTable(
        consumer_id=consumer_id, label=label, rows_per_consumer=1, columns=dict(columns)
    )
    return table.contract(name)


def _capped(frame: pd.DataFrame, contract: DataContract) -> pd.DataFrame:
    """The contract's columns, numbers capped to their declared ranges."""
    columns = [contract.consumer_id, contract.label, *(column.name for column in contract.columns)]
    capped = frame[columns].copy()
    for column in contract.numbers:
        capped[column.name] = capped[column.name].astype(float).clip(column.low, column.high)
    return capped


def _table(
    name: str,
    frame: pd.DataFrame,
    contract: DataContract,
    groups: tuple[str, ...],
    *,
    test: npt.NDArray[np.bool_] | None = None,
    members: npt.NDArray[np.str_] | None = None,
    crosses: tuple[str, ...] = (),
) -> Table:
    """The table of a frame that has the contract's columns and those of ``groups``."""
    capped = _capped(frame, contract)
    return Table(
        name=name,
        frame=capped,
        data=through_the_door(capped, contract),
        groups={group: frame[group].astype(str).to_numpy(dtype=np.str_) for group in groups},
        test=test,
        members=members,
        crosses=crosses,
    )


def _decades(ages: pd.Series) -> pd.Series:
    """Age groups: below 30, 30s, 40s, 50s, 60 and above."""
    names = ["below 30", "30 to 39", "40 to 49", "50 to 59", "60 and above"]
    return pd.cut(ages, [-np.inf, 30, 40, 50, 60, np.inf], right=False, labels=names).astype(str)


def bank(data: Path) -> Table:
    """Bank Marketing (UCI 222), bank-full.csv, without ``duration``: it is known after the call."""
    with zipfile.ZipFile(data / "bank_marketing" / "bank_marketing_uci.zip") as outer:
        inner = zipfile.ZipFile(io.BytesIO(outer.read("bank.zip")))
        frame = pd.read_csv(io.BytesIO(inner.read("bank-full.csv")), sep=";")
    months = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    frame["customer"] = frame.index
    frame["subscribed"] = (frame["y"] == "yes").astype(int)
    frame["overdrawn"] = np.where(frame["balance"] < 0, "yes", "no")
    # Never contacted before is as long ago as it gets; poutcome "unknown" marks it too.
    frame["since_contact"] = frame["pdays"].where(frame["pdays"] >= 0, 1000)
    yes_no = _category("no", "yes")
    columns = {
        "age": _number(100, low=18),
        "job": _category(
            "admin.", "unknown", "unemployed", "management", "housemaid", "entrepreneur",
            "student", "blue-collar", "self-employed", "retired", "technician", "services",
        ),
        "marital": _category("married", "divorced", "single"),
        "education": _category("unknown", "secondary", "primary", "tertiary"),
        "default": yes_no,
        "balance": _number(100_000, log=True, meaning="euros; overdrawn counts as 0"),
        "overdrawn": yes_no,
        "housing": yes_no,
        "loan": yes_no,
        "contact": _category("unknown", "telephone", "cellular"),
        "day": _number(31, low=1),
        "month": _category(*months),
        "campaign": _number(50, low=1, log=True),
        "since_contact": _number(1000, log=True, meaning="days; 1000 if never contacted before"),
        "previous": _number(50, log=True),
        "poutcome": _category("unknown", "other", "failure", "success"),
    }  # fmt: skip
    contract = _contract("bank", "customer", "subscribed", columns)
    frame["age_group"] = _decades(frame["age"])
    return _table(
        "Bank Marketing",
        frame,
        contract,
        ("age_group", "job", "marital"),
        # Campaigns are runs of calls in time, each with its own offer.
        crosses=("month*poutcome", "month*contact", "housing*month"),
    )


_ADULT_COLUMNS: Final = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours", "country", "income",
)  # fmt: skip


def adult(data: Path) -> Table:
    """Adult (UCI 2), official split; the sampling weight ``fnlwgt`` is no feature."""
    folder = data / "adult"
    read = {"header": None, "names": list(_ADULT_COLUMNS), "skipinitialspace": True}
    training = pd.read_csv(folder / "adult.data.gz", **read)  # type: ignore[call-overload]
    test = pd.read_csv(folder / "adult.test.gz", skiprows=1, **read)  # type: ignore[call-overload]
    frame = pd.concat([training, test], ignore_index=True)
    frame["person"] = frame.index
    frame["above_50k"] = frame["income"].str.startswith(">50K").astype(int)
    frame["country"] = frame["country"].where(
        frame["country"].isin(["United-States", "Mexico", "?"]), "other"
    )
    columns = {
        "age": _number(90, low=17, meaning="years; the survey's extract begins at 17"),
        "workclass": _category(
            "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov",
            "Without-pay", "Never-worked", "?",
        ),
        "education_num": _number(16, low=1),
        "marital_status": _category(
            "Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed",
            "Married-spouse-absent", "Married-AF-spouse",
        ),
        "occupation": _category(
            "Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial",
            "Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical",
            "Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv",
            "Armed-Forces", "?",
        ),
        "relationship": _category(
            "Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"
        ),
        "race": _category(
            "White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"
        ),
        "sex": _category("Female", "Male"),
        "capital_gain": _number(99_999, log=True),
        "capital_loss": _number(5000, log=True),
        "hours": _number(99, low=1),
        "country": _category("United-States", "Mexico", "other", "?"),
    }  # fmt: skip
    contract = _contract("adult", "person", "above_50k", columns)
    frame["age_group"] = _decades(frame["age"])
    held_out = np.arange(len(frame)) >= len(training)
    return _table(
        "Adult",
        frame,
        contract,
        ("age_group", "sex", "race"),
        test=held_out,
        crosses=("relationship*sex",),  # what work earns depends on the household
    )


_FATE_PARTS: Final = {"guest": "guest", "host-1": "host_1", "host-2": "host_2", "test": "test"}


def credit(data: Path) -> Table:
    """Default of Credit Card Clients (UCI 350), members and test as FATE publishes them.

    FATE's horizontal split gives three members of 8,000 clients and a test of 6,000, by id. Its
    columns are standardised by means of the data, so the values come from the original file.
    """
    folder = data / "default_credit_fate"
    frame = pd.read_csv(folder / "UCI_Credit_Card.csv.gz")
    frame.columns = [name.lower() for name in frame.columns]
    frame = frame.rename(columns={"default.payment.next.month": "defaulted", "id": "client"})
    owner = {}
    for name, part in _FATE_PARTS.items():
        ids = pd.read_csv(folder / f"default_credit_homo_{part}.csv.gz", usecols=["id"])["id"]
        owner.update(dict.fromkeys(ids.tolist(), name))
    frame["member"] = frame["client"].map(owner)
    frame = frame[frame["member"].notna()].reset_index(drop=True)
    late = ("-2", "-1", "0", "1", "2", "3 or more")
    columns: dict[str, ColumnTable] = {
        "limit_bal": _number(1_000_000, log=True, meaning="NT dollars"),
        "sex": _category("1", "2"),
        "education": _category("1", "2", "3", "other"),
        "marriage": _category("1", "2", "other"),
        "age": _number(100, low=18),
    }
    frame["education"] = frame["education"].astype(str).where(frame["education"].isin([1, 2, 3]),
                                                              "other")  # fmt: skip
    frame["marriage"] = frame["marriage"].astype(str).where(frame["marriage"].isin([1, 2]), "other")
    frame["sex"] = frame["sex"].astype(str)
    for month in (0, 2, 3, 4, 5, 6):
        name = f"pay_{month}"
        columns[name] = _category(*late, meaning="months late; below 1 not late")
        frame[name] = frame[name].astype(str).where(frame[name] < 3, late[-1])
    for kind in ("bill_amt", "pay_amt"):
        for month in range(1, 7):
            columns[f"{kind}{month}"] = _number(1_000_000, log=True, meaning="NT dollars")
    contract = _contract("credit", "client", "defaulted", columns)
    frame["age_group"] = _decades(frame["age"])
    return _table(
        "Default of Credit Card Clients",
        frame,
        contract,
        ("age_group", "sex"),
        test=(frame["member"] == "test").to_numpy(),
        members=frame["member"].to_numpy(dtype=np.str_),
        crosses=("pay_0*pay_2", "pay_0*pay_3"),  # a delay counts otherwise if there was one before
    )


def retail(data: Path) -> Table:
    """Online Retail (UCI 352): who buys again within 90 days after 2011-09-10.

    One row is one customer who bought before that day; features are of the time before it.
    """
    lines = pd.read_parquet(data / "online_retail" / "online_retail.parquet")
    lines = lines[lines["CustomerID"].notna()]
    cancelled = lines["InvoiceNo"].str.startswith("C")
    bought = lines[~cancelled & (lines["Quantity"] > 0)]
    before = bought[bought["InvoiceDate"] < CUT]
    after = bought[(bought["InvoiceDate"] >= CUT) & (bought["InvoiceDate"] < CUT + WINDOW)]
    by = before.assign(spend=before["Quantity"] * before["UnitPrice"]).groupby("CustomerID")
    frame = pd.DataFrame(
        {
            "spend": by["spend"].sum(),
            "orders": by["InvoiceNo"].nunique(),
            "products": by["StockCode"].nunique(),
            "recency": (CUT - by["InvoiceDate"].max()).dt.days,
            "tenure": (CUT - by["InvoiceDate"].min()).dt.days,
            "country": by["Country"].first(),
        }
    )
    recent = before[before["InvoiceDate"] >= CUT - WINDOW].groupby("CustomerID")["InvoiceNo"]
    frame["recent_orders"] = recent.nunique()
    returned = lines[cancelled & (lines["InvoiceDate"] < CUT)].groupby("CustomerID")["InvoiceNo"]
    frame["returns"] = returned.nunique()
    frame = frame.fillna({"recent_orders": 0, "returns": 0})
    frame["united_kingdom"] = np.where(frame["country"] == "United Kingdom", "yes", "no")
    frame["bought"] = frame.index.isin(after["CustomerID"]).astype(int)
    frame = frame.rename_axis("customer").reset_index()
    columns = {
        "spend": _number(100_000, log=True, meaning="pounds"),
        "orders": _number(100, log=True),
        "products": _number(1000, log=True),
        "recency": _number(365, meaning="days since the last order"),
        "tenure": _number(365, meaning="days since the first order"),
        "recent_orders": _number(50, log=True, meaning="in the last 90 days"),
        "returns": _number(50, log=True),
        "united_kingdom": _category("no", "yes"),
    }
    contract = _contract("retail", "customer", "bought", columns)
    return _table("Online Retail", frame, contract, ("united_kingdom",))


DATASETS: Final[Mapping[str, Callable[[Path], Table]]] = {
    "bank": bank,
    "adult": adult,
    "credit": credit,
    "retail": retail,
}
"""By the names that ``--only`` takes."""
