"""The coordinator: it names who is at fault, goes on while it can, and its sums are exact."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import numpy as np
import pytest

from privacy.errors import MemberFault, RoundFailed
from privacy.secagg import Attempt, Cohort, KeyExchange, KeySets, Unmasking, shamir
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Revealed,
    Shares,
    Signatures,
    write_indices,
)
from tests.privacy.secagg.alliance import (
    MODEL,
    Alliance,
    Sum,
    attempt_fields,
    inside,
    other_statements,
    run_fields,
    sign,
    statement_fields,
    sum_of,
    terms_of,
)

AHEAD = ["advertise", "share", "deliver"]
IN_ATTEMPT = ["contribute", "confirm", "unmask"]
PHASES = [*AHEAD, *IN_ATTEMPT]
HER = "member-3"
SPARSE = 66


class Stage:
    """An alliance that has come to one phase: what everybody would say in it, not yet taken."""

    def __init__(self, phase: str, **changes: Any) -> None:
        self.phase = phase
        self.alliance = Alliance(terms_of(**changes))
        self.setup = self.alliance.setup
        self.run = self.alliance.key_sets
        self.sent = self.alliance.sent
        at = PHASES.index(phase)
        if at == 0:
            for name in self.alliance.here:
                self.sent.say("advertise", name, self.alliance.members[name].advertise(self.run))
            return
        self.alliance.advertise()
        self.alliance.share()
        if at >= 2:
            self.alliance.take_shares()
            self.alliance.deliver()
        if at >= 3:
            self.cohort = self.alliance.ready()
            self.sum = Sum(self.alliance, self.cohort)
            self.sum.contribute()
            self.sum.confirm()
            self.attempt = self.sum.attempt
        if at == 3:  # the same members, a coordinator that has heard nothing yet
            self.sum.unmasking = Unmasking(self.cohort, self.attempt)
        if at == 5:
            self.sum.take_confirmations()
            self.held = inside(self.alliance.members[HER])["_runs"][0]["held"]
            self.sum.reveal()

    def body(self, name: str) -> bytes:
        return self.sent.said[self.phase][name].body

    def fields(self, name: str, body: bytes) -> dict[str, Any]:
        """What the phase's signature covers, in the words of the specification."""
        exchange, fields = self.alliance.exchange, statement_fields(
            self.setup, self.phase, name, body
        )  # fmt: skip
        if self.phase == "advertise":
            return fields | run_fields(self.run)
        if self.phase == "share":
            return fields | run_fields(self.run, exchange._keys)
        if self.phase == "deliver":
            return fields | run_fields(self.run, exchange._cohort_hash)
        return fields | attempt_fields(self.attempt, self.cohort.hash)

    def take(self, name: str, body: bytes | None = None, signature: bytes | None = None) -> None:
        """Hands the member's message over; another body is signed by its sender."""
        if signature is None:
            if body is None:
                signature = self.sent.said[self.phase][name].signature
            else:
                signature = sign(name, self.fields(name, body))
        body = self.body(name) if body is None else body
        if self.phase == "advertise":
            self.alliance.exchange.take_advertisement(name, body, signature)
        elif self.phase == "share":
            self.alliance.exchange.take_shares(name, body, signature)
        elif self.phase == "deliver":
            self.alliance.exchange.take_ready(name, body, signature)
        elif self.phase == "contribute":
            hashed = hashlib.sha256(body).digest()
            self.sum.unmasking.take_contribution(name, hashed, signature)
        elif self.phase == "confirm":
            self.sum.unmasking.take_confirmation(name, signature)
        else:
            self.sum.unmasking.take_unmask(name, body, signature)

    def close(self) -> None:
        """Ends the phase."""
        if self.phase == "advertise":
            self.alliance.exchange.offer()
        elif self.phase == "share":
            self.alliance.exchange.close()
        elif self.phase == "deliver":
            self.alliance.exchange.finish()
        elif self.phase == "contribute":
            self.sum.unmasking.close()
        elif self.phase == "confirm":
            self.sum.unmasking.signatures()
        else:
            self.sum.unmasking.unmask(self.sum.total)

    def faults(self, name: str, *args: Any, match: str = "") -> None:
        """The message is a fault that names member and phase, and the member is not counted."""
        with pytest.raises(MemberFault, match=match or "phase") as caught:
            self.take(name, *args)
        assert caught.value.member == name
        assert str(caught.value).startswith(f"member {name}: ")
        where = "key sets 1 to 2" if self.phase in AHEAD else "round 3 attempt 1"
        assert where in caught.value.what

    def completes_without(self, *names: str) -> None:
        """From here on the others are honest; the sum holds whom it should, and is exact."""
        others = [name for name in self.alliance.here if name not in names]
        for name in others:
            self.take(name)
        alliance = self.alliance
        if self.phase in AHEAD:
            alliance.here = others
            if self.phase == "advertise":
                self.sent.offer = alliance.exchange.offer()
                alliance.share()
            if self.phase != "deliver":
                if self.phase == "advertise":
                    alliance.take_shares()
                else:
                    alliance.exchange.close()
                alliance.deliver()
                cohort = alliance.ready()
            else:
                cohort = alliance.exchange.finish()
            one = Sum(alliance, cohort)
            one.run()
            assert one.is_exact()
            assert one.unmasking.survivors == tuple(others)
            return
        one = self.sum
        one.leave(names)
        if self.phase == "contribute":
            one = Sum(alliance, self.cohort, 2)
            one.run({"contribute": names})
            assert one.unmasking.survivors == tuple(others)
        elif self.phase == "confirm":
            self.sent.signatures = one.unmasking.signatures()
            one.reveal()
            one.take_unmask()
            one.unmasking.unmask(one.total)
        else:
            one.unmasking.unmask(one.total)
        assert one.is_exact()


phases = pytest.mark.parametrize("phase", PHASES)


# What every phase refuses.


@phases
def test_every_phase_goes_through_when_all_are_honest(phase):
    """The positive control of all that follows."""
    Stage(phase).completes_without()


@phases
def test_messages_twice_are_faults_and_change_nothing(phase):
    stage = Stage(phase)
    stage.take(HER)
    stage.faults(HER, match=f"answered phase {phase} of .* twice")
    for name in stage.alliance.here:
        if name != HER:
            stage.take(name)
    stage.close()


@phases
def test_strangers_are_told_that_it_is_not_open_for_them(phase):
    stage = Stage(phase)
    stage.faults("stranger", b"", b"", match=f"phase {phase} of .* is not open for it")


@phases
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_bad_signatures_are_faults(phase, signature):
    stage = Stage(phase)
    size = len(signature)
    problem = "is not valid" if size == 64 else f"has 64 bytes, not {size}"
    stage.faults(HER, stage.body(HER), signature, match=f"phase {phase}: .*signature.*{problem}")
    stage.completes_without(HER)


@phases
def test_a_member_may_mend_a_bad_signature(phase):
    stage = Stage(phase)
    stage.faults(HER, stage.body(HER), bytes(64))
    stage.completes_without()


@phases
def test_signatures_are_bound_to_every_field(phase):
    stage = Stage(phase)
    body = stage.body(HER)
    fields = stage.fields(HER, body)
    assert sign(HER, fields) == stage.sent.said[phase][HER].signature
    assert len(fields) == 11
    for key, changed in other_statements(fields):
        assert changed != fields, key
        stage.faults(HER, body, sign(HER, changed), match=f"phase {phase}: ")
    other = "deliver" if phase != "deliver" else "share"
    stage.faults(HER, body, sign(HER, fields, context=other), match=f"phase {phase}: ")
    stage.faults(HER, body, sign("member-4", fields), match=f"phase {phase}: ")
    stage.completes_without()


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "confirm"])
def test_other_bodies_under_a_good_signature_are_faults(phase):
    """Confirm sends none: its body is the lists, which the coordinator made."""
    stage = Stage(phase)
    body = bytearray(stage.body(HER))
    body[-1] ^= 1
    signature = stage.sent.said[phase][HER].signature
    stage.faults(HER, bytes(body), signature, match=f"phase {phase}: ")
    stage.completes_without(HER)


@pytest.mark.parametrize("phase", ["advertise", "share", "deliver", "unmask"])
@pytest.mark.parametrize("change", ["empty", "cut", "longer", "garbage"])
def test_malformed_bodies_are_faults(phase, change):
    stage = Stage(phase)
    body = stage.body(HER)
    malformed = {
        "empty": b"", "cut": body[:-1], "longer": body + b"\x00", "garbage": b"\xff" * len(body),
    }[change]  # fmt: skip
    if (phase, change) == ("advertise", "garbage"):
        malformed = b"\xff" * 33
    stage.faults(HER, malformed, match=f"phase {phase}: ")
    stage.completes_without(HER)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "deliver"])
def test_late_messages_are_faults(phase):
    stage = Stage(phase)
    for name in stage.alliance.here:
        if name != HER:
            stage.take(name)
    stage.close()
    stage.faults(HER, match=f"phase {phase} of .* is not open")


def test_who_is_ready_late_changes_no_cohort():
    stage = Stage("deliver")
    for name in stage.alliance.here[:6]:
        stage.take(name)
    cohort = stage.alliance.exchange.finish()
    with contextlib.suppress(MemberFault):
        stage.take("member-7")
    assert cohort.ready_names == tuple(stage.alliance.here[:6])


@pytest.mark.parametrize("phase", ["share", "deliver", "confirm", "unmask"])
def test_early_messages_are_faults(phase):
    stage = Stage(phase)
    if phase in AHEAD:
        stage.alliance.exchange = KeyExchange(stage.setup, stage.run)
        with pytest.raises(MemberFault, match=f"phase {phase} of key sets 1 to 2 is not open"):
            stage.take(HER, stage.body(HER), bytes(64))
    else:
        stage.sum.unmasking = Unmasking(stage.cohort, stage.attempt)
        with pytest.raises(MemberFault, match=f"phase {phase} of round 3 attempt 1 is not open"):
            stage.take(HER, stage.body(HER), bytes(64))


LEAST = {"advertise": 6, "share": 6, "deliver": 6, "contribute": 6, "confirm": 5, "unmask": 5}
"""N - D = 6, t = 5."""


@phases
def test_enough_is_enough_and_one_less_is_not(phase):
    stage = Stage(phase)
    *most, last = stage.alliance.here[: LEAST[phase]]
    for name in most:
        stage.take(name)
    with pytest.raises(RoundFailed, match=f"{len(most)} members .* {LEAST[phase]}") as caught:
        stage.close()
    assert caught.value.members == ()
    stage.take(last)
    stage.close()


@pytest.mark.parametrize("phase", IN_ATTEMPT)
def test_a_failed_round_names_who_is_missing(phase):
    stage = Stage(phase)
    for name in stage.alliance.here[:4]:
        stage.take(name)
    with pytest.raises(RoundFailed, match=r"missing: member-4, member-5, member-6, member-7$"):
        stage.close()


def test_a_phase_is_closed_once_and_gives_the_same_again():
    alliance = Alliance(terms_of())
    cohort = alliance.cohort()
    exchange = alliance.exchange
    assert exchange.offer() == alliance.sent.offer
    assert exchange.close() == cohort.names == exchange.advertisers
    one = Sum(alliance, cohort)
    one.run()
    assert one.unmasking.close() == alliance.sent.lists
    assert one.unmasking.signatures() == alliance.sent.signatures
    with pytest.raises(RoundFailed, match="unmasked before"):
        one.unmasking.unmask(one.total)
    assert one.is_exact()


# Ahead of time.


def test_a_cohort_takes_no_more_than_its_size():
    alliance = Alliance(terms_of(members=9, cohort_size=8))
    alliance.here = list(alliance.setup.names)
    with pytest.raises(MemberFault, match=r"member-8: .*over the cohort's size"):
        alliance.advertise()
    assert len(alliance.exchange.advertisers) == 8


def test_keys_of_another_member_are_faults():
    stage = Stage("advertise")
    stage.take("member-0")
    theirs = Advertisement.decode(stage.body("member-0"), stage.run)
    own = Advertisement.decode(stage.body(HER), stage.run)
    for keys in (
        (theirs.masks[1], *own.masks),
        (own.sealing, theirs.masks[0], own.masks[1]),
        (own.sealing, own.masks[0], theirs.sealing),
    ):
        stage.faults(HER, b"".join(keys), match="advertised a key of another member")
    assert stage.alliance.exchange.advertisers == ("member-0",)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (2**255 - 19).to_bytes(32, "little"),
    ],
)
def test_degenerate_keys_are_faults(place, key):
    stage = Stage("advertise")
    body = stage.body(HER)
    body = body[: 32 * place] + key + body[32 * place + 32 :]
    stage.faults(HER, body, match="phase advertise: ")
    stage.completes_without(HER)


def resigned(shares: Shares, *deals: Deal) -> bytes:
    return Shares(shares.commitments, shares.own_hashes, deals).encode()


@pytest.mark.parametrize("what", ["one too few", "itself", "a stranger", "none"])
def test_deals_to_the_wrong_members_are_faults(what):
    stage = Stage("share")
    shares = Shares.decode(stage.body(HER), stage.run)
    *most, last = shares.deals
    other = {"itself": 4, "a stranger": 9}.get(what)
    if other:
        moved = Deal(other, last.hashes, last.nonce, last.sealed)
        deals = sorted([*most, moved], key=lambda deal: deal.member)
    else:
        deals = most if what == "one too few" else []
    stage.faults(HER, resigned(shares, *deals), match="dealt shares of .* to the wrong members")
    stage.completes_without(HER)


def test_deals_to_one_more_than_the_degree_are_faults():
    stage = Stage("share", members=SPARSE, dimension=3)
    degree = stage.setup.graph.degree
    shares = Shares.decode(stage.body(HER), stage.run)
    assert len(shares.deals) == degree
    free = next(
        index for index in range(1, SPARSE)
        if index != 4 and index not in {deal.member for deal in shares.deals}
    )  # fmt: skip
    extra = Deal(free, shares.deals[0].hashes, shares.deals[0].nonce, shares.deals[0].sealed)
    more = sorted([*shares.deals, extra], key=lambda deal: deal.member)
    for deals in (more, shares.deals[1:]):
        stage.faults(HER, resigned(shares, *deals), match="to the wrong members")
    stage.take(HER)


def test_deliveries_hold_what_the_cohort_dealt_to_that_member():
    stage = Stage("share")
    for name in stage.alliance.here[:7]:
        stage.take(name)
    assert stage.alliance.exchange.close() == tuple(stage.alliance.here[:7])
    delivery = Delivery.decode(stage.alliance.exchange.delivery(HER), stage.run)
    assert delivery.cohort == tuple(range(1, 8))
    assert [deal.member for deal in delivery.deals] == [1, 2, 3, 5, 6, 7]
    for deal in delivery.deals:
        dealt = Shares.decode(stage.body(f"member-{deal.member - 1}"), stage.run)
        (own,) = [one for one in dealt.deals if one.member == 4]
        assert (deal.hashes, deal.nonce, deal.sealed) == (own.hashes, own.nonce, own.sealed)


def test_who_did_not_deal_takes_no_delivery():
    stage = Stage("share")
    for name in stage.alliance.here[:7]:
        stage.take(name)
    stage.alliance.exchange.close()
    stage.phase = "deliver"
    stage.faults("member-7", b"", bytes(64), match="phase deliver of .* is not open for it")


def test_complaints_name_the_dealers():
    stage = Stage("deliver")
    body = write_indices([1, 6])
    taken = stage.alliance.exchange.take_ready(HER, body, sign(HER, stage.fields(HER, body)))
    assert taken == ("member-0", "member-5")


@pytest.mark.parametrize("dealers", [[4], [9], [1, 2**32 - 1]])
def test_complaints_of_oneself_or_of_strangers_are_faults(dealers):
    stage = Stage("deliver")
    stage.faults(HER, write_indices(dealers), match="complains of strangers")
    stage.completes_without(HER)


def test_a_complaint_costs_one_share_and_the_sum_is_exact():
    """A dealer that seals garbage for one holder: the holder complains and is ready."""
    stage = Stage("share")
    shares = Shares.decode(stage.body(HER), stage.run)
    bad = Deal(1, shares.deals[0].hashes, bytes(12), bytes(len(shares.deals[0].sealed)))
    stage.take(HER, resigned(shares, bad, *shares.deals[1:]))
    for name in stage.alliance.here:
        if name != HER:
            stage.take(name)
    alliance = stage.alliance
    alliance.exchange.close()
    alliance.deliver()
    complaints = {}
    for name in alliance.here:
        signed = stage.sent.said["deliver"][name]
        complaints[name] = alliance.exchange.take_ready(name, signed.body, signed.signature)
    assert complaints.pop("member-0") == (HER,)
    assert set(complaints.values()) == {()}
    one = Sum(alliance, alliance.exchange.finish())
    one.to_unmask()
    one.take_unmask()
    assert len(one.unmasking._shares[4]) == 7
    one.unmasking.unmask(one.total)
    assert one.is_exact()


def test_cohorts_name_their_members_and_who_is_ready():
    alliance = Alliance(terms_of(), KeySets(4, 3))
    cohort = alliance.cohort({"advertise": ("member-0",), "deliver": ("member-5",)})
    assert cohort.members == (2, 3, 4, 5, 6, 7, 8)
    assert cohort.names == tuple(f"member-{index}" for index in range(1, 8))
    assert cohort.ready_names == tuple(f"member-{index}" for index in (1, 2, 3, 4, 6, 7))
    assert cohort.key_sets == KeySets(4, 3)
    assert cohort.hash == Delivery.cohort_hash(cohort.keys, cohort.members)
    assert set(cohort.masks) == set(cohort.commitments) == set(cohort.hashes) == set(cohort.members)


def test_who_was_not_ready_is_not_heard_in_an_attempt():
    alliance = Alliance(terms_of())
    cohort = alliance.cohort({"deliver": ("member-5",)})
    one = Unmasking(cohort, Attempt(1, 3, 1, MODEL))
    with pytest.raises(MemberFault, match=r"member-5: phase contribute of .* is not open for it"):
        one.take_contribution("member-5", bytes(32), bytes(64))


# One attempt.


@pytest.mark.parametrize("key_set", [0, 3])
def test_key_sets_of_another_run_are_refused(key_set):
    cohort = Alliance(terms_of()).cohort()
    with pytest.raises(ValueError, match=f"key set {key_set} is not of key sets 1 to 2"):
        Unmasking(cohort, Attempt(key_set, 1, 1, MODEL))


def test_only_survivors_confirm_and_only_they_unmask():
    alliance = Alliance(terms_of())
    one = Sum(alliance, alliance.cohort())
    one.leave(["member-0"])
    one.contribute()
    lists = Lists.decode(alliance.sent.lists)
    assert lists == Lists((2, 3, 4, 5, 6, 7, 8), (1,))
    with pytest.raises(MemberFault, match=r"member-0: phase confirm of .* is not open for it"):
        one.unmasking.take_confirmation("member-0", bytes(64))
    one.leave(["member-1"])
    one.confirm()
    one.take_confirmations()
    assert one.unmasking.confirmed == tuple(one.here)
    assert [index for index, _ in Signatures.decode(alliance.sent.signatures).entries] == [
        3, 4, 5, 6, 7,
    ]  # fmt: skip
    with pytest.raises(MemberFault, match=r"member-1: phase unmask of .* is not open for it"):
        one.unmasking.take_unmask("member-1", bytes(4), bytes(64))


def test_late_vectors_stay_out():
    alliance = Alliance(terms_of())
    one = Sum(alliance, alliance.cohort())
    one.leave(["member-0"])
    one.contribute()
    with pytest.raises(MemberFault, match=r"member-0: phase contribute of .* is not open"):
        one.unmasking.take_contribution("member-0", bytes(32), bytes(64))
    assert one.unmasking.survivors == tuple(one.here)


def test_nothing_is_unmasked_before_its_time():
    alliance = Alliance(terms_of())
    one = Sum(alliance, alliance.cohort())
    assert one.unmasking.survivors == ()
    with pytest.raises(RoundFailed, match="0 members unmasked"):
        one.unmasking.unmask(one.total)
    assert not one.total.any()


@pytest.mark.parametrize("part", ["share", "salt", "other kind"])
def test_a_bad_revealed_share_is_left_out_and_named(part):
    stage = Stage("unmask")
    entries = list(Revealed.decode(stage.body(HER)).entries)
    dealer, share, salt = entries[0]
    if part == "share":
        entries[0] = (dealer, share[:-1] + bytes([share[-1] ^ 1]), salt)
    elif part == "salt":
        entries[0] = (dealer, share, bytes(16))
    else:  # both are what the dealer dealt, but of the kind that the lists do not call for
        held = stage.held[dealer][0]
        entries[0] = (dealer, held["mask_share"], held["mask_salt"])
    body = Revealed(tuple(entries)).encode()
    stage.faults(HER, body, match=r"dealers did not sign: member-0$")
    # What is good of it was taken, and the rest is enough.
    assert sorted(stage.sum.unmasking._shares) == [2, 3, 4, 5, 6, 7, 8]
    for name in stage.alliance.here:
        if name != HER:
            stage.take(name)
    stage.close()
    assert stage.sum.is_exact()


def test_shares_of_strangers_are_left_out_and_named():
    stage = Stage("unmask")
    entries = [one for one in Revealed.decode(stage.body(HER)).entries if one[0] != 8]
    body = Revealed((*entries, (8, bytes(33), bytes(16)))).encode()
    stage.faults(HER, body, match="did not sign: member-7$")
    assert 8 not in stage.sum.unmasking._shares


def bad_share(stage: Stage, name: str, dealer: int) -> bytes:
    entries = [
        (one, bytes(33) if one == dealer else share, salt)
        for one, share, salt in Revealed.decode(stage.body(name)).entries
    ]
    return Revealed(tuple(entries)).encode()


def test_too_few_good_shares_of_one_member_fail_the_round():
    stage = Stage("unmask")
    for name in stage.alliance.here[:4]:
        stage.faults(name, bad_share(stage, name, 1), match="did not sign: member-0$")
    for name in stage.alliance.here[4:]:
        stage.take(name)
    with pytest.raises(RoundFailed, match=r"4 good shares of member-0's secret .* 5 are needed"):
        stage.close()
    with pytest.raises(RoundFailed, match="unmasked before"):
        stage.close()


def test_good_shares_just_enough_complete_the_round():
    stage = Stage("unmask")
    for name in stage.alliance.here[:3]:
        stage.faults(name, bad_share(stage, name, 1), match="did not sign: member-0$")
    for name in stage.alliance.here[3:]:
        stage.take(name)
    stage.close()
    assert stage.sum.is_exact()


class Cheat:
    """A member whose shares do not give what it committed to; everything else of it is honest."""

    def __init__(self, kind: str) -> None:
        self.alliance = Alliance(terms_of())
        self.alliance.advertise()
        self.alliance.share()
        run = self.alliance.key_sets
        signed = self.alliance.sent.said["share"][HER]
        shares = Shares.decode(signed.body, run)
        member = self.alliance.members[HER]
        state = member._runs[0]
        if kind == "commitment":
            body = Shares((bytes(32), shares.commitments[1]), shares.own_hashes, shares.deals)
        else:
            # The same dealing again, but one kind of shares is of another secret.
            split = shamir_that_cheats(kind)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("privacy.secagg.shamir.split", split)
                drawn = sorted(state.drawn)
                body = member._deal(state, drawn)
                commitments = tuple(
                    hashlib.sha256(b"alliance/v1/secagg/seed\x00" + state.keys + seed).digest()
                    for seed in state.seeds
                )
                assert body.commitments == commitments
        encoded = body.encode()
        fields = statement_fields(self.alliance.setup, "share", HER, encoded)
        fields |= run_fields(run, state.keys)
        signed = type(signed)(encoded, sign(HER, fields))
        self.alliance.sent.say("share", HER, signed)
        self.alliance.take_shares()
        self.alliance.deliver()
        self.one = Sum(self.alliance, self.alliance.ready())


def shamir_that_cheats(kind: str):
    split = shamir.split
    calls = 0

    def cheat(secret, points, threshold, entropy):
        nonlocal calls
        calls += 1
        is_seed = calls % 2 == 1
        if (kind == "seed") == is_seed and kind != "too large":
            return split(bytes(32), points, threshold, entropy)
        if kind == "too large" and is_seed:
            return [(2**256 + 5).to_bytes(33)] * len(points)
        return split(secret, points, threshold, entropy)

    return cheat


@pytest.mark.parametrize(
    ("kind", "absent"),
    [("commitment", ()), ("seed", ()), ("too large", ()), ("mask", (HER,))],
)
def test_a_bad_dealer_fails_the_round_and_is_named(kind, absent):
    one = Cheat(kind).one
    with pytest.raises(RoundFailed, match="member-3 dealt do not give the secret") as caught:
        one.run({"contribute": absent})
    assert caught.value.members == (HER,)


@pytest.mark.parametrize(("kind", "absent"), [("seed", (HER,)), ("mask", ())])
def test_a_bad_dealing_that_is_not_needed_does_no_harm(kind, absent):
    one = Cheat(kind).one
    one.run({"contribute": absent})
    assert one.is_exact()


# Sums.


DROPS = [
    {},
    {"advertise": ("member-1",)},
    {"share": ("member-1",)},
    {"deliver": ("member-1",)},
    {"contribute": ("member-1",)},
    {"confirm": ("member-1",)},
    {"unmask": ("member-1",)},
    {"contribute": ("member-0", "member-7")},
    {"advertise": ("member-7",), "contribute": ("member-0",)},
    {"share": ("member-7",), "deliver": ("member-0",)},
    {"deliver": ("member-3",), "contribute": ("member-4",), "confirm": ("member-5",)},
    {"contribute": ("member-3", "member-4"), "unmask": ("member-7",)},
    {"confirm": ("member-0", "member-2"), "unmask": ("member-1",)},
]  # fmt: skip


@pytest.mark.parametrize("absent", DROPS, ids=str)
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_sums_are_exact_whoever_drops_when(absent, ring_bits):
    terms = terms_of(ring_bits=ring_bits, dimension=131)
    alliance = Alliance(terms)
    one = Sum(alliance, alliance.cohort(absent))
    total = one.run(absent)
    gone = {
        name for phase in ("advertise", "share", "deliver", "contribute")
        for name in absent.get(phase, ())
    }  # fmt: skip
    left = [name for name in alliance.setup.names if name not in gone]
    assert one.unmasking.survivors == tuple(left)
    assert total.dtype == (np.uint32 if ring_bits == 32 else np.uint64)
    assert (total == sum_of(terms, left)).all()


@pytest.fixture(scope="module")
def sparse() -> tuple[Alliance, Cohort]:
    alliance = Alliance(terms_of(members=SPARSE, dimension=19), KeySets(1, 3))
    assert alliance.setup.graph.degree is not None
    return alliance, alliance.cohort({"advertise": ("member-9",)})


@pytest.mark.parametrize(
    ("key_set", "absent"),
    [
        (1, {"contribute": ("member-0",)}),
        (2, {"contribute": ("member-65",), "confirm": ("member-4",), "unmask": ("member-5",)}),
        (3, {"unmask": tuple(f"member-{index}" for index in range(31))}),
    ],
)
def test_sums_over_a_sparse_graph_are_exact(sparse, key_set, absent):
    alliance, cohort = sparse
    one = Sum(alliance, cohort, key_set)
    one.run(absent)
    assert one.is_exact()
    gone = len(absent.get("contribute", ()))
    assert len(one.unmasking.survivors) == SPARSE - 1 - gone


def test_members_of_a_sparse_graph_mask_with_whom_they_drew_or_were_drawn_by(sparse):
    alliance, cohort = sparse
    degree = alliance.setup.graph.degree
    for index in cohort.members:
        run = alliance.members[f"member-{index - 1}"]._runs[0]
        drawn = set(cohort.hashes[index]) - {index}
        drew = {dealer for dealer in cohort.members if index in cohort.hashes[dealer]} - {index}
        assert len(drawn) == degree
        assert set(run.held) == drew | {index}
        assert run.drawn == drawn


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_change_no_sum(threads):
    alliance = Alliance(terms_of())
    one = Sum(alliance, alliance.cohort())
    one.to_unmask({"contribute": ("member-6",)})
    one.take_unmask()
    one.unmasking.unmask(one.total, most_threads=threads)
    assert one.is_exact()


def test_a_sum_is_of_the_model_it_was_begun_with():
    """Members that mask under another model: their signatures do not hold for this attempt."""
    alliance = Alliance(terms_of())
    cohort = alliance.cohort()
    one = Unmasking(cohort, Attempt(1, 3, 1, MODEL))
    vector = np.zeros(6, dtype=np.uint32)
    signature = alliance.members[HER].mask(Attempt(1, 3, 1, MODEL[::-1]), vector)
    with pytest.raises(MemberFault, match=r"phase contribute: .*not valid"):
        one.take_contribution(HER, hashlib.sha256(vector.data).digest(), signature)


def test_offers_are_by_index_whoever_comes_first():
    alliance = Alliance(terms_of())
    alliance.here.reverse()
    alliance.advertise()
    offer = Offer.decode(alliance.sent.offer, alliance.key_sets)
    assert [index for index, _, _ in offer.entries] == list(range(1, 9))


def test_a_late_ready_is_a_fault():
    stage = Stage("deliver")
    for name in stage.alliance.here[:7]:
        stage.take(name)
    stage.close()
    stage.faults("member-7", match="phase deliver of .* is not open")


@pytest.mark.parametrize("name", ["stranger", "member-7"])
def test_nothing_is_delivered_outside_the_cohort(name):
    stage = Stage("share")
    for one in stage.alliance.here[:7]:
        stage.take(one)
    stage.alliance.exchange.close()
    with pytest.raises(MemberFault, match="not open for it"):
        stage.alliance.exchange.delivery(name)


def test_a_share_of_nobody_names_its_revealer():
    stage = Stage("unmask")
    entries = Revealed.decode(stage.body(HER)).entries
    body = Revealed((*entries, (10**6, bytes(33), bytes(16)))).encode()
    stage.faults(HER, body, match="did not sign: index 1000000")
    for name in stage.alliance.here:
        if name != HER:
            stage.take(name)
    stage.close()
    assert stage.sum.is_exact()


def test_an_answer_that_leaves_shares_out_does_not_count():
    stage = Stage("unmask")
    entries = Revealed.decode(stage.body(HER)).entries
    stage.faults(HER, Revealed(entries[1:]).encode(), match="left out shares in .*: member-0$")
    assert not stage.sum.unmasking._revealed
    assert stage.sum.unmasking._shares[8]
