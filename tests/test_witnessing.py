"""Reserve, witness, grant: real logs of five members and a coordinator, and what bad ones get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from client_sdk.policy import Budget
from client_sdk.sqlite_journal import SqliteJournal
from client_sdk.witnessing import Witnessing as Member
from coordinator import witnessing
from coordinator.evidence import Evidence
from coordinator.mirror import Mirror
from coordinator.monitor import Event, MemberFaulted, Monitor
from coordinator.witnessing import Witnessing
from privacy.acceptance import sign_acceptance
from privacy.errors import BudgetRefusal, Fork, MemberFault, RequestRefusal, Rollback
from privacy.identity import Identity
from privacy.ledger.checkpoint import cosigners
from privacy.ledger.entry import Heads, Release, Reservation, canonical, decode_entry
from tests.conftest import identity
from tests.test_alliance import terms

TERMS = terms(rounds=12, spare=8)
NAMES = tuple(entry.name for entry in TERMS.roster)
PROFILE = {m: 0.1 * m for m in range(1, 6)}
Tamper = Callable[[str, str, bytes], bytes | None]
"""Phase, member and body: what arrives instead; None for nothing."""


class Alliance:
    """Logs in one folder; bodies are carried by calls instead of a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.asked: list[str] = []
        self.question: Tamper = lambda phase, name, body: body
        self.answer: Tamper = lambda phase, name, body: body
        self.refusals: dict[str, Exception] = {}
        self.journals: dict[str, SqliteJournal] = {}
        self.members: dict[str, Member] = {}
        self.keys = {name: Identity.generate() for name in NAMES}
        self.open_coordinator()
        for name in NAMES:
            self.open_member(name)

    def open_coordinator(self) -> None:
        self.evidence = Evidence(self.folder, TERMS.alliance, keep_bytes=0)
        self.mirror = Mirror(self.evidence.store, TERMS.alliance)
        self.evidence.proposed(TERMS)
        for name in NAMES:
            signature = sign_acceptance(
                identity(name), TERMS, member=name, ledger_key=self.keys[name].public
            )
            self.evidence.accepted(TERMS, name, self.keys[name].public, signature)
            self.mirror.open(name, self.keys[name].public, signature)
        monitor = Monitor(self.events.append)
        self.coordinator = Witnessing(TERMS, self.evidence, self.mirror, monitor, self.ask)

    def open_member(self, name: str) -> None:
        journal = SqliteJournal(
            self.folder / f"{name}.sqlite",
            origin=f"{TERMS.alliance}/member/{name}",
            key=self.keys[name],
        )
        journal.adopt(Budget(epsilon=20.0).rule())
        journal.approve(TERMS, profile=PROFILE, most_studies=1, signature=bytes(64))
        self.journals[name], self.members[name] = journal, Member(journal, name)

    def ask(
        self, phase: str, bodies: Mapping[str, bytes], take: Callable[[str, bytes], None]
    ) -> None:
        self.asked.append(phase)
        for name, body in bodies.items():
            question = self.question(phase, name, body)
            if question is None:
                continue
            try:
                said = getattr(self.members[name], phase)(TERMS, question)
            except (RequestRefusal, BudgetRefusal) as error:
                self.refusals[name] = error
                continue
            answer = self.answer(phase, name, said)
            if answer is None:
                continue
            try:
                take(name, answer)
            except MemberFault as error:
                self.events.append(MemberFaulted(error.member, error.what))

    def may_spend(self, name: str) -> bool:
        try:
            self.journals[name].check(TERMS, round_number=12, attempt=9)
        except BudgetRefusal:
            return False
        return True

    def faults(self) -> str:
        return "\n".join(
            f"{one.member}: {one.sentence}" for one in self.events if isinstance(one, MemberFaulted)
        )

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()
        self.evidence.close()


@pytest.fixture
def alliance(tmp_path: Path) -> Iterator[Alliance]:
    here = Alliance(tmp_path)
    yield here
    here.close()


def changed(body: bytes, **fields: Any) -> bytes:
    return canonical(json.loads(body) | fields)


def test_a_quorum_lets_reserved_attempts_be_spent(alliance: Alliance) -> None:
    assert not any(alliance.may_spend(name) for name in NAMES)
    assert alliance.coordinator.grant(NAMES, 4) == NAMES
    assert alliance.asked == ["reserve", "witness", "grant"]
    assert all(alliance.may_spend(name) for name in NAMES)
    keys = {f"{TERMS.alliance}/member/{name}": key.public for name, key in alliance.keys.items()}
    for name in NAMES:
        note = alliance.journals[name].store.newest_note()
        assert note is not None
        assert len(cosigners(note, keys)) >= TERMS.quorum - 1
    assert len(cosigners(alliance.evidence.head, keys)) == len(NAMES)
    (heads,) = [
        entry
        for data in alliance.evidence.store.entries()
        if isinstance(entry := decode_entry(data, where=""), Heads)
    ]
    assert [head.member for head in heads.heads] == list(NAMES)


def test_a_head_that_too_few_cosigned_takes_no_place_of_one_that_a_quorum_did(
    alliance: Alliance,
) -> None:
    """A coordinator that starts again after the last round may find nobody there yet."""
    alliance.coordinator.grant(NAMES, 4)
    kept = alliance.evidence.store.newest_note()
    assert kept is not None
    size = alliance.evidence.store.check_head(kept).size
    for present in ((), NAMES[: TERMS.quorum - 1]):
        alliance.coordinator.grant(present, 0)
        assert alliance.evidence.store.size > size
        assert alliance.evidence.store.newest_note() == kept
    alliance.coordinator.grant(NAMES[: TERMS.quorum], 0)
    assert alliance.evidence.store.newest_note() != kept


def test_only_what_is_lacking_is_reserved_and_sent_again(alliance: Alliance) -> None:
    alliance.coordinator.grant(NAMES, 4)
    sizes = {name: journal.store.size for name, journal in alliance.journals.items()}
    alliance.coordinator.grant(NAMES, 4)
    assert {name: one.store.size for name, one in alliance.journals.items()} == sizes
    alliance.coordinator.grant(NAMES, 6)
    reservations = [
        entry
        for data in alliance.journals[NAMES[0]].store.entries()
        if isinstance(entry := decode_entry(data, where=""), Reservation)
    ]
    assert [(one.first, one.count) for one in reservations] == [(1, 4), (5, 2)]


def test_below_a_quorum_nothing_may_be_spent(alliance: Alliance) -> None:
    silent = NAMES[TERMS.quorum - 1 :]  # the others are one too few
    alliance.answer = lambda phase, name, body: (
        None if phase == "witness" and name in silent else body
    )
    granted = alliance.coordinator.grant(NAMES, 4)
    assert set(granted) <= set(silent)  # for whom its own signature makes up the quorum
    assert not any(alliance.may_spend(name) for name in NAMES if name not in granted)
    assert f"{TERMS.quorum} are needed" in alliance.faults()


def test_a_coordinator_cannot_grant_below_a_quorum(alliance: Alliance) -> None:
    """It leaves cosignatures out of what it hands on."""

    def few(phase: str, name: str, body: bytes) -> bytes:
        if phase != "grant":
            return body
        note = json.loads(body)["note"].splitlines(keepends=True)
        return changed(body, note="".join(note[: 5 + TERMS.quorum - 2]))

    alliance.question = few
    assert alliance.coordinator.grant(NAMES, 4) == ()
    assert not any(alliance.may_spend(name) for name in NAMES)
    assert all("vouch for this member's ledger" in str(one) for one in alliance.refusals.values())


def test_a_key_counts_only_with_its_members_acceptance(alliance: Alliance) -> None:
    def strange(phase: str, name: str, body: bytes) -> bytes:
        if phase != "witness":
            return body
        shown = json.loads(body)
        shown["members"][0]["ledger_key"] = Identity.generate().public
        return canonical(shown)

    alliance.question = strange
    assert alliance.coordinator.grant(NAMES, 4) == ()
    assert "ledger key" in str(alliance.refusals[NAMES[1]])


def test_a_member_restored_from_a_backup_learns_it_from_the_coordinator(
    alliance: Alliance, tmp_path: Path
) -> None:
    name = NAMES[2]
    path = tmp_path / f"{name}.sqlite"
    alliance.journals[name].close()
    backup = path.read_bytes()
    alliance.open_member(name)
    alliance.coordinator.grant(NAMES, 4)
    restore(alliance, name, backup)
    size = alliance.journals[name].store.size
    assert name not in alliance.coordinator.grant(NAMES, 6)
    assert "older than a head" in str(alliance.refusals[name])
    assert alliance.journals[name].store.size == size
    assert not alliance.may_spend(name)


def test_a_coordinator_that_helps_a_restored_member_needs_the_witnesses(
    alliance: Alliance, tmp_path: Path
) -> None:
    """Both went back together; the other members remember."""
    name = NAMES[2]
    path = tmp_path / f"{name}.sqlite"
    alliance.journals[name].close()
    backup = path.read_bytes()
    alliance.open_member(name)
    alliance.coordinator.grant(NAMES, 4)
    restore(alliance, name, backup)
    # The coordinator forgets what it saw of this member's log.
    with alliance.evidence.store.transaction() as transaction:
        transaction.execute("DELETE FROM member_log WHERE member = ?", (name,))
    log = alliance.mirror.log(name)
    alliance.mirror.open(name, log.key, log.acceptance)
    granted = alliance.coordinator.grant(NAMES, 4)
    assert name not in granted
    assert not alliance.may_spend(name)
    assert f"{name}: 1 members vouch" in alliance.faults()


def restore(alliance: Alliance, name: str, backup: bytes) -> None:
    alliance.journals[name].close()
    path = alliance.folder / f"{name}.sqlite"
    for one in alliance.folder.glob(f"{name}.sqlite*"):
        one.unlink()
    path.write_bytes(backup)
    path.chmod(0o600)
    alliance.open_member(name)


def test_a_coordinator_restored_from_a_backup_stops(alliance: Alliance, tmp_path: Path) -> None:
    alliance.evidence.close()
    backup = (tmp_path / "ledger.sqlite").read_bytes()
    alliance.open_coordinator()
    for _ in range(2):  # the second head covers what the first exchange wrote
        alliance.coordinator.grant(NAMES, 2)
    alliance.evidence.close()
    for one in tmp_path.glob("ledger.sqlite*"):
        one.unlink()
    (tmp_path / "ledger.sqlite").write_bytes(backup)
    alliance.open_coordinator()
    with pytest.raises((Rollback, Fork)):
        alliance.coordinator.grant(NAMES, 2)


def test_a_coordinator_that_starts_again_is_told_what_is_held(alliance: Alliance) -> None:
    alliance.coordinator.grant(NAMES, 2)
    alliance.evidence.close()
    alliance.open_coordinator()
    assert alliance.coordinator.grant(NAMES, 4) == NAMES
    assert alliance.asked.count("witness") == 3  # one look more than usual
    assert alliance.faults() == ""


@pytest.mark.parametrize("phase", ["reserve", "witness", "grant"])
@pytest.mark.parametrize(
    "bad",
    [b"", b"{}", b"[]", b"\xff", b'{"first":1}', b"null", b'{"held":[],"own":1,"signed":[]}'],
)
def test_a_malformed_answer_costs_its_member_alone(
    alliance: Alliance, phase: str, bad: bytes
) -> None:
    last = NAMES[-1]
    alliance.answer = lambda at, name, body: bad if (at, name) == (phase, last) else body
    granted = alliance.coordinator.grant(NAMES, 2)
    assert set(NAMES[:-1]) <= set(granted)
    if not (phase == "grant" and bad == b"{}"):  # which is what a good member says
        assert f"{last}: " in alliance.faults()


@pytest.mark.parametrize(
    "line", ["", "x", "— a b", "— a AAAA", "— a\x01b AAAAAAAA", "— a AAAAAAAA\n", 7, None]
)
def test_a_cosignature_that_is_no_line_costs_its_member_alone(
    alliance: Alliance, line: object
) -> None:
    """It used to spoil the head for everybody who signed it."""
    last = NAMES[-1]

    def spoiled(phase: str, name: str, body: bytes) -> bytes:
        if (phase, name) != ("witness", last):
            return body
        said = json.loads(body)
        return changed(body, signed=dict.fromkeys(said["signed"], line))

    alliance.answer = spoiled
    assert set(NAMES[:-1]) <= set(alliance.coordinator.grant(NAMES, 2))
    assert f"{last}: its cosignature is none" in alliance.faults()


@pytest.mark.parametrize("line", ["x", "— a\x01b AAAAAAAA"])
def test_a_coordinator_s_own_head_is_not_spoiled_by_a_witness(
    alliance: Alliance, line: str
) -> None:
    last = NAMES[-1]
    alliance.answer = lambda phase, name, body: (
        changed(body, own=line) if (phase, name) == ("witness", last) else body
    )
    assert set(NAMES[:-1]) <= set(alliance.coordinator.grant(NAMES, 2))
    assert f"{last}: its cosignature is none" in alliance.faults()


def test_leaves_that_do_not_lead_to_the_head_name_their_member(alliance: Alliance) -> None:
    last = NAMES[-1]

    def flipped(phase: str, name: str, body: bytes) -> bytes:
        if (phase, name) != ("reserve", last):
            return body
        leaves = json.loads(body)["leaves"]
        return changed(body, leaves=("0" if leaves[0] != "0" else "1") + leaves[1:])

    alliance.answer = flipped
    assert last not in alliance.coordinator.grant(NAMES, 2)
    assert f"{last}: its head does not follow" in alliance.faults()
    alliance.answer = lambda phase, name, body: body
    assert alliance.coordinator.grant(NAMES, 2) == NAMES


def test_leaves_come_in_several_answers_and_heads_in_several_pages(
    alliance: Alliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.witnessing.LEAVES", 2)
    monkeypatch.setattr(witnessing, "PAGE", 2)
    assert alliance.coordinator.grant(NAMES, 2) == NAMES
    assert alliance.asked == ["reserve"] * 3 + ["witness"] * 3 + ["grant"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"null", b"[1]", b'{"ahead":1,"have":0,"head":""} ',
        b'{"ahead":1.0,"have":0,"head":""}', b'{"ahead":-1,"have":0,"head":""}',
        b'{"ahead":1,"ahead":1,"have":0,"head":""}', b'{"ahead":1,"have":99,"head":""}',
        b'{"ahead":1,"have":0,"head":"nonsense"}', b'{"ahead":true,"have":0,"head":""}',
    ],
)  # fmt: skip
def test_a_member_refuses_what_is_no_reservation(alliance: Alliance, body: bytes) -> None:
    size = alliance.journals[NAMES[0]].store.size
    with pytest.raises(RequestRefusal):
        alliance.members[NAMES[0]].reserve(TERMS, body)
    assert alliance.journals[NAMES[0]].store.size == size


def contribute(alliance: Alliance, *, sha256: str = "ab" * 32) -> None:
    """Everybody contributes to round 1; the coordinator records what it says arrived."""
    for name in NAMES:
        alliance.journals[name].use(
            TERMS, round_number=1, attempt=1, key_set=1, sha256="ab" * 32, signature=bytes(64)
        )
    contributions = tuple(
        {"member": name, "sha256": sha256, "signature": "00" * 64} for name in NAMES
    )
    release = Release(
        at_ms=1, terms=TERMS.hash, round=1, attempt=1, key_set=1, cohort="00" * 32,
        members=NAMES, model="00" * 32, contributions=contributions, sum="00" * 32,
        next_model="00" * 32,
    )  # fmt: skip
    alliance.evidence.store.append(release)


def test_receipts_prove_what_left_and_come_once(alliance: Alliance) -> None:
    alliance.coordinator.grant(NAMES, 2)
    contribute(alliance)
    assert alliance.coordinator.grant(NAMES, 2) == NAMES
    assert alliance.coordinator.grant(NAMES, 2) == NAMES
    for journal in alliance.journals.values():
        (receipt,) = journal.store.receipts()
        assert json.loads(json.loads(receipt)["entry"])["round"] == 1


def test_a_receipt_for_other_bytes_is_refused(alliance: Alliance) -> None:
    alliance.coordinator.grant(NAMES, 2)
    contribute(alliance, sha256="cd" * 32)
    assert alliance.coordinator.grant(NAMES, 2) == ()
    assert all("does not record what left" in str(one) for one in alliance.refusals.values())
    assert all(list(journal.store.receipts()) == [] for journal in alliance.journals.values())


def test_receipts_come_when_every_attempt_is_spent(alliance: Alliance) -> None:
    """The last exchange of a study reserves nothing."""
    alliance.coordinator.grant(NAMES, TERMS.privacy.max_attempts)
    contribute(alliance)
    for number in range(2, TERMS.privacy.max_attempts + 1):
        for name in NAMES:
            alliance.journals[name].use(
                TERMS, round_number=2, attempt=number, key_set=number, sha256="ab" * 32,
                signature=bytes(64),
            )  # fmt: skip
    assert alliance.coordinator.grant(NAMES, 0) == NAMES
    assert alliance.refusals == {}
    assert all(len(list(one.store.receipts())) == 1 for one in alliance.journals.values())
