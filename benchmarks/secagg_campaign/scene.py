"""A stage for one attack: honest members, colluders, and a coordinator that may say anything."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from benchmarks.secagg_campaign.adversary import Adversary
from benchmarks.secagg_campaign.protocol import (
    NEVER,
    Finding,
    exchange,
    make_members,
    refused,
)
from benchmarks.secagg_campaign.studies import Case, admissible, identity, noised, study
from privacy.errors import RequestRefusal
from privacy.fixedpoint import RingVector
from privacy.identity import SIGNATURE_BYTES
from privacy.secagg import Attempt, Cohort, KeySets, MaskingMember
from privacy.secagg.messages import Lists, Signatures
from privacy.terms import PrivacyTerms

__all__ = ["CASES", "OUTSIDERS", "Scene"]

CASES: Final = [case for members in range(3, 8) for case in admissible(members)]
OUTSIDERS: Final = 2
"""Members of the roster beyond the cohort."""


class Scene:
    """One study with its members in memory, c of them in the coordinator's pay.

    Args:
        rng: decides sizes and who colludes.
        kind: what members are made of; a weakened one in controls.
        dropouts: whether D must be at least 1.
        cases: to choose from.
        colluding: how many collude; c if None, more in a control.
    """

    def __init__(
        self,
        rng: random.Random,
        kind: type[MaskingMember] = MaskingMember,
        *,
        dropouts: bool = False,
        cases: list[Case] = CASES,
        colluding: Callable[[PrivacyTerms], int] | None = None,
    ) -> None:
        self.rng = rng
        self.kind = kind
        self.case = rng.choice([case for case in cases if case.dropouts or not dropouts])
        self.setup = study(self.case, outsiders=OUTSIDERS)
        roster = list(self.setup.indices.values())
        self.indices = sorted(rng.sample(roster, self.case.members))
        self.outside = [index for index in roster if index not in self.indices]
        count = colluding(self.setup.terms.privacy) if colluding else self.case.colluders
        self.colluders = frozenset(rng.sample(self.indices, count))
        self.honest = [index for index in self.indices if index not in self.colluders]
        self.members = self.made(self.indices)
        self.adversary = Adversary(self.setup, self.colluders)
        self.taken: list[str] = []
        """What honest members did that they must refuse."""
        self._pool: dict[tuple[Attempt, bytes, bytes], dict[int, bytes]] = {}
        """Signatures over lists: by attempt, cohort hash and lists, then by signer."""
        self._signed: dict[tuple[int, Attempt], Lists] = {}
        """The lists each honest member signed last."""
        self._revealed: set[tuple[int, int]] = set()

    def made(self, indices: list[int]) -> dict[int, MaskingMember]:
        """New members of this scene's kind."""
        return make_members(self.setup, indices, self.kind)

    def exchange(self, key_sets: KeySets) -> Cohort:
        """An honest key exchange among all, read by the adversary."""
        cohort = exchange(self.setup, self.members, key_sets, dict.fromkeys(self.indices, NEVER))
        self.joined(cohort, self.honest, {index: self.members[index] for index in self.colluders})
        return cohort

    def joined(
        self, cohort: Cohort, honest: list[int], colluders: Mapping[int, MaskingMember]
    ) -> None:
        """Tells the adversary who is in a cohort, and opens its colluders' memories."""
        self.adversary.knows(cohort, honest)
        for index, member in colluders.items():
            self.adversary.corrupts(index, member, cohort)

    def attempt(self, key_set: int = 1) -> Attempt:
        """An attempt with a random round, attempt and model."""
        rng = self.rng
        return Attempt(key_set, rng.randint(1, 10), rng.randint(1, 3), rng.randbytes(32))

    def contribute(self, index: int, attempt: Attempt) -> tuple[RingVector, bytes]:
        """An honest member's masked vector, which the adversary sees, and its signature."""
        vector = noised(self.plain())
        masked = vector.ring
        signature = self.members[index].mask(attempt, masked)
        self.adversary.saw_vector(index, attempt, masked, vector)
        return masked, signature

    def plain(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """A random update in grid steps."""
        limit = 1 << 20
        return np.array([self.rng.randint(-limit, limit) for _ in range(8)], dtype=np.int64)

    def must_refuse(self, what: str, ask: Callable[..., Any], *arguments: Any) -> bool:
        """Asks for what must be refused, and keeps note if it is not."""
        was_refused = refused(ask, *arguments)
        if not was_refused:
            self.taken.append(what)
        return was_refused

    # Squeezing signatures and shares out of members.

    def confirm(self, index: int, attempt: Attempt, lists: Lists) -> None:
        """Asks an honest member for its signature; the second one of an attempt is one too many."""
        cohort = self._cohort(index, attempt)
        try:
            signature = self.members[index].confirm(attempt, lists.encode())
        except RequestRefusal:
            return
        if (index, attempt) in self._signed:
            self.taken.append(f"member {index} signed two lists")
        self._signed[index, attempt] = lists
        self._pool.setdefault((attempt, cohort.hash, lists.encode()), {})[index] = signature

    def unmask(self, index: int, attempt: Attempt) -> None:
        """Asks an honest member for its shares, with all signatures there are and forged ones."""
        lists = self._signed.get((index, attempt))
        if lists is None:
            self.must_refuse("revealed without a list", self._reveal, index, attempt, b"\0\0\0\0")
            return
        genuine = self.signatures(index, attempt, lists)
        enough = len(genuine) >= self.setup.terms.privacy.threshold
        for entries in (genuine, self._padded(genuine, lists)):
            again = (index, attempt.key_set) in self._revealed
            encoded = Signatures(tuple(sorted(entries.items()))).encode()
            if refused(self._reveal, index, attempt, encoded):
                continue
            if again or not enough:
                self.taken.append(f"member {index} revealed shares it must not")
            return

    def signatures(self, index: int, attempt: Attempt, lists: Lists) -> dict[int, bytes]:
        """All genuine ones that an honest member would accept, colluders' included."""
        cohort = self._cohort(index, attempt)
        genuine = dict(self._pool.get((attempt, cohort.hash, lists.encode()), {}))
        for colluder in self.colluders & set(lists.survivors):
            genuine[colluder] = self.forge(colluder, attempt, lists, cohort)
        return genuine

    def forge(self, colluder: int, attempt: Attempt, lists: Lists, cohort: Cohort) -> bytes:
        """A colluder's signature over whatever the coordinator likes."""
        statement = self.setup.statement(
            "confirm", colluder, lists.encode(), attempt=attempt, cohort=cohort.hash
        )
        return self.setup.sign(identity(self.setup.name(colluder)), "confirm", statement)

    def _padded(self, genuine: dict[int, bytes], lists: Lists) -> dict[int, bytes]:
        """The same, its gaps filled with signatures of other lists or of nobody."""
        others = [one for pool in self._pool.values() for one in pool.values()]
        padded = dict(genuine)
        for survivor in lists.survivors:
            padded.setdefault(
                survivor,
                self.rng.choice(others) if others else self.rng.randbytes(SIGNATURE_BYTES),
            )
        return padded

    def _reveal(self, index: int, attempt: Attempt, signatures: bytes) -> None:
        said = self.members[index].unmask(attempt, signatures)
        self._revealed.add((index, attempt.key_set))
        self.adversary.saw_revealed(index, attempt, said.body)

    def reveal_at_once(self, index: int, attempt: Attempt) -> None:
        """Asks an honest member for its shares along with its contribution."""
        said = self.members[index].unmask_at_once(attempt)
        self._revealed.add((index, attempt.key_set))
        self.adversary.saw_revealed(index, attempt, said.body)

    def reveal(self, index: int, attempt: Attempt, entries: list[tuple[int, bytes]]) -> None:
        """Asks for shares with these signatures and no others."""
        self._reveal(index, attempt, Signatures(tuple(entries)).encode())

    def _cohort(self, index: int, attempt: Attempt) -> Cohort:
        cohort = self.adversary.cohorts.get((index, 1))
        for (member, _), other in self.adversary.cohorts.items():
            if member == index and attempt.key_set in other.key_sets:
                cohort = other
        if cohort is None:
            raise LookupError(f"member {index} is in no cohort")
        return cohort

    def squeeze(self, attempts: Mapping[int, Attempt], plans: Mapping[int, list[Lists]]) -> None:
        """Asks every honest member for every list of its plan, in order, and for shares after each.

        Args:
            attempts: by member, the attempt as it was told.
            plans: by member, lists to have signed.
        """
        for step in range(max(len(plan) for plan in plans.values())):
            asked = [index for index, plan in plans.items() if step < len(plan)]
            self.rng.shuffle(asked)
            for index in asked:
                self.confirm(index, attempts[index], plans[index][step])
            for index in asked:
                self.unmask(index, attempts[index])
                if self.rng.random() < 0.5:
                    self.unmask(index, attempts[index])

    def verdict(self) -> None:
        """What the whole trial must come to.

        Raises:
            Finding: if anything was revealed, or accepted that must be refused.
        """
        learned = self.adversary.revealed()
        if learned:
            raise Finding(f"{self.case}: the adversary has {learned}")
        if self.taken:
            raise Finding(f"{self.case}: {self.taken[0]}")
