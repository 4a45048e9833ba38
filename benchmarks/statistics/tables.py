"""Bank Marketing and Adult as tables of an alliance: a study's file and everybody's rows."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["STUDIES", "rows", "write_members"]

BANK = """
study = "bank-statistics"
purpose = "What the members' customers look like"

[recipe]
name = "statistics"
by = "job"

[contract]
consumer_id = "consumer"
label = "y"
rows_per_consumer = 1

[contract.columns]
age = { low = 18, high = 100 }
balance = { low = -10000, high = 120000 }
day = { low = 1, high = 31 }
campaign = { low = 1, high = 63, scale = "log" }
pdays = { low = -1, high = 900, scale = "log" }
previous = { low = 0, high = 300, scale = "log" }
job = ["admin.", "blue-collar", "entrepreneur", "housemaid", "management", "retired", "self-employed", "services", "student", "technician", "unemployed", "unknown"]
marital = ["divorced", "married", "single"]
education = ["primary", "secondary", "tertiary", "unknown"]
default = ["no", "yes"]
housing = ["no", "yes"]
loan = ["no", "yes"]
contact = ["cellular", "telephone", "unknown"]
month = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
poutcome = ["failure", "other", "success", "unknown"]
"""  # noqa: E501

ADULT = """
study = "adult-statistics"
purpose = "What the members' customers look like"

[recipe]
name = "statistics"
by = "sex"

[contract]
consumer_id = "consumer"
label = "income"
rows_per_consumer = 1

[contract.columns]
age = { low = 17, high = 90 }
fnlwgt = { low = 0, high = 1500000 }
education_num = { low = 1, high = 16 }
capital_gain = { low = 0, high = 100000, scale = "log" }
capital_loss = { low = 0, high = 5000, scale = "log" }
hours_per_week = { low = 1, high = 99 }
workclass = { buckets = 32 }
education = { buckets = 32 }
marital_status = { buckets = 16 }
occupation = { buckets = 32 }
race = ["White", "Black", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other"]
sex = ["Female", "Male"]
native_country = { buckets = 128 }
"""

STUDIES = {"Bank Marketing": BANK, "Adult": ADULT}

ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week",
    "native_country", "income",
)  # fmt: skip


def rows(name: str, data: Path) -> list[dict[str, str]]:
    """A data set's rows, one consumer each, with its label as 0 or 1."""
    found = list(_bank(data) if name == "Bank Marketing" else _adult(data))
    return [{"consumer": f"c{at}"} | row for at, row in enumerate(found)]


def _bank(data: Path) -> Iterator[dict[str, str]]:
    with zipfile.ZipFile(data / "bank_marketing" / "bank_marketing_uci.zip") as outer:
        inner = zipfile.ZipFile(io.BytesIO(outer.read("bank.zip")))
    text = inner.read("bank-full.csv").decode()
    for row in csv.DictReader(io.StringIO(text), delimiter=";"):
        yield row | {"y": "1" if row["y"] == "yes" else "0"}


def _adult(data: Path) -> Iterator[dict[str, str]]:
    for part in ("data", "test"):
        with gzip.open(data / "adult" / f"adult.{part}.gz", "rt") as file:
            for line in file:
                values = [value.strip() for value in line.split(",")]
                if len(values) == len(ADULT_COLUMNS):
                    row = dict(zip(ADULT_COLUMNS, values, strict=True))
                    yield row | {"income": "1" if row["income"].startswith(">") else "0"}


def write_members(
    folder: Path, table: Sequence[dict[str, str]], sizes: Sequence[int], order: Sequence[int]
) -> list[Path]:
    """Deals consumers to members and writes each one's CSV file.

    Args:
        folder: that exists.
        table: everybody's rows.
        sizes: consumers of each member; together at most all.
        order: positions in the table, in which they are dealt.
    """
    paths, at = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"member-{number}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table[place] for place in order[at : at + size])
        paths.append(path)
        at += size
    return paths
