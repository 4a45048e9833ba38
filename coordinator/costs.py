"""What a study costs, worked out once and kept: a coordinator that starts again has it at once.

Nothing depends on what is kept here but what this coordinator tells of a study: members and
auditors work epsilon out for themselves.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
from pathlib import Path
from typing import Final, Self

from pydantic import ConfigDict, ValidationError

from privacy.documents import StrictModel
from privacy.terms import Terms

__all__ = ["Costs", "kept_costs"]

POINTS: Final = 64


class Costs(StrictModel):
    """Epsilon of one study.

    Args:
        software: that worked it out.
        profile: by m, how many members know a consumer: epsilon(m) of all attempts.
        local_profile: the same of what single members send, against whoever breaks masks.
        spent: epsilon(1) after 0, 1, ... attempts.
    """

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    software: str
    profile: dict[int, float]
    local_profile: dict[int, float]
    spent: tuple[float, ...]

    @classmethod
    def of(cls, terms: Terms) -> Self:
        """Works them out, which takes seconds.

        Long studies are worked out at 64 points; between them stands the next point's, which is
        more.
        """
        from privacy.accounting import Accountant

        accountant = Accountant(terms)
        projection = accountant.projection()
        most = terms.privacy.max_attempts
        points = sorted({math.ceil(most * part / POINTS) for part in range(POINTS + 1)})
        at = {point: accountant.epsilon(attempts=point) for point in points}
        spent = (at[next(point for point in points if point >= n)] for n in range(most + 1))
        return cls(
            software=_software(),
            profile=dict(projection.profile),
            local_profile=dict(projection.local_profile),
            spent=tuple(spent),
        )


def kept_costs(terms: Terms, folder: Path) -> Costs:
    """The costs of a study, from a file in ``folder`` if this version of the software wrote it."""
    path = folder / f"{terms.hash}.json"
    with contextlib.suppress(OSError, ValidationError):
        kept = Costs.model_validate_json(path.read_bytes())
        if kept.software == _software() and len(kept.spent) == terms.privacy.max_attempts + 1:
            return kept
    costs = Costs.of(terms)
    with contextlib.suppress(OSError):  # the next start works them out again
        folder.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(costs.model_dump_json())
        partial.replace(path)
    return costs


def _software() -> str:
    return f"alliance {importlib.metadata.version('alliance')}"
