"""How the alliance's study is set up: the one place that chooses its settings.

Everything here is a function of what is public before the study: the contract, the consumers that
members declare, and epsilon. Nothing is tried on the data.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

from coordinator.study_file import PrivacyTable, StudyFile, WhoTable
from privacy.contract_table import ColumnTable, ContractTable
from privacy.terms import DataContract, RosterEntry, Terms, one_digit

__all__ = ["DELTA", "study_contract", "study_terms"]

DELTA: Final = 1e-5
SHARE: Final = 0.10
"""c and D as a share of the members: at least one of each where rule R1 allows it."""
ROUNDS: Final = 80
LEARNING_RATE: Final = 3.0


def study_contract(contract: DataContract) -> DataContract:
    """The contract that the study runs under: the same columns, as its model reads them."""
    return contract


def study_terms(contract: DataContract, consumers: Sequence[int], epsilon: float) -> Terms:
    """Terms of a study among members with so many consumers each.

    Args:
        contract: from `study_contract`.
        consumers: of each member, in roster order; they declare them rounded to one digit.
        epsilon: epsilon(1) of the whole study, all attempts used.

    Raises:
        ConfigurationError: if no terms follow, in one sentence with the remedy.
    """
    return _terms(contract, tuple(one_digit(count) for count in consumers), epsilon)


@functools.lru_cache(maxsize=512)
def _terms(contract: DataContract, declared: tuple[int, ...], epsilon: float) -> Terms:
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
        rounds=ROUNDS,
        recipe={
            "name": "propensity",
            "model": "logistic",
            "optimizer": "sgd",
            "learning_rate": LEARNING_RATE,
            "momentum": 0.9,
            "average_from": ROUNDS // 2,
        },
        privacy=PrivacyTable(
            epsilon=epsilon,
            delta=DELTA,
            clipping_norm=1.0,
            sampling_probability=1.0,
            spare_attempts=2,
        ),
        who=WhoTable(cohort_size=members, colluders=tenth, dropouts=min(tenth, most_dropouts)),
        contract=_as_table(contract),
    )
    return study.terms(alliance="worth", everybody=roster)


def _as_table(contract: DataContract) -> ContractTable:
    """The contract as a study's file has it."""
    columns = {
        column.name: ColumnTable(
            low=column.low or 0.0,
            high=column.high,
            scale=column.scale,
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
