"""A second implementation of secure aggregation, for the test vectors: one transcript, judged.

Written from ``privacy/secagg/README.md`` alone and sharing no code with ``privacy/secagg``; as
simple as can be, not fast. The functions below follow the sections of that text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
from fractions import Fraction
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privacy.errors import TermsError
from privacy.terms import Terms

PREFIX = b"alliance/v1/secagg/"
PRIME = 2**256 + 297
KINDS = ("share/seed", "share/mask")
"""The two shares of a key set, in the order of everything that holds both."""


class Rejected(Exception):
    """What is wrong with a transcript, and the section of the README that says so."""

    def __init__(self, section: int, reason: str) -> None:
        super().__init__(f"section {section}: {reason}")
        self.section = section
        self.reason = reason


class Deal(NamedTuple):
    """What one dealer made for one holder."""

    hashes: bytes
    nonce: bytes
    sealed: bytes


class Dealing(NamedTuple):
    """The body of one dealer's Share message; ``deals`` by holder."""

    commitments: bytes
    own_hashes: bytes
    deals: dict[int, Deal]


class Case(NamedTuple):
    """A transcript, and what the sections before have read of it; members by index."""

    terms: Terms
    transcript: dict[str, Any]
    secrets: dict[int, Any]
    bodies: dict[int, bytes]
    """What each member advertised."""
    keys: bytes = b""
    dealings: dict[int, Dealing] = {}  # noqa: RUF012
    """The dealers are the cohort."""
    cohort: bytes = b""
    ready: dict[int, list[int]] = {}  # noqa: RUF012
    """Who answered Deliver, and the bad dealers it named."""
    masked: dict[int, list[int]] = {}  # noqa: RUF012
    """The survivors' masked vectors."""
    confirmed: list[int] = []  # noqa: RUF012

    @property
    def place(self) -> int:
        """Place in the run of the key set that was used."""
        place: int = self.transcript["attempt"]["key_set"] - self.transcript["first"]
        return place


def verify(transcript: dict[str, Any]) -> bytes:
    """The sum of the survivors' vectors as little-endian ring elements.

    Args:
        transcript: One parsed file, as section 12 describes it; ``secrets`` may be left out.

    Raises:
        Rejected: naming the section that does not accept the transcript.
    """
    try:
        terms = Terms.from_json(transcript["terms"])
    except TermsError as error:
        raise Rejected(3, str(error)) from error
    need(3, transcript["terms_hash"] == terms.hash, "terms_hash is not the hash of the terms")
    secrets = transcript.get("secrets", {})
    secrets = {index_of(3, terms, name): secrets[name] for name in secrets}
    case = Case(terms, transcript, secrets, {})
    for section in (section_3, section_4, section_5, section_6, section_7):
        case = section(case)
    return section_8(case)


# ---------------------------------------------------------------- section 2, notation


def need(section: int, holds: bool, reason: str) -> None:
    """Refuses the transcript unless ``holds``."""
    if not holds:
        raise Rejected(section, reason)


class Reader:
    """Reads one body strictly, from the left."""

    def __init__(self, section: int, what: str, data: bytes) -> None:
        self.section, self.what, self.data = section, what, data

    def take(self, size: int) -> bytes:
        need(self.section, len(self.data) >= size, f"{self.what}: too short")
        head, self.data = self.data[:size], self.data[size:]
        return head

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def list(self) -> list[int]:
        items = [self.u32() for _ in range(self.u32())]
        increasing = items == sorted(set(items)) and all(item >= 1 for item in items)
        need(self.section, increasing, f"{self.what}: not strictly increasing from 1")
        return items

    def end(self) -> None:
        need(self.section, not self.data, f"{self.what}: {len(self.data)} bytes too many")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def u32_list(numbers: list[int]) -> bytes:
    return u32(len(numbers)) + b"".join(u32(number) for number in numbers)


def h(purpose: str, *parts: bytes) -> bytes:
    return hashlib.sha256(PREFIX + purpose.encode() + b"\x00" + b"".join(parts)).digest()


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def x(section: int, private: bytes, public: bytes) -> bytes:
    try:
        other = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(other)
    except ValueError as error:
        raise Rejected(section, "degenerate X25519 public key") from error


def public_key(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def index_of(section: int, terms: Terms, name: str) -> int:
    names = [entry.name for entry in terms.roster]
    need(section, name in names, f"{name} is not in the roster")
    return names.index(name) + 1


def messages(section: int, case: Case, key: str) -> dict[int, dict[str, Any]]:
    """One list of the transcript by member, in increasing order; hexadecimal read."""
    found: dict[int, dict[str, Any]] = {}
    for entry in case.transcript[key]:
        index = index_of(section, case.terms, entry["member"])
        need(section, index not in found, f"{key}: {entry['member']} is there twice")
        parts = {name: text for name, text in entry.items() if name != "member"}
        found[index] = {name: bytes.fromhex(text) for name, text in parts.items()}
    return dict(sorted(found.items()))


def check_signature(
    section: int, case: Case, index: int, phase: str, body: bytes, signature: bytes
) -> None:
    transcript = case.transcript
    entry = case.terms.roster[index - 1]
    statement: dict[str, Any] = {
        "alliance": case.terms.alliance,
        "terms": case.terms.hash,
        "phase": phase,
        "sender": entry.name,
        "body": hashlib.sha256(body).hexdigest(),
        "cohort": {"advertise": b"", "share": case.keys}.get(phase, case.cohort).hex(),
    }
    if phase in ("advertise", "share", "deliver"):
        statement |= {"key_set": transcript["first"], "key_sets": transcript["count"]}
        statement |= {"round": 0, "attempt": 0, "model": ""}
    else:
        statement |= transcript["attempt"] | {"key_sets": 1}
    # All names, hexadecimal and small integers: sorted and without spaces is RFC 8785.
    canonical = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    signed = PREFIX + phase.encode() + b"\x00" + canonical
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.identity)).verify(signature, signed)
    except InvalidSignature as error:
        raise Rejected(section, f"{phase}: signature of {entry.name}") from error


def parameters(case: Case) -> tuple[int, int, int, int]:
    """N, c, D and t."""
    privacy = case.terms.privacy
    t = math.floor(Fraction(privacy.cohort_size + privacy.colluders, 2)) + 1
    return privacy.cohort_size, privacy.colluders, privacy.dropouts, t


# ---------------------------------------------------------------- section 3, advertise


def section_3(case: Case) -> Case:
    """Adds the advertised bodies."""
    first, count = case.transcript["first"], case.transcript["count"]
    need(3, 1 <= count <= 64, "a run has 1 to 64 key sets")
    need(3, 0 <= first <= 2**32 - count, "key set numbers are u32")
    bodies: dict[int, bytes] = {}
    for index, message in messages(3, case, "advertisements").items():
        check_signature(3, case, index, "advertise", message["body"], message["signature"])
        reader = Reader(3, f"advertisement of {index}", message["body"])
        public = [reader.take(32) for _ in range(1 + count)]
        reader.end()
        need(3, len(set(public)) == len(public), f"{index} advertised a key twice")
        for key in public:
            x(3, b"\x42" * 32, key)  # all-zero for every private key, or for none
        if index in case.secrets:
            private = [case.secrets[index]["sealing"], *case.secrets[index]["masks"]]
            need(3, all(len(key) == 64 for key in private), f"a private key of {index} is cut")
            own = [public_key(bytes.fromhex(key)) for key in private]
            need(3, own == public, f"the keys of {index} are not of its private keys")
        bodies[index] = message["body"]
    return case._replace(bodies=bodies)


# ---------------------------------------------------------------- section 4, share


def section_4(case: Case) -> Case:
    """Adds the keys hash and the dealings."""
    N, _, D, _ = parameters(case)
    first, count = case.transcript["first"], case.transcript["count"]
    reader = Reader(4, "offer", bytes.fromhex(case.transcript["offer"]))
    offered: dict[int, bytes] = {}
    for _ in range(reader.u32()):
        index, body, signature = reader.u32(), reader.take(32 + 32 * count), reader.take(64)
        need(4, index > max(offered, default=0), "offer: indices do not increase")
        need(4, index <= len(case.terms.roster), f"offer: no member {index} in the roster")
        check_signature(4, case, index, "advertise", body, signature)
        offered[index] = body
    reader.end()
    need(4, offered == case.bodies, "the offer is not what was advertised")
    need(4, N - D <= len(offered) <= N, f"the offer has {len(offered)} members")
    public = [body[at : at + 32] for body in offered.values() for at in range(0, len(body), 32)]
    need(4, len(set(public)) == len(public), "a key appears twice in the offer")
    run = bytes.fromhex(case.terms.hash) + u32(first) + u32(count)
    keys = h("keys", run, *(u32(index) + body for index, body in offered.items()))
    case = case._replace(keys=keys)
    dealings: dict[int, Dealing] = {}
    for index, message in messages(4, case, "shares").items():
        need(4, index in offered, f"{index} dealt but was not offered")
        check_signature(4, case, index, "share", message["body"], message["signature"])
        dealings[index] = read_dealing(case, index, message["body"])
    case = case._replace(dealings=dealings)
    for dealer in dealings:
        if dealer in case.secrets:
            check_dealer(case, dealer)
    return case


def read_dealing(case: Case, dealer: int, body: bytes) -> Dealing:
    count = case.transcript["count"]
    N, c, D, _ = parameters(case)
    reader = Reader(4, f"shares of {dealer}", body)
    commitments, own_hashes = reader.take(32 * count), reader.take(64 * count)
    deals: dict[int, Deal] = {}
    for _ in range(reader.u32()):
        holder = reader.u32()
        need(4, holder > max(deals, default=0), f"shares of {dealer}: holders do not increase")
        deals[holder] = Deal(reader.take(64 * count), reader.take(12), reader.take(98 * count + 16))
    reader.end()
    others = set(case.bodies) - {dealer}
    need(4, set(deals) <= others, f"shares of {dealer}: a holder is not another offered member")
    expected = len(others) if N <= 64 else sparse_graph(N, c, D)[0]
    need(4, len(deals) == expected, f"shares of {dealer}: {len(deals)} deals, not {expected}")
    return Dealing(commitments, own_hashes, deals)


def share_threshold(case: Case, dealer: int) -> int:
    """The dealer is one of its own holders, so there is one more than deals."""
    N, c, D, t = parameters(case)
    u = t if N <= 64 else sparse_graph(N, c, D)[1]
    return min(u, len(case.dealings[dealer].deals) + 1)


def check_dealer(case: Case, dealer: int) -> None:
    """With the secrets: commitments are of the seeds, and the good shares are of the secrets."""
    seeds = [bytes.fromhex(seed) for seed in case.secrets[dealer]["seeds"]]
    masks = [bytes.fromhex(mask) for mask in case.secrets[dealer]["masks"]]
    commitments = b"".join(h("seed", case.keys, seed) for seed in seeds)
    need(4, commitments == case.dealings[dealer].commitments, f"commitments of {dealer}")
    opened: dict[int, list[tuple[int, int]]] = {}
    for holder in case.dealings[dealer].deals:
        shares = open_deal(case, dealer, holder) if holder in case.secrets else None
        if shares is not None:
            opened[holder] = shares
    for place, both in enumerate(zip(seeds, masks, strict=True)):
        for kind, secret in enumerate(both):
            points = {holder: shares[place][kind] for holder, shares in opened.items()}
            points[0] = int.from_bytes(secret, "big")
            fits = on_one_polynomial(points, share_threshold(case, dealer))
            need(4, fits, f"shares of {dealer} are not of its secrets")


def open_deal(case: Case, dealer: int, holder: int) -> list[tuple[int, int]] | None:
    """Per key set seed share and mask share; None if the deal does not open or does not match."""
    deal = case.dealings[dealer].deals[holder]
    pair = x(4, bytes.fromhex(case.secrets[holder]["sealing"]), case.bodies[dealer][:32])
    key = hkdf(pair, case.keys, PREFIX + b"seal\x00" + u32(dealer) + u32(holder))
    try:
        plain = AESGCM(key).decrypt(deal.nonce, deal.sealed, case.keys)
    except InvalidTag:
        return None
    shares: list[int] = []
    for at in range(2 * case.transcript["count"]):
        share, salt = plain[49 * at :][:33], plain[49 * at + 33 :][:16]
        key_set = case.transcript["first"] + at // 2
        found = share_hash(case, KINDS[at % 2], dealer, holder, key_set, salt, share)
        if found != deal.hashes[32 * at :][:32]:
            return None
        shares.append(int.from_bytes(share, "big"))
    return list(zip(shares[::2], shares[1::2], strict=True))


def share_hash(
    case: Case, kind: str, dealer: int, holder: int, key_set: int, salt: bytes, share: bytes
) -> bytes:
    return h(kind, case.keys, u32(dealer), u32(holder), u32(key_set), salt, share)


def interpolate(points: dict[int, int], at: int) -> int:
    """The value at ``at`` of the least polynomial through all points (Lagrange)."""
    total = 0
    for i, y in points.items():
        above, below = 1, 1
        for j in points:
            if j != i:
                above = above * (at - j) % PRIME
                below = below * (i - j) % PRIME
        total += y * above * pow(below, -1, PRIME)
    return total % PRIME


def on_one_polynomial(points: dict[int, int], threshold: int) -> bool:
    """Whether ``threshold`` of the points determine all the others."""
    base = dict(list(points.items())[:threshold])
    return all(interpolate(base, at) == y for at, y in points.items() if at not in base)


# ---------------------------------------------------------------- section 5, deliver


def section_5(case: Case) -> Case:
    """Adds the cohort hash and the answers."""
    N, _, D, _ = parameters(case)
    members = sorted(case.dealings)
    need(5, len(members) >= N - D, f"the cohort has {len(members)} members")
    case = case._replace(cohort=h("cohort", case.keys, u32_list(members)))
    deliveries = messages(5, case, "deliveries")
    need(5, list(deliveries) == members, "deliveries are not to the cohort")
    for holder, message in deliveries.items():
        dealers = dealers_of(case, holder)
        expected = u32_list(members) + u32(len(dealers))
        for dealer in dealers:
            expected += u32(dealer) + b"".join(case.dealings[dealer].deals[holder])
        need(5, message["body"] == expected, f"delivery to {holder} is not what was dealt to it")
    ready: dict[int, list[int]] = {}
    for index, message in messages(5, case, "ready").items():
        need(5, index in members, f"{index} answered but is not in the cohort")
        check_signature(5, case, index, "deliver", message["body"], message["signature"])
        reader = Reader(5, f"answer of {index}", message["body"])
        ready[index] = reader.list()
        reader.end()
        dealers = dealers_of(case, index)
        need(5, set(ready[index]) <= set(dealers), f"{index} names who dealt it nothing")
        if index in case.secrets:
            bad = [dealer for dealer in dealers if open_deal(case, dealer, index) is None]
            need(5, ready[index] == bad, f"{index} names {ready[index]}, bad are {bad}")
    return case._replace(ready=ready)


def dealers_of(case: Case, holder: int) -> list[int]:
    return [dealer for dealer in sorted(case.dealings) if holder in case.dealings[dealer].deals]


# ---------------------------------------------------------------- section 6, contribute


def section_6(case: Case) -> Case:
    """Adds the masked vectors."""
    attempt = case.transcript["attempt"]
    need(6, 0 <= case.place < case.transcript["count"], "the key set is not of the run")
    need(6, len(bytes.fromhex(attempt["model"])) == 32, "a model hash has 32 bytes")
    need(6, 1 <= attempt["round"] < 2**32, "rounds count from 1")
    need(6, 1 <= attempt["attempt"] < 2**32, "attempts count from 1")
    masked: dict[int, list[int]] = {}
    for index, message in messages(6, case, "contributions").items():
        need(6, index in case.ready, f"{index} contributed but never answered Deliver")
        check_signature(6, case, index, "contribute", message["vector"], message["signature"])
        masked[index] = ring_vector(6, case, message["vector"])
        if index in case.secrets:
            secrets = case.secrets[index]
            vector = ring_vector(6, case, bytes.fromhex(secrets["vector"]))
            own = own_mask(case, bytes.fromhex(secrets["seeds"][case.place]), index)
            vector = add(case, vector, own, 1)
            for other in neighbours(case, index):
                private = bytes.fromhex(secrets["masks"][case.place])
                mask = pair_mask(case, private, index, other)
                vector = add(case, vector, mask, 1 if index < other else -1)
            need(6, vector == masked[index], f"{index}: not its vector plus its masks")
    return case._replace(masked=masked)


def neighbours(case: Case, index: int) -> list[int]:
    """The others of the cohort that ``index`` shares a mask with: either drew the other."""
    drew = set(case.dealings[index].deals) & set(case.dealings)
    return sorted(drew | set(dealers_of(case, index)))


def ring_vector(section: int, case: Case, data: bytes) -> list[int]:
    bits, dimension = case.terms.privacy.ring_bits, case.terms.dimension
    need(section, 8 * len(data) == dimension * bits, f"a vector has {len(data)} bytes")
    return list(struct.unpack(f"<{dimension}{'I' if bits == 32 else 'Q'}", data))


def add(case: Case, vector: list[int], mask: list[int], sign: int) -> list[int]:
    modulus = 2**case.terms.privacy.ring_bits
    return [(a + sign * b) % modulus for a, b in zip(vector, mask, strict=True)]


def expand(case: Case, seed: bytes) -> list[int]:
    zeros = bytes(case.terms.dimension * case.terms.privacy.ring_bits // 8)
    return ring_vector(6, case, Cipher(AES(seed), CTR(bytes(16))).encryptor().update(zeros))


def binding(case: Case) -> bytes:
    attempt = case.transcript["attempt"]
    numbers = u32(attempt["key_set"]) + u32(attempt["round"]) + u32(attempt["attempt"])
    return bytes.fromhex(case.terms.hash) + numbers + bytes.fromhex(attempt["model"])


def own_mask(case: Case, seed: bytes, index: int) -> list[int]:
    info = PREFIX + b"self\x00" + binding(case) + u32(index)
    return expand(case, hkdf(seed, case.cohort, info))


def pair_mask(case: Case, private: bytes, index: int, other: int) -> list[int]:
    """``private`` is the mask private key of ``index``."""
    secret = x(6, private, mask_public_key(case, other))
    ends = u32(min(index, other)) + u32(max(index, other))
    info = PREFIX + b"pair\x00" + binding(case) + ends
    return expand(case, hkdf(secret, case.cohort, info))


def mask_public_key(case: Case, index: int) -> bytes:
    return case.bodies[index][32 + 32 * case.place :][:32]


# ---------------------------------------------------------------- section 7, confirm


def section_7(case: Case) -> Case:
    """Adds who confirmed the lists."""
    N, _, D, _ = parameters(case)
    lists = bytes.fromhex(case.transcript["lists"])
    if not lists:
        need(8, D == 0, "shares were revealed for no lists where members may drop")
        need(7, sorted(case.masked) == sorted(case.dealings), "somebody is missing")
        need(7, not messages(7, case, "confirmations"), "what was confirmed?")
        return case._replace(confirmed=sorted(case.masked))
    reader = Reader(7, "lists", lists)
    survivors, dropped = reader.list(), reader.list()
    reader.end()
    need(7, not set(survivors) & set(dropped), "a member both survives and dropped")
    need(7, sorted(survivors + dropped) == sorted(case.dealings), "the lists are not the cohort")
    need(7, survivors == sorted(case.masked), "the survivors are not the contributors")
    need(7, len(survivors) >= N - D, f"there are {len(survivors)} survivors")
    confirmations = messages(7, case, "confirmations")
    for index, message in confirmations.items():
        need(7, index in survivors, f"{index} confirmed but did not survive")
        check_signature(7, case, index, "confirm", lists, message["signature"])
    return case._replace(confirmed=list(confirmations))


# ---------------------------------------------------------------- section 8, unmask


def section_8(case: Case) -> bytes:
    """The sum."""
    check_signatures(case)
    revealed = read_revealed(case)
    total = [0] * case.terms.dimension
    for vector in case.masked.values():
        total = add(case, total, vector, 1)
    for dealer in case.dealings:
        secret = rebuild(case, dealer, revealed[dealer])
        if dealer in case.masked:
            total = add(case, total, own_mask(case, secret, dealer), -1)
        else:
            for survivor in set(neighbours(case, dealer)) & set(case.masked):
                mask = pair_mask(case, secret, dealer, survivor)
                total = add(case, total, mask, -1 if survivor < dealer else 1)
    result = bytes.fromhex(case.transcript["sum"])
    need(8, total == ring_vector(8, case, result), "sum is not what unmasking gives")
    if set(case.masked) <= set(case.secrets):
        plain = [0] * case.terms.dimension
        for index in case.masked:
            vector = ring_vector(8, case, bytes.fromhex(case.secrets[index]["vector"]))
            plain = add(case, plain, vector, 1)
        need(8, total == plain, "sum is not the sum of the survivors' vectors")
    return result


def check_signatures(case: Case) -> None:
    """What the coordinator showed to whoever confirmed."""
    t = parameters(case)[3]
    lists = bytes.fromhex(case.transcript["lists"])
    if not lists:
        need(8, not case.transcript["signatures"], "signatures over no lists")
        return
    reader = Reader(8, "signatures", bytes.fromhex(case.transcript["signatures"]))
    signers: list[int] = []
    for _ in range(reader.u32()):
        index, signature = reader.u32(), reader.take(64)
        need(8, index > max(signers, default=0), "signatures: indices do not increase")
        need(8, index in case.confirmed, f"signatures: {index} never confirmed")
        check_signature(8, case, index, "confirm", lists, signature)
        signers.append(index)
    reader.end()
    need(8, len(signers) >= t, f"{len(signers)} signatures, not {t}")


def read_revealed(case: Case) -> dict[int, dict[int, int]]:
    """By dealer and holder: good shares, of the seed if the dealer survived, else the mask key."""
    t = parameters(case)[3]
    key_set = case.transcript["attempt"]["key_set"]
    revealed: dict[int, dict[int, int]] = {dealer: {} for dealer in case.dealings}
    answers = messages(8, case, "revealed")
    need(8, len(answers) >= t, f"{len(answers)} members unmask, not {t}")
    for holder, message in answers.items():
        need(8, holder in case.confirmed, f"{holder} reveals but never confirmed")
        check_signature(8, case, holder, "unmask", message["body"], message["signature"])
        held = sorted({holder, *dealers_of(case, holder)} - set(case.ready[holder]))
        reader = Reader(8, f"shares revealed by {holder}", message["body"])
        need(8, reader.u32() == len(held), f"{holder} holds {len(held)} shares")
        for dealer in held:
            need(8, reader.u32() == dealer, f"{holder} reveals other shares than it holds")
            share, salt = reader.take(33), reader.take(16)
            dealing, kind = case.dealings[dealer], 0 if dealer in case.masked else 1
            hashes = dealing.own_hashes if dealer == holder else dealing.deals[holder].hashes
            expected = hashes[64 * case.place + 32 * kind :][:32]
            found = share_hash(case, KINDS[kind], dealer, holder, key_set, salt, share)
            if found == expected:  # others are dropped, and there may be enough without them
                revealed[dealer][holder] = int.from_bytes(share, "big")
        reader.end()
    return revealed


def rebuild(case: Case, dealer: int, points: dict[int, int]) -> bytes:
    """The seed of a survivor, the mask private key of who dropped."""
    threshold = share_threshold(case, dealer)
    need(8, len(points) >= threshold, f"{len(points)} good shares of {dealer}, not {threshold}")
    need(8, max(points.values()) < PRIME, f"a share of {dealer} is no field element")
    need(8, on_one_polynomial(points, threshold), f"shares of {dealer} do not agree")
    number = interpolate(dict(list(points.items())[:threshold]), 0)
    need(8, number < 2**256, f"the secret of {dealer} has more than 32 bytes")
    secret = number.to_bytes(32, "big")
    if dealer in case.masked:
        commitment = case.dealings[dealer].commitments[32 * case.place :][:32]
        need(8, h("seed", case.keys, secret) == commitment, f"seed of {dealer} not committed to")
    else:
        same = public_key(secret) == mask_public_key(case, dealer)
        need(8, same, f"mask key of {dealer} is not the advertised one")
    return secret


# ---------------------------------------------------------------- section 9, the sparse graph


@functools.cache
def sparse_graph(N: int, c: int, D: int) -> tuple[int, int]:
    """Degree k and share threshold u, in exact arithmetic."""
    t = (N + c) // 2 + 1
    for k in range(2, N - D - 1):
        u = 2
        while N * at_least(u, N - D - 1, c, k) > Fraction(1, 2**41):
            u += 1
        corrupted = N * at_least(u, N - D - 1, c, k)
        if corrupted + max(exposed(N, c, D, k), exposed(N - D, c, 0, k)) > Fraction(1, 2**40):
            continue
        if N * (1 - at_least(u, N - 1, t - 1, k)) <= Fraction(1, 2**20):
            return k, u
    return N - 1, t  # everybody


def at_least(u: int, population: int, marked: int, draws: int) -> Fraction:
    """Probability that ``draws`` of a population hold ``u`` or more of its marked ones."""
    ways = 0
    for hit in range(u, draws + 1):
        ways += math.comb(marked, hit) * math.comb(population - marked, draws - hit)
    return Fraction(ways, math.comb(population, draws))


def exposed(n: int, c: int, e: int, k: int) -> Fraction:
    """Union bound on some honest survivors, not all, who drew none of the others."""
    h = n - c
    total = Fraction(0)
    for s in range(1, h - e):
        sets = math.comb(h, s) * math.comb(h - s, e)
        total += sets * Fraction(math.comb(s - 1 + c + e, k) ** s, math.comb(n - 1, k) ** s)
    return total
