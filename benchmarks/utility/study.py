"""How the alliance's study is set up: the one place that chooses its settings.

Everything here is a function of what is public before the study: the contract, the consumers that
members declare, and epsilon. Rounds, sampling and the optimiser are the study's plan: what the
coordinator writes into terms whose file is silent about them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

from coordinator.study_file import PrivacyTable, StudyFile, WhoTable
from privacy.contract_table import ColumnTable, ContractTable
from privacy.terms import DataContract, RosterEntry, Terms, one_digit

__all__ = ["DELTA", "study_terms"]

DELTA: Final = 1e-5
SHARE: Final = 0.10
"""c and D as a share of the members: at least one of each where rule R1 allows it."""
BINS: Final = 16
"""Bins of equal width that a number is cut into, where there are consumers enough."""
ENOUGH: Final = 10_000
"""Declared consumers, times epsilon where that is below 1, from which on numbers are cut into bins:
with fewer, noise on more parameters, or too few consumers a bin, cost more than bins bring."""


def study_terms(
    contract: DataContract,
    consumers: Sequence[int],
    epsilon: float,
    crosses: tuple[str, ...] = (),
) -> Terms:
    """Terms of a study among members with so many consumers each.

    Args:
        contract: of what members have; the terms' own contract may bin its numbers.
        consumers: of each member, in roster order; they declare them rounded to one digit.
        epsilon: epsilon(1) of the whole study, all attempts used.
        crosses: pairs of category columns that the model reads together.

    Raises:
        ConfigurationError: if no terms follow, in one sentence with the remedy.
    """
    declared = tuple(one_digit(count) for count in consumers)
    return _terms(contract, declared, epsilon, crosses)


@functools.lru_cache(maxsize=512)
def _terms(
    contract: DataContract, declared: tuple[int, ...], epsilon: float, crosses: tuple[str, ...]
) -> Terms:
    members = len(declared)
    tenth = max(1, round(SHARE * members))
    most_dropouts = max(0, min((members - tenth - 1) // 2, members - tenth - 2))
    roster = [
        RosterEntry(
            name=f"member-{place}",
            identity=hashlib.sha256(str(place).encode()).hexdigest(),
            declared_consumers=count,
        )
        for place, count in enumerate(declared, 1)
    ]
    study = StudyFile(
        study=contract.name,
        purpose="Show what joining is worth",
        recipe={"name": "propensity", "model": "logistic", "crosses": crosses},
        privacy=PrivacyTable(epsilon=epsilon, delta=DELTA),
        who=WhoTable(cohort_size=members, colluders=tenth, dropouts=min(tenth, most_dropouts)),
        contract=_as_table(contract, BINS if sum(declared) * min(epsilon, 1) >= ENOUGH else None),
    )
    return study.terms(alliance="worth", everybody=roster)


def _as_table(contract: DataContract, bins: int | None) -> ContractTable:
    """The contract as a study's file has it, its numbers in so many bins if any."""
    columns = {
        column.name: ColumnTable(
            low=column.low or 0.0,
            high=column.high,
            scale=column.scale,
            bins=bins if column.kind == "number" else None,
            values=column.values,
            meaning=column.meaning,
        )
        for column in contract.columns
    }
    return ContractTable(
        name=contract.name,
        version=contract.version,
        consumer_id=contract.consumer_id,
        label=contract.label,
        rows_per_consumer=contract.rows_per_consumer,
        columns=columns,
    )
