"""Who is a member: a small durable store of admissions, invitations and vouches.

Several processes use one registry at once: the coordinator, its enrolment service and the
operator's commands. Every method is one transaction, on the disk when it returns.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coordinator.enrolment_errors import Declined
from privacy.admission import Vouch
from privacy.certificates import read_signing_request
from privacy.departure import Departure
from privacy.errors import ConfigurationError
from privacy.membership import MembershipRequest, new_secret, open_request, secret_hash

__all__ = ["MemberRecord", "Registry"]

SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE member (
  name TEXT PRIMARY KEY, identity TEXT NOT NULL, ledger TEXT NOT NULL, tls_key TEXT NOT NULL,
  request BLOB NOT NULL, admitted_ms INTEGER NOT NULL, revoked_ms INTEGER, reason TEXT NOT NULL,
  departure BLOB
) STRICT;
CREATE TABLE invitation (
  secret_hash TEXT PRIMARY KEY, name TEXT NOT NULL, expires_ms INTEGER NOT NULL,
  replaces INTEGER NOT NULL, used_by TEXT
) STRICT;
CREATE TABLE vouch (
  member TEXT NOT NULL, identity TEXT NOT NULL, voucher TEXT NOT NULL, document BLOB NOT NULL,
  PRIMARY KEY (member, identity, voucher)
) STRICT;
PRAGMA user_version = 2;
"""
_FROM_1: Final = ("ALTER TABLE member ADD COLUMN departure BLOB", "PRAGMA user_version = 2")
"""From version 1, which kept no departures."""
_VOID_INVITATIONS: Final = "DELETE FROM invitation WHERE name = ? AND used_by IS NULL"
BUSY_S: Final = 10.0
LEFT: Final = "it left the alliance"
"""What stands as the reason where nobody else ended the membership."""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One member as it was admitted.

    Args:
        tls_key: hash of the public TLS key that its certificates may have.
        request: its signed membership request.
        reason: why it was revoked, or that it left; None while it is a member.
        departure: its own signed word that it left; None if it did not.
    """

    name: str
    identity: str
    ledger: str
    tls_key: str
    request: bytes
    admitted: dt.datetime
    reason: str | None
    departure: bytes | None

    @property
    def declared_consumers(self) -> int:
        """As its request declares them, rounded to one digit."""
        return open_request(self.request).declared_consumers


class Registry:
    """The registry in one SQLite file.

    Args:
        path: made, readable by its owner only, where there is none.

    Raises:
        ConfigurationError: here and from every method, if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
        with self._transaction() as rows:
            (version,) = rows.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    rows.execute(statement)
            elif version == 1:
                for statement in _FROM_1:
                    rows.execute(statement)
            elif version != SCHEMA_VERSION:
                raise ConfigurationError(f"{path}: is of a newer version; update this one")

    # Members.

    def members(self) -> dict[str, MemberRecord]:
        """Everybody who ever was a member, by name."""
        with self._transaction(reading=True) as rows:
            found = rows.execute("SELECT * FROM member ORDER BY admitted_ms, name").fetchall()
        return {row["name"]: _record(row) for row in found}

    def admit(
        self, request: MembershipRequest, signed: bytes, *, now: dt.datetime, replace: bool = False
    ) -> None:
        """Makes a member of who made this request.

        Args:
            request: what `open_request` read.
            signed: what it read it from.
            now: the present.
            replace: whether it may take the place of a member of its name.

        Raises:
            Declined: if another member has its name or one of its keys.
        """
        with self._transaction() as rows:
            _admit(rows, request, signed, now, replace)

    def set_tls_key(self, name: str, tls_key: str) -> None:
        """From now on this member's certificates have that key; older ones are refused."""
        with self._transaction() as rows:
            rows.execute("UPDATE member SET tls_key = ? WHERE name = ?", (tls_key, name))

    def revoke(self, name: str, reason: str, *, now: dt.datetime) -> None:
        """Ends a membership.

        Raises:
            ConfigurationError: if there is no such member.
        """
        with self._transaction() as rows:
            done = rows.execute(
                "UPDATE member SET revoked_ms = ?, reason = ? WHERE name = ?",
                (_ms(now), reason[:200], name),
            )
            if done.rowcount != 1:
                raise ConfigurationError(
                    f"{name}: no such member; alliance-coordinator members lists them"
                )
            rows.execute(_VOID_INVITATIONS, (name,))

    def depart(self, departure: Departure, *, now: dt.datetime) -> None:
        """Ends a membership by the member's own word; again is the same.

        Raises:
            Declined: if no member has its name, or that one was admitted with other keys.
        """
        with self._transaction() as rows:
            row = rows.execute(
                "SELECT * FROM member WHERE name = ?", (departure.member,)
            ).fetchone()
            if row is None:
                raise Declined("not_a_member")
            if (row["identity"], row["ledger"]) != (departure.identity, departure.ledger):
                raise Declined("not_its_ledger")
            if row["revoked_ms"] is None:
                rows.execute(
                    "UPDATE member SET revoked_ms = ?, reason = ? WHERE name = ?",
                    (_ms(now), LEFT, departure.member),
                )
            rows.execute(
                "UPDATE member SET departure = ? WHERE name = ?",
                (departure.canonical(), departure.member),
            )
            rows.execute(_VOID_INVITATIONS, (departure.member,))

    # Invitations.

    def invite(self, name: str, *, expires: dt.datetime, replace: bool = False) -> bytes:
        """The secret of a new invitation; only its hash is kept."""
        secret = new_secret()
        with self._transaction() as rows:
            member = rows.execute(
                "SELECT 1 FROM member WHERE name = ? AND revoked_ms IS NULL", (name,)
            ).fetchone()
            if member and not replace:
                raise ConfigurationError(
                    f"{name}: is a member already; --replace invites another in its place"
                )
            rows.execute(
                "INSERT INTO invitation VALUES (?, ?, ?, ?, NULL)",
                (secret_hash(secret), name, _ms(expires), replace),
            )
        return secret

    def redeem(
        self, secret: bytes, request: MembershipRequest, signed: bytes, *, now: dt.datetime
    ) -> None:
        """Uses an invitation up and admits who brought it.

        The very same request again is answered alike while the invitation has not expired: its
        first answer may have been lost on the way.

        Raises:
            Declined: if the invitation is wrong, used, expired or for another name.
        """
        with self._transaction() as rows:
            row = rows.execute(
                "SELECT * FROM invitation WHERE secret_hash = ?", (secret_hash(secret),)
            ).fetchone()
            if row is None:
                raise Declined("wrong_invitation")
            if row["used_by"] not in (None, request.identity):
                raise Declined("used_invitation")
            if row["expires_ms"] <= _ms(now):
                raise Declined("expired_invitation")
            if row["name"] != request.member:
                raise Declined("other_name")
            if row["used_by"] is not None:
                member = rows.execute(
                    "SELECT request, revoked_ms FROM member WHERE name = ?", (request.member,)
                ).fetchone()
                if member is None or member["request"] != signed or member["revoked_ms"]:
                    raise Declined("used_invitation")
                return
            _admit(rows, request, signed, now, bool(row["replaces"]))
            rows.execute(
                "UPDATE invitation SET used_by = ? WHERE secret_hash = ?",
                (request.identity, row["secret_hash"]),
            )

    # Vouches.

    def add_vouch(self, vouch: Vouch) -> int:
        """Keeps a vouch whose signature was checked; how many there are of that member now.

        Raises:
            Declined: unless a member vouches for another one's present identity.
        """
        with self._transaction() as rows:
            present = "SELECT 1 FROM member WHERE identity = ? AND revoked_ms IS NULL"
            voucher = rows.execute(present, (vouch.by,)).fetchone()
            about = rows.execute(
                present + " AND name = ?", (vouch.identity, vouch.member)
            ).fetchone()
            if voucher is None or about is None or vouch.by == vouch.identity:
                raise Declined("not_a_voucher")
            rows.execute(
                "INSERT OR REPLACE INTO vouch VALUES (?, ?, ?, ?)",
                (vouch.member, vouch.identity, vouch.by, vouch.canonical()),
            )
            (count,) = rows.execute(
                "SELECT COUNT(*) FROM vouch WHERE member = ? AND identity = ?",
                (vouch.member, vouch.identity),
            ).fetchone()
        return int(count)

    def vouches(self) -> list[Vouch]:
        """All vouches."""
        with self._transaction(reading=True) as rows:
            found = rows.execute("SELECT document FROM vouch").fetchall()
        return [Vouch.from_json(row["document"]) for row in found]

    @contextmanager
    def _transaction(self, *, reading: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            rows = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            try:
                rows.row_factory = sqlite3.Row
                rows.execute("PRAGMA journal_mode=WAL")
                rows.execute("PRAGMA synchronous=FULL")
                # Who only reads waits for nobody: the coordinator's event loop may be asking.
                rows.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
                yield rows
                rows.execute("COMMIT")
            finally:
                rows.close()  # what was not committed is rolled back
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self._path}: cannot be used ({error})") from error


def _admit(
    rows: sqlite3.Connection,
    request: MembershipRequest,
    signed: bytes,
    now: dt.datetime,
    replace: bool,
) -> None:
    present = rows.execute("SELECT * FROM member WHERE name = ?", (request.member,)).fetchone()
    standing = present is not None and present["revoked_ms"] is None
    keys = (request.identity, request.ledger)
    if standing and not replace and (present["identity"], present["ledger"]) != keys:
        raise Declined("taken_name")
    _, tls_key = read_signing_request(request.signing_request.encode())
    clash = rows.execute(
        "SELECT 1 FROM member WHERE name != ?1 AND (identity IN (?2, ?3) OR ledger IN (?2, ?3)"
        " OR tls_key = ?4)",
        (request.member, request.identity, request.ledger, tls_key),
    ).fetchone()
    if clash is not None:
        raise Declined("taken_key")
    rows.execute(
        "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?, NULL, '', NULL)",
        (request.member, request.identity, request.ledger, tls_key, signed, _ms(now)),
    )


def _record(row: Any) -> MemberRecord:
    return MemberRecord(
        row["name"],
        row["identity"],
        row["ledger"],
        row["tls_key"],
        row["request"],
        dt.datetime.fromtimestamp(row["admitted_ms"] / 1000, dt.UTC),
        row["reason"] if row["revoked_ms"] is not None else None,
        row["departure"],
    )


def _ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)
