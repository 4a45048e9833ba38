"""One attempt at a private sum, as a state machine without I/O.

Rules it enforces, numbered as in the code:
 (1) only members of the cohort contribute, each once;
 (2) an announced contribution has exactly the agreed dtype and shape, before a byte is taken;
 (3) array bytes come only after the member was cleared, in order, without gap or overlap, in
     chunks that are not needlessly small;
 (4) whatever a member sent of an unfinished contribution is taken back when it drops;
 (5) nothing is summed up below N - D contributions, and after the close nothing is added;
 (6) a masked contribution counts once its signature holds over the bytes that arrived.

States: COLLECTING -> CLOSED -> RELEASED, or COLLECTING -> FAILED. Secure aggregation stands between
CLOSED and RELEASED: the survivors confirm who is in the sum and reveal what removes the masks from
it (`privacy.secagg.Unmasking`). Until then the sum held here is noise to everybody.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.errors import MemberFault, RoundFailed
from privacy.fixedpoint import Grid, RingVector, add_in_place, decode
from privacy.secagg import Signed, Unmasking
from privacy.terms import Terms
from protos.limits import LIMITS

__all__ = ["Contribution", "Keep", "Release", "Round", "State"]

UNDO_BYTES = 32 << 20
"""Unfinished contributions kept at once so that they can be taken back; never fewer than two."""

SPARE_CHUNKS = 8
"""A contribution may come in twice as many chunks as it needs and these: each costs memory."""


Keep = Callable[[str, list[bytes]], None]
"""Takes a member's name and its contribution's bytes in order; returns at once."""


class State(enum.Enum):
    """Where an attempt stands."""

    COLLECTING = "collecting"
    CLOSED = "closed"
    RELEASED = "released"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Contribution:
    """What is kept of a contribution once it is added: its receipt.

    Args:
        sha256: of its bytes.
        signature: the member's own over them; empty under simulation.
    """

    member: str
    size_bytes: int
    sha256: bytes
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Release:
    """The sum of one attempt and who is in it.

    Args:
        contributors: names, in roster order.
        ring: the noised sum over them, uint32 or uint64, little-endian, shape (dimension,).
        grid: of the study.
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    ring: RingVector
    grid: Grid

    def total(self) -> npt.NDArray[np.float64]:
        """The decoded sum: float64, shape (dimension,)."""
        return decode(self.ring, self.grid)


@dataclass(slots=True)
class _Upload:
    """A cleared contribution on its way: the bytes so far, kept to be taken back."""

    signature: bytes
    revealed: Signed | None = None
    received: list[bytes | memoryview] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0


class Round:
    """Collects the cohort's contributions to one attempt and adds them as their chunks arrive.

    Memory: one ring vector, plus at most max(2 vectors, 32 MiB) of unfinished uploads.

    Args:
        terms: the study's terms.
        round_number: from 1.
        attempt: from 1 in each round.
        cohort: the members asked, in roster order.
        unmasking: the attempt's secure aggregation; None under simulation, where nothing is masked.
        keep: is handed each contribution's bytes once it is added, for an auditor to add again.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        round_number: int,
        attempt: int,
        cohort: tuple[str, ...],
        unmasking: Unmasking | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.round_number = round_number
        self.attempt = attempt
        self.cohort = cohort
        self.state = State.COLLECTING
        self.contributions: dict[str, Contribution] = {}
        self.unmasking = unmasking
        self._keep = keep
        self.least = terms.privacy.least_survivors
        self._grid = Grid.of(terms)
        self._sum: RingVector = np.zeros(terms.dimension, dtype=self._grid.dtype)
        self._waiting: deque[tuple[str, _Upload]] = deque()
        self._revealed: dict[str, Signed] = {}
        self._uploads: dict[str, _Upload] = {}
        self._most_uploads = max(2, UNDO_BYTES // self.size_bytes)
        self._most_chunks = 2 * math.ceil(self.size_bytes / LIMITS.chunk_bytes) + SPARE_CHUNKS

    @property
    def size_bytes(self) -> int:
        """Bytes of one contribution."""
        return self._sum.nbytes

    @property
    def all_cleared(self) -> bool:
        """Whether the whole cohort may send at once, without being cleared one by one."""
        return len(self.cohort) <= self._most_uploads

    def announce(
        self,
        member: str,
        dtype: str,
        shape: tuple[int, ...],
        signature: bytes = b"",
        revealed: Signed | None = None,
    ) -> None:
        """Takes note that a member is ready to send. Ask `cleared` who may.

        Args:
            member: who.
            dtype: of its vector.
            shape: of its vector.
            signature: over the vector, checked when it is there.
            revealed: what it reveals along with the vector, where nobody may drop; see `reveal`.

        Raises:
            MemberFault: rules (1) and (2).
        """
        self._expect_collecting(member)
        if member not in self.cohort:  # (1)
            raise MemberFault(member, f"{self._here} is not for it; it is not in the cohort")
        if member in self.contributions or member in self._uploads or self.is_waiting(member):
            raise MemberFault(member, f"announced a second contribution to {self._here}")
        if dtype != self._sum.dtype.name or shape != self._sum.shape:  # (2)
            raise MemberFault(
                member,
                f"announced {dtype} of shape {shape} for {self._here}; the terms say "
                f"{self._sum.dtype.name} of shape {self._sum.shape}",
            )
        self._waiting.append((member, _Upload(signature, revealed)))

    def cleared(self) -> list[str]:
        """Members that may send now and have not been told yet."""
        fresh = []
        while self._waiting and len(self._uploads) < self._most_uploads:
            member, upload = self._waiting.popleft()
            self._uploads[member] = upload
            fresh.append(member)
        return fresh

    @property
    def places(self) -> int:
        """How many may send at once."""
        return self._most_uploads

    @property
    def crowded(self) -> bool:
        """Whether members wait to be cleared."""
        return bool(self._waiting)

    def is_waiting(self, member: str) -> bool:
        """Whether the member announced its contribution and has not been cleared yet."""
        return any(name == member for name, _ in self._waiting)

    def add(self, member: str, offset: int, data: bytes | memoryview) -> Contribution | None:
        """Adds one chunk; the receipt if it was the last.

        Args:
            member: who sent it.
            offset: position in bytes from the start of the vector.
            data: little-endian ring elements.

        Raises:
            MemberFault: rules (3) and (6).
        """
        self._expect_collecting(member)
        upload = self._uploads.get(member)
        if upload is None:  # (3)
            raise MemberFault(member, f"sent bytes for {self._here} without being cleared")
        if offset != upload.size_bytes:
            raise MemberFault(
                member, f"sent bytes at {offset} for {self._here}, expected {upload.size_bytes}"
            )
        if not data or len(data) % self._sum.itemsize:
            raise MemberFault(member, f"sent {len(data)} bytes, not whole ring elements")
        if len(upload.received) >= self._most_chunks:
            raise MemberFault(member, f"sent {self._here} in needlessly small pieces")
        if offset + len(data) > self.size_bytes:
            raise MemberFault(
                member, f"sent too many bytes for {self._here}: over {self.size_bytes}"
            )
        add_in_place(*self._places(offset, data))
        upload.digest.update(data)
        upload.received.append(data)
        upload.size_bytes += len(data)
        if upload.size_bytes < self.size_bytes:
            return None
        digest = upload.digest.digest()
        if self.unmasking is not None:  # (6)
            self.unmasking.take_contribution(member, digest, upload.signature)
        del self._uploads[member]
        receipt = Contribution(member, self.size_bytes, digest, upload.signature)
        self.contributions[member] = receipt
        if upload.revealed is not None:
            self._revealed[member] = upload.revealed
        if self._keep is not None:
            self._keep(member, [bytes(part) for part in upload.received])
        return receipt

    def reveal(self, member: str) -> None:
        """Takes what a member revealed along with its contribution, which stays whatever that is.

        Raises:
            MemberFault: if it is not what its dealers signed, or members may drop.
        """
        revealed = self._revealed.pop(member, None)
        if revealed is not None and self.unmasking is not None:
            self.unmasking.take_unmask(member, revealed.body, revealed.signature)

    def drop(self, member: str) -> None:
        """Takes back whatever ``member`` sent of an unfinished contribution (rule (4))."""
        self._waiting = deque(one for one in self._waiting if one[0] != member)
        upload = self._uploads.pop(member, None)
        if upload is None or self.state is not State.COLLECTING:
            return
        offset = 0
        for part in upload.received:
            places, elements = self._places(offset, part)
            np.subtract(places, elements, out=places)
            offset += len(part)

    def close(self) -> None:
        """Ends the collecting: late members are dropped, the sum is final.

        Raises:
            RoundFailed: rule (5): fewer than N - D contributions arrived.
        """
        if self.state is not State.COLLECTING:
            raise RoundFailed(f"{self._here}: cannot close a round that is {self.state.value}")
        for member in [*(name for name, _ in self._waiting), *self._uploads]:
            self.drop(member)
        if len(self.contributions) < self.least:  # (5)
            self.state = State.FAILED
            missing = [name for name in self.cohort if name not in self.contributions]
            raise RoundFailed(
                f"{self._here}: {len(self.contributions)} contributions arrived and the terms "
                f"demand {self.least}; missing: {', '.join(missing[:10])}"
            )
        self.state = State.CLOSED

    def release(self) -> Release:
        """Removes the masks from the sum; once.

        Raises:
            RoundFailed: if the round is not closed, or its masks cannot be removed.
        """
        if self.state is not State.CLOSED:
            raise RoundFailed(f"{self._here}: cannot release a round that is {self.state.value}")
        self.state = State.FAILED
        if self.unmasking is not None:
            self.unmasking.unmask(self._sum)
        self.state = State.RELEASED
        contributors = tuple(name for name in self.cohort if name in self.contributions)
        return Release(self.round_number, self.attempt, contributors, self._sum, self._grid)

    def _places(self, offset: int, data: bytes | memoryview) -> tuple[RingVector, RingVector]:
        """The part of the sum that ``data`` belongs to, and its ring elements."""
        start = offset // self._sum.itemsize
        places = self._sum[start : start + len(data) // self._sum.itemsize]
        elements = np.frombuffer(data, dtype=np.uint8).view(self._sum.dtype)
        return places, elements

    @property
    def _here(self) -> str:
        return f"round {self.round_number} attempt {self.attempt}"

    def _expect_collecting(self, member: str) -> None:
        if self.state is not State.COLLECTING:
            raise MemberFault(member, f"answered {self._here}, which is {self.state.value}")
