"""The audit: an honest alliance is sound, and each way to lie is found by the check it is for."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest

from benchmarks.ledger_campaign.small_alliance import small_terms
from privacy.ledger.audit_study import check_profile, figures_of
from privacy.ledger.checkpoint import Checkpoint, add_cosignatures, cosign, sign_checkpoint
from privacy.ledger.entry import (
    Acceptance,
    Conflict,
    Consent,
    Contribution,
    Failure,
    Heads,
    Left,
    Proposal,
    Publication,
    Release,
    Reservation,
    canonical,
    encode_entry,
)
from privacy.ledger.findings import CHECKS, MOST_FINDINGS, Findings
from privacy.ledger.merkle import Stream, leaf_hash
from tests.conftest import identity
from tests.privacy.ledger.bundles import Liar, audit, copy, export, seal

COORDINATOR = "coordinator/entries.jsonl"
OTHER = "ab" * 32


def changed(kind, **fields):
    """Changes fields of every entry of a kind."""
    return lambda entry: entry.model_copy(update=fields) if isinstance(entry, kind) else entry


def without(kind):
    return lambda entry: None if isinstance(entry, kind) else entry


def once(change):
    """Changes the first entry that the change changes, and no other."""
    done = []

    def apply(entry):
        result = change(entry)
        if done or result is entry:
            return entry
        done.append(entry)
        return result

    return apply


def checks_of(tmp_path, **lies) -> set[int]:
    with closing(Liar(tmp_path / "alliance", **lies).run()) as liar:
        said = audit(export(liar, tmp_path / "bundle"))
    assert not said.sound
    return {one.check for one in said.findings}


def test_an_honest_alliance_is_sound(bundle, alliance):
    said = audit(bundle)
    assert said.findings == ()
    assert set(said.checked) == set(CHECKS)
    assert all(said.checked.values())
    assert said.entries == alliance.store.size + sum(
        one.store.size for one in alliance.members.values()
    )
    (study,) = said.studies
    assert (study.attempts, study.releases, study.publications) == (3, 2, 1)
    assert all(a <= b <= c for a, b, c in zip(study.spent, study.whole, study.second, strict=True))
    json.dumps(said.document())


def test_what_is_known_from_elsewhere_is_compared(bundle, alliance):
    key, terms = alliance.key.public, alliance.terms.hash
    said = audit(bundle, key=key, terms=[terms])
    assert said.sound
    assert said.unchecked == ()
    assert {one.check for one in audit(bundle, key=OTHER).findings} == {4}
    assert {one.check for one in audit(bundle, terms=[OTHER]).findings} == {6}


@pytest.mark.parametrize(
    ("lie", "checks"),
    [
        (once(changed(Release, sum=OTHER)), {15, 16}),  # A16
        (once(changed(Release, next_model=OTHER)), {8, 16}),
        (once(changed(Release, model=OTHER, cohort=OTHER)), {9, 15}),
        (changed(Failure, round=1), {8}),
        (changed(Failure, key_set=1, model=OTHER), {8, 9}),
        (without(Failure), {13}),  # A15: the coordinator hides an attempt
        (without(Proposal), {8}),
        (once(without(Acceptance)), {8}),
        (once(changed(Acceptance, signature="00" * 64)), {6}),
        (once(changed(Acceptance, ledger_key=OTHER)), {6}),
        (changed(Publication, round=3), {8}),
        (changed(Publication, model=OTHER), {14, 16}),
        (changed(Publication, file=OTHER), {14}),
    ],
)
def test_a_coordinator_that_lies_is_found(tmp_path, lie, checks):
    assert checks <= checks_of(tmp_path, coordinator=lie)


def hide_a_contribution(entry):
    if isinstance(entry, Release) and entry.round == 1:
        return entry.model_copy(update={"contributions": entry.contributions[1:]})
    return entry


def forge_a_contribution(entry):
    if isinstance(entry, Release) and entry.round == 1:
        first, *rest = entry.contributions
        forged = first.model_copy(update={"sha256": OTHER})
        return entry.model_copy(update={"contributions": (forged, *rest)})
    return entry


def test_contributions_hidden_or_forged_are_found(tmp_path):
    assert 15 in checks_of(tmp_path / "a", coordinator=hide_a_contribution)
    assert {9, 13, 15} <= checks_of(tmp_path / "b", coordinator=forge_a_contribution)


@pytest.mark.parametrize(
    ("lie", "checks"),
    [
        (once(without(Contribution)), {12, 13}),  # A15: the member hides what it spent
        (once(changed(Contribution, sha256=OTHER)), {12, 13}),
        (without(Reservation), {10}),
        (changed(Reservation, count=9), {10}),  # L8: beyond the terms
        (changed(Consent, signature="00" * 64, failure_atto=0), {6, 10}),
        (changed(Consent, profile_micro=(1, 2, 3, 4, 5)), {11}),  # L7: accountants differ
        (lambda entry: entry.model_copy(update={"costs": tuple(
            one.model_copy(update={"rdp_nano": 0}) for one in entry.costs)})
         if isinstance(entry, Consent) else entry, {10}),
    ],
)  # fmt: skip
def test_a_member_that_lies_is_found(tmp_path, lie, checks):
    assert checks <= checks_of(tmp_path, member=lie)


def leave_at_the_first(kind):
    """Puts `left` in the place of the first entry of a kind; the log goes on."""
    return once(lambda e: Left(at_ms=e.at_ms, sentence="gone") if isinstance(e, kind) else e)


@pytest.mark.parametrize("kind", [Consent, Reservation, Contribution])
def test_a_member_that_spends_after_it_left_is_found(tmp_path, kind):
    with closing(Liar(tmp_path / "alliance", member=leave_at_the_first(kind)).run()) as liar:
        said = audit(export(liar, tmp_path / "bundle"))
    assert any("has left the alliance" in one.what for one in said.findings if one.check == 10)


def test_leaving_is_no_finding_and_is_shown(tmp_path):
    with closing(Liar(tmp_path / "alliance").run()) as liar:
        one = liar.members["member-2"]
        liar.append(one, Left(at_ms=liar.clock(), sentence="we sell no groceries any more"))
        liar.witness()
        said = audit(export(liar, tmp_path / "bundle"))
    assert said.findings == ()
    shown = {one["member"]: one["left_ms"] for one in said.document()["members"]}
    assert shown["member-2"] > 0
    assert {at for name, at in shown.items() if name != "member-2"} == {None}


def test_too_few_witnesses_are_found(tmp_path):
    assert checks_of(tmp_path, silent=("member-0", "member-1")) == {7}


# What is done to a bundle afterwards, by whoever holds the keys.


def sign_head(folder, log, origin, key) -> None:
    stream = Stream()
    for line in (folder / log / "entries.jsonl").read_bytes().split(b"\n")[:-1]:
        stream.append(leaf_hash(line))
    head = sign_checkpoint(Checkpoint(origin, stream.size, stream.root()), key)
    (folder / log / "head.note").write_bytes(head)


@pytest.mark.parametrize("way", ["dropped", "inserted", "reordered", "edited"])  # L4
def test_leaves_that_were_touched_are_found(bundle, alliance, tmp_path, way):
    folder = copy(bundle, tmp_path / "b")
    path = folder / COORDINATOR
    lines = path.read_bytes().splitlines(keepends=True)
    if way == "dropped":
        del lines[3]
    elif way == "inserted":
        lines.insert(3, lines[4])
    elif way == "reordered":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines[3] = lines[3].replace(b'"at_ms":', b'"at_ms":1')
    path.write_bytes(b"".join(lines))
    seal(folder, alliance.key)
    assert 4 in {one.check for one in audit(folder).findings}
    sign_head(folder, "coordinator", "small/coordinator", alliance.key)
    seal(folder, alliance.key)
    found = audit(folder).findings
    assert 4 not in {one.check for one in found}
    assert 5 in {one.check for one in found}


def test_a_log_that_went_back_is_found(bundle, alliance, tmp_path):
    """L2: receipts and papers remember what the coordinator wants forgotten."""
    folder = copy(bundle, tmp_path / "b")
    path = folder / COORDINATOR
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (folder / "coordinator/cosigned.note").unlink()
    sign_head(folder, "coordinator", "small/coordinator", alliance.key)
    seal(folder, alliance.key)
    found = audit(folder).findings
    assert {5, 7, 14} <= {one.check for one in found}
    assert any("entries were taken away" in one.what for one in found)


def test_a_fork_is_found(bundle, alliance, tmp_path):
    """L5: a witness kept two heads of one size."""
    folder = copy(bundle, tmp_path / "b")
    one = (folder / "coordinator/head.note").read_bytes()
    size = int(one.split(b"\n")[1])
    other = sign_checkpoint(Checkpoint("small/coordinator", size, bytes(32)), alliance.key)
    kept = Conflict(at_ms=1, origin="small/coordinator", held=one.decode(), shown=other.decode())
    with (folder / "members/member-0/entries.jsonl").open("ab") as file:
        file.write(encode_entry(kept) + b"\n")
    sign_head(folder, "members/member-0", "small/member/member-0", alliance.members["member-0"].key)
    seal(folder, alliance.key)
    (finding,) = audit(folder).findings
    assert (finding.check, finding.file) == (5, "members/member-0/entries.jsonl")
    assert "kept as evidence" in finding.what


def test_an_old_head_shown_again_proves_nothing(bundle, alliance, tmp_path):
    folder = copy(bundle, tmp_path / "b")
    stream = Stream()
    for line in (folder / COORDINATOR).read_bytes().split(b"\n")[:3]:
        stream.append(leaf_hash(line))
    old = sign_checkpoint(Checkpoint("small/coordinator", 3, stream.root()), alliance.key)
    held = (folder / "coordinator/head.note").read_text()
    kept = Conflict(at_ms=1, origin="small/coordinator", held=held, shown=old.decode())
    with (folder / "members/member-0/entries.jsonl").open("ab") as file:
        file.write(encode_entry(kept) + b"\n")
    sign_head(folder, "members/member-0", "small/member/member-0", alliance.members["member-0"].key)
    seal(folder, alliance.key)
    assert audit(folder).sound


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"a":1,"a":1}', "canonical"),  # L11
        (b'{"kind":"started","at_ms":1}', "canonical"),
        (b'{"at_ms":1,"kind":"nothing","version":1}', "nothing"),
        (b'{"at_ms":1.0,"kind":"started","version":1}', "not an integer"),
        (b'{"at_ms":1,"kind":"started","nonce":"","software":"","version":2}', "version"),
        (b"not json", "canonical JSON"),
        (b"", "canonical JSON"),
        (b'{"at_ms":1,"kind":"started","nonce":"","software":"","version":1}\r', "canonical"),
    ],
)
def test_entries_that_are_none_are_named_with_their_index(bundle, alliance, tmp_path, line, why):
    folder = copy(bundle, tmp_path / "b")
    path = folder / "members/member-0/entries.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[4] = line
    path.write_bytes(b"\n".join(lines))
    sign_head(folder, "members/member-0", "small/member/member-0", alliance.members["member-0"].key)
    seal(folder, alliance.key)
    found = [one for one in audit(folder).findings if one.check == 3]
    assert [(one.file, one.entry) for one in found] == [("members/member-0/entries.jsonl", 4)]
    assert why in found[0].what


def test_a_log_that_is_cut_off_is_named(bundle, alliance, tmp_path):
    folder = copy(bundle, tmp_path / "b")
    path = folder / COORDINATOR
    path.write_bytes(path.read_bytes()[:-5])
    seal(folder, alliance.key)
    found = [one for one in audit(folder).findings if one.check == 3]
    last = alliance.store.size - 1
    assert [(one.entry, one.what) for one in found] == [(last, f"entry {last}: is cut off")]


@pytest.mark.parametrize(
    "change",
    [  # L6
        lambda note, _: note.replace(b"\n", b"\r\n"),
        lambda note, _: note.replace(b"small/coordinator\n", b"small/other\n", 1),
        lambda note, _: note.replace(b"\n12\n", b"\n012\n"),
        lambda note, _: note.replace(b"\n12\n", b"\n0\n"),
        lambda note, _: note.replace(b"\n\n", b"\nextra\n\n"),
        lambda note, _: note + b"x",
        lambda note, _: note[:-1],
        lambda note, _: b"",
        lambda note, alliance: sign_checkpoint(
            Checkpoint("small/coordinator", alliance.store.size, alliance.store.root),
            identity("stranger"),
        ),
    ],
)
def test_malformed_heads_are_found(bundle, alliance, tmp_path, change):
    folder = copy(bundle, tmp_path / "b")
    path = folder / "coordinator/head.note"
    bad = change(path.read_bytes(), alliance)
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    seal(folder, alliance.key)
    assert {(one.check, one.file) for one in audit(folder).findings} == {
        (4, "coordinator/head.note")
    }


def test_cosignatures_of_strangers_count_for_nothing(bundle, alliance, tmp_path):
    folder = copy(bundle, tmp_path / "b")
    note = (folder / "coordinator/head.note").read_bytes()
    for name in alliance.members:
        line = cosign(note, witness=f"small/member/{name}", key=identity("stranger"), time_s=1)
        note = add_cosignatures(note, [line])
    (folder / "coordinator/cosigned.note").write_bytes(note)
    seal(folder, alliance.key)
    (finding,) = [one for one in audit(folder).findings if one.check == 7]
    assert finding.what.startswith("0 members")


def test_receipts_are_read_strictly(bundle, alliance, tmp_path):
    folder = copy(bundle, tmp_path / "b")
    path = folder / "members/member-1/receipts.jsonl"
    receipt = json.loads(path.read_bytes().split(b"\n")[0])
    bad = [
        receipt | {"index": receipt["index"] + 1},
        receipt | {"proof": receipt["proof"][1:]},
        receipt | {"proof": ["zz"]},
        receipt | {"proof": [1]},
        receipt | {"index": "1"},
        receipt | {"more": 1},
        receipt | {"entry": "{}"},
        receipt | {"coordinator": "none"},
        [receipt],
    ]
    path.write_bytes(b"".join(canonical(one) + b"\n" for one in bad) + b"{}")
    seal(folder, alliance.key)
    found = [one for one in audit(folder).findings if one.check == 12]
    assert [one.entry for one in found[:-1]] == list(range(len(bad)))
    assert "is cut off" in found[-1].what


def test_a_sample_of_signatures_is_drawn_by_the_seed(bundle, tmp_path):
    with closing(Liar(tmp_path / "a", coordinator=forge_a_contribution).run()) as liar:
        lying = export(liar, tmp_path / "b")
    seen = [
        any(one.check == 9 for one in audit(lying, sample=4, seed=str(seed)).findings)
        for seed in range(8)
    ]
    assert True in seen
    assert False in seen
    again = audit(lying, sample=4, seed=str(seen.index(True)))
    assert any(one.check == 9 for one in again.findings)
    said = audit(bundle, sample=5)
    assert said.sound
    assert said.checked[9] == 5
    assert any("sample of 5" in one for one in said.unchecked)
    assert audit(bundle, sample=0).checked.get(9, 0) == 0


def test_without_a_fold_it_says_what_was_not_checked(bundle):
    said = audit(bundle, folds=lambda _: None)
    assert said.sound
    assert any("fold of recipe propensity is not installed" in one for one in said.unchecked)


def test_without_kept_rounds_it_says_what_was_not_checked(tmp_path):
    with closing(Liar(tmp_path / "a")) as alliance:
        alliance.kept = False
        said = audit(export(alliance.run(), tmp_path / "b"))
    assert said.sound
    assert any("its sum is not in the folder" in one for one in said.unchecked)
    assert any("2 of 2 released rounds" in one for one in said.unchecked)


def test_figures_are_compared_against_whoever_spends():
    real = (1_000_000, 2_000_000)
    assert check_profile(real, real) == ""
    assert check_profile((1_000_001, 1_999_999), real) == ""
    assert "epsilon(2) is 2" in check_profile((1_000_000, 1_999_000), real)
    assert "epsilon(1) is recorded as 1.1" in check_profile((1_100_000, 2_000_000), real)
    assert "1 figures" in check_profile((1,), real)


@pytest.mark.parametrize(
    ("privacy", "why"),
    [
        ({"noise_multiplier": 1e-9}, "give no figure|protect nobody"),
        ({"noise_multiplier": 1e-3, "rounds": 10**6, "max_attempts": 2 * 10**6}, "protect nobody"),
        ({"noise_multiplier": 0.5, "sampling_probability": 1.0, "rounds": 10**6,
          "max_attempts": 2 * 10**6, "delta": 0.009}, "protect nobody"),
    ],
)  # fmt: skip
def test_terms_that_nobody_can_account_for_end_nothing(tmp_path, privacy, why):
    """They need nobody's signature to stand in a log."""
    terms = small_terms(members=4, **privacy)

    def propose(entry):
        if isinstance(entry, Heads):
            document = json.loads(terms.canonical())
            return Proposal(at_ms=1, terms=document, hash=terms.hash)
        return entry

    with closing(Liar(tmp_path / "a", coordinator=propose).run()) as liar:
        said = audit(export(liar, tmp_path / "b"))
    assert said.sound
    assert any(re.search(why, one) for one in said.unchecked)


def test_findings_are_bounded_and_unchecked_sentences_said_once():
    findings = Findings()
    for index in range(MOST_FINDINGS + 7):
        findings.add(1, "f", "x", entry=index)
        findings.cannot("y")
    assert (len(findings.found), findings.more) == (MOST_FINDINGS, 7)
    assert findings.unchecked == ("y",)


def test_a_first_accountant_above_the_second_is_found(bundle, alliance, monkeypatch):
    figures = vars(figures_of(alliance.terms))
    monkeypatch.setitem(figures, "second", (10**9, 10**9, 10**9, 10**9, 1))
    found = audit(bundle).findings
    assert [one.check for one in found] == [11]
    assert "epsilon(5)" in found[0].what
    monkeypatch.setattr("privacy.ledger.audit.LEAST_COMPARED_MICRO", 10**9)
    said = audit(bundle)
    assert said.sound
    assert any("both hold" in one for one in said.unchecked)
