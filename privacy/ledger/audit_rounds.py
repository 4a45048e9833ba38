"""Adding rounds again from their masked contributions, and folding releases again (section 6).

Numbers are those of `findings.CHECKS`. Needs numpy and cryptography.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field, StringConstraints, ValidationError

from privacy.documents import LONGEST, StrictModel, check_density, first_problem
from privacy.empirical.releases import INDEX, open_releases
from privacy.errors import AllianceError, EvidenceError
from privacy.fixedpoint import Grid, RingVector, add_in_place, decode
from privacy.ledger.audit_study import Released, Study
from privacy.ledger.bundle import Bundle
from privacy.ledger.entry import Ordinal, Sha256, Signature, parse_canonical
from privacy.ledger.findings import Findings
from privacy.ledger.folds import Fold
from privacy.secagg import Attempt, KeyExchange, KeySets, Setup, model_hash
from privacy.secagg.binding import digest, pair_seed, self_seed
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import Advertisement, Delivery, Offer, Shares
from privacy.terms import Name

__all__ = ["add_again", "fold_again", "kept_rounds"]

LONGEST_OPENING: Final = 1 << 30
LEAST_FIELD_BYTES: Final = 64
"""Of an opening's wide objects: each field is a name and a hash, a key or a body."""
FILE: Final = "coordinator/entries.jsonl"

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})*$")]
Sums = Callable[[], npt.NDArray[np.float64]]


class _Body(StrictModel):
    body: Hex
    signature: Signature


class _Opening(StrictModel):
    """What the coordinator saw of a round besides its contributions."""

    advertised: dict[Name, _Body]
    count: Ordinal
    dropped: tuple[Name, ...]
    first: Ordinal
    key_set: Ordinal
    mask_keys: dict[Name, Sha256]
    seeds: dict[Name, Sha256]
    shared: dict[Name, _Body]
    survivors: Annotated[tuple[Name, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class _Exchanged:
    """A key exchange as its signed messages tell it, by index."""

    keys: bytes
    cohort: bytes
    members: tuple[int, ...]
    masks: Mapping[int, bytes]
    commitments: Mapping[int, bytes]
    holders: Mapping[int, frozenset[int]]


def kept_rounds(bundle: Bundle) -> dict[tuple[str, int, int], str]:
    """Rounds whose contributions are in the folder: label, round, attempt, and where."""
    kept = {}
    for path in bundle.under("coordinator/rounds/"):
        if path.endswith("/opening.json"):
            _, _, label, folder, _ = path.split("/")
            _, round_number, attempt = folder.split("-")
            kept[label, int(round_number), int(attempt)] = path.removesuffix("/opening.json")
    return kept


def add_again(
    bundle: Bundle, folder: str, study: Study, released: Released, findings: Findings
) -> npt.NDArray[np.float64] | None:
    """Adds one round again, check (15).

    Returns:
        The decoded sum, float64, shape (dimension,); None if something does not hold.
    """
    findings.count(15)
    try:
        return decode(_sum(bundle, folder, study, released), Grid.of(study.terms))
    except (AllianceError, OverflowError) as error:  # the protocol's numbers have 32 bits
        where = f"{folder}/opening.json"
        findings.add(15, where, f"{str(error).removeprefix(where).lstrip(': ')}")
        return None


def _sum(bundle: Bundle, folder: str, study: Study, released: Released) -> RingVector:
    """The unmasked ring sum of a round.

    Raises:
        EvidenceError: by the numbers below.
    """
    # a. The opening is canonical and about this attempt; survivors are the contributors.
    # b. Advertisements and shares are signed by the members, and make the cohort that is logged.
    # c. Each contribution has the hash that is logged.
    # d. Seeds fit their commitments, mask keys their advertised keys; none is missing.
    # e. The sum without the masks has the hash that is logged.
    opening = _opening(bundle, f"{folder}/opening.json")
    setup = study.setup
    if (opening.key_set, opening.survivors) != (released.key_set, released.contributors):  # a
        raise EvidenceError("is of another key set, or of other survivors, than the log says")
    exchanged = _exchange(setup, opening)  # b
    if exchanged.cohort.hex() != released.cohort:
        raise EvidenceError("its keys and shares make another cohort than the log says")
    survivors = [setup.indices[name] for name in opening.survivors]
    dropped = sorted(set(exchanged.members) - set(survivors))
    if [setup.name(index) for index in dropped] != list(opening.dropped):
        raise EvidenceError("survivors and dropped members are not the cohort")
    total = _masked(bundle, folder, study, released)  # c
    attempt = Attempt(
        released.key_set, released.round, released.attempt, bytes.fromhex(released.model)
    )
    add, subtract = _seeds(setup, exchanged, opening, attempt, survivors, dropped)  # d
    apply_masks(total, add=add, subtract=subtract)
    if hashlib.sha256(total.tobytes()).hexdigest() != released.sum:  # e
        raise EvidenceError(
            "the sum of the contributions without their masks is not the one that was released"
        )
    return total


def _opening(bundle: Bundle, path: str) -> _Opening:
    data = bundle.read(path, most_bytes=LONGEST_OPENING)
    try:
        check_density(data, LEAST_FIELD_BYTES)
        parse_canonical(data, where=path, longest=LONGEST_OPENING, widest=LONGEST)
        return _Opening.model_validate_json(data)
    except ValidationError as error:
        raise EvidenceError(f"{path}: {first_problem(error)}") from error
    except ValueError as error:
        raise EvidenceError(f"{path}: {error}; export the bundle again") from error


def _exchange(setup: Setup, opening: _Opening) -> _Exchanged:
    """The key exchange again, with the coordinator's own state machine."""
    key_sets = KeySets(opening.first, opening.count)
    if opening.key_set not in key_sets:
        raise EvidenceError(f"key set {opening.key_set} is not of its run")
    exchange = KeyExchange(setup, key_sets)
    place = opening.key_set - opening.first
    try:
        for name in setup.names:
            if one := opening.advertised.get(name):
                exchange.take_advertisement(name, bytes.fromhex(one.body), _bytes(one.signature))
        offer = Offer.decode(exchange.offer(), key_sets)
        for name in setup.names:
            if one := opening.shared.get(name):
                exchange.take_shares(name, bytes.fromhex(one.body), _bytes(one.signature))
        names = exchange.close()
    except AllianceError as error:
        raise EvidenceError(f"its key exchange does not hold: {error}") from error
    keys = offer.hash(setup.terms_hash, key_sets)
    members = tuple(setup.indices[name] for name in names)
    shares = {
        setup.indices[name]: Shares.decode(_bytes(opening.shared[name].body), key_sets)
        for name in names
    }
    return _Exchanged(
        keys=keys,
        cohort=Delivery.cohort_hash(keys, members),
        members=members,
        masks={
            setup.indices[name]: Advertisement.decode(
                _bytes(opening.advertised[name].body), key_sets
            ).masks[place]
            for name in names
        },
        commitments={index: one.commitments[place] for index, one in shares.items()},
        holders={
            index: frozenset(deal.member for deal in one.deals) for index, one in shares.items()
        },
    )


def _masked(bundle: Bundle, folder: str, study: Study, released: Released) -> RingVector:
    terms = study.terms
    grid = Grid.of(terms)
    total: RingVector = np.zeros(terms.dimension, dtype=grid.dtype)
    for name in released.contributors:
        path = f"{folder}/{name}.bin"
        data = bundle.read(path, most_bytes=total.nbytes)
        if hashlib.sha256(data).hexdigest() != released.contributions[name]:
            raise EvidenceError(f"{path}: is not the contribution that was logged")
        if len(data) != total.nbytes:
            raise EvidenceError(f"{path}: {len(data)} bytes, {total.nbytes} are due")
        add_in_place(total, np.frombuffer(data, dtype=grid.dtype))
    return total


def _seeds(
    setup: Setup,
    exchanged: _Exchanged,
    opening: _Opening,
    attempt: Attempt,
    survivors: list[int],
    dropped: list[int],
) -> tuple[list[bytes], list[bytes]]:
    """Seeds of masks to add to the sum and to subtract from it."""
    add: list[bytes] = []
    subtract: list[bytes] = []
    for index in survivors:
        secret = _bytes(opening.seeds.get(setup.name(index), ""))
        if digest("seed", exchanged.keys, secret) != exchanged.commitments[index]:
            raise EvidenceError(f"the seed of {setup.name(index)} is not the one it committed to")
        subtract.append(self_seed(setup, secret, exchanged.cohort, attempt, one=index))
    for index in dropped:
        others = _neighbours(exchanged, index) & set(survivors)
        if not others:
            continue
        secret = _bytes(opening.mask_keys.get(setup.name(index), ""))
        try:
            key = X25519PrivateKey.from_private_bytes(secret)
            if key.public_key().public_bytes_raw() != exchanged.masks[index]:
                raise ValueError("another key")
            for other in others:
                shared = key.exchange(X25519PublicKey.from_public_bytes(exchanged.masks[other]))
                seed = pair_seed(setup, shared, exchanged.cohort, attempt, one=index, other=other)
                # The survivor added this mask if its index is the lower one.
                (subtract if other < index else add).append(seed)
        except ValueError as error:
            raise EvidenceError(
                f"the mask key of {setup.name(index)} is not the one it advertised"
            ) from error
    return add, subtract


def _neighbours(exchanged: _Exchanged, index: int) -> set[int]:
    drew = {dealer for dealer, holders in exchanged.holders.items() if index in holders}
    return (set(exchanged.holders[index]) | drew) - {index}


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text)


# Folding.


def fold_again(
    bundle: Bundle,
    study: Study,
    fold: Fold | None,
    added: Mapping[tuple[int, int], npt.NDArray[np.float64]],
    findings: Findings,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Folds a study's releases from its initial model on, check (16).

    Args:
        bundle: the folder.
        study: as the log tells it.
        fold: of its recipe; None if it is not installed.
        added: sums that were added again, by round and attempt.
        findings: takes what does not hold.
        told: is told how far it is.
    """
    if not study.released:
        return
    terms = study.terms
    if fold is None:
        findings.cannot(
            f"whether the models of {study.label} follow from its releases: the fold of recipe "
            f"{terms.recipe} is not installed"
        )
        return
    sums = _sums(bundle, study, findings)
    sums |= {key: partial(np.asarray, total) for key, total in added.items()}
    published = {one.round: one for one in study.publications}
    try:
        state = fold.initial_state(terms)
    except AllianceError as error:
        findings.add(16, FILE, f"{study.label}: {error}", entry=study.released[0].index)
        return
    for done, released in enumerate(study.released):
        told(done, len(study.released))
        expected = model_hash(state.parameters).hex()
        if released.model != expected:  # (16)
            what = (
                f"round {released.round} of {study.label} starts from a model that its terms and "
            )
            findings.add(16, FILE, f"{what}the releases before do not give", entry=released.index)
            return
        read = sums.get((released.round, released.attempt))
        if read is None:
            findings.cannot(
                f"whether the models of {study.label} follow from its releases, from round "
                f"{released.round} on: its sum is not in the folder"
            )
            return
        findings.count(16)
        try:
            declared = sum(terms.entry(name).declared_consumers for name in released.contributors)
            mean = read() / (terms.privacy.sampling_probability * declared)
            state = fold.fold(state, mean, terms)
        except AllianceError as error:
            findings.add(16, FILE, f"{study.label}: {error}", entry=released.index)
            return
        if model_hash(state.parameters).hex() != released.next_model:  # (16)
            what = f"round {released.round} of {study.label}: the release does not lead to the "
            findings.add(16, FILE, f"{what}model that is logged", entry=released.index)
            return
        publication = published.get(released.round)
        if publication and model_hash(fold.published(state)).hex() != publication.model:
            what = f"what {study.label} published after round {released.round} is not what its "
            findings.add(16, FILE, f"{what}releases lead to", entry=publication.index)


def _sums(bundle: Bundle, study: Study, findings: Findings) -> dict[tuple[int, int], Sums]:
    """Decoded sums that the folder holds, each checked against the log."""
    path = f"coordinator/releases/{study.label}/{INDEX}"
    if not bundle.has(path):
        return {}
    try:
        found = open_releases((bundle.folder / path).parent, study.terms)
        lines = [parse_canonical(line, where=path) for line in bundle.lines(path, longest=1 << 24)]
    except AllianceError as error:
        findings.add(16, path, str(error).removeprefix(f"{bundle.folder}/"))
        return {}
    logged = {(one.round, one.attempt): one for one in study.released}
    sums: dict[tuple[int, int], Sums] = {}
    for number, (release, line) in enumerate(zip(found, lines, strict=True)):
        released = logged.get((release.round, release.attempt))
        if (
            released is None
            or released.sum != line["sum"]
            or released.contributors != release.contributors
        ):
            what = f"round {release.round} attempt {release.attempt} is not a release of the log"
            findings.add(16, path, what, entry=number)
        else:
            sums[release.round, release.attempt] = release.total
    return sums
