"""The audit of a bundle: every check of `findings.CHECKS`, from bytes alone, without a network.

Logs are streamed: an entry is decoded once, and what stays of it is its hash and, of a
contribution, 16 bytes to hold against the other side's record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.errors import EvidenceError, TermsError
from privacy.identity import IdentityKey
from privacy.ledger.audit_coordinator import CoordinatorAudit
from privacy.ledger.audit_log import Heads, Log, read_log
from privacy.ledger.audit_member import MemberAudit
from privacy.ledger.audit_models import check_models
from privacy.ledger.audit_result import Audit, MemberView, StudyView
from privacy.ledger.audit_rounds import add_again, fold_again, kept_rounds
from privacy.ledger.audit_study import MICRO, Study, figures_of
from privacy.ledger.bundle import COORDINATOR, Bundle, hash_file, open_bundle
from privacy.ledger.findings import Findings
from privacy.ledger.folds import Fold, installed_fold
from privacy.terms import Terms

__all__ = ["audit_bundle"]

LEAST_COMPARED_MICRO: Final = 100_000
"""Below epsilon 0.1 the first accountant's grid may outweigh what the second one loses."""

Told = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and of how much."""


def audit_bundle(
    folder: Path,
    *,
    seed: str,
    draw: int = 3,
    sample: int | None = None,
    key: str | None = None,
    terms: Collection[str] = (),
    folds: Callable[[str], Fold | None] = installed_fold,
    told: Told = lambda what, done, of: None,
) -> Audit:
    """Audits a bundle; findings are in the result, and only what cannot be read raises.

    Args:
        folder: the bundle.
        seed: rounds and samples are drawn by it; choose it after the head was cosigned.
        draw: how many kept rounds are added again.
        sample: how many contributions' signatures are checked; all of them if None.
        key: the coordinator's ledger key, if it is known from elsewhere.
        terms: hashes of the terms that are known from elsewhere, if any are.
        folds: gives the fold of a recipe.
        told: is told how far the audit is.

    Raises:
        EvidenceError: if the folder is no bundle, or holds what cannot be read at all.
    """
    bundle = open_bundle(folder)
    run = _Run(bundle, seed=seed, sample=sample, key=key, folds=folds, told=told)
    run.files()
    run.logs()
    run.anchors(terms)
    check_models(bundle, run.coordinator, run.log, run.heads, run.findings)
    run.heads.settle(run.known)
    run.rounds(draw)
    studies = run.studies()
    return Audit(
        bundle=folder.name,
        manifest=hashlib.sha256(bundle.manifest).hexdigest(),
        signer=bundle.signer,
        findings=tuple(run.findings.found),
        more=run.findings.more,
        checked=dict(sorted(run.findings.counts.items())),
        unchecked=run.findings.unchecked,
        entries=sum(log.size for log in run.known),
        seed=seed,
        studies=studies,
        members=tuple(MemberView.of(audit, log) for audit, log in run.members),
    )


class _Run:
    """One audit on its way."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        seed: str,
        sample: int | None,
        key: str | None,
        folds: Callable[[str], Fold | None],
        told: Told,
    ) -> None:
        self.bundle = bundle
        self.findings = Findings()
        self.heads = Heads(self.findings)
        self.coordinator: CoordinatorAudit | None = None
        self.log: Log | None = None
        self.members: list[tuple[MemberAudit, Log]] = []
        self.kept = kept_rounds(bundle)
        self._seed = seed
        self._sample = sample
        self._key = key
        self._folds = folds
        self._told = told

    @property
    def known(self) -> list[Log]:
        """All logs that could be read."""
        own = [self.log] if self.log else []
        return own + [log for _, log in self.members]

    # 1

    def files(self) -> None:
        """Check (1): the folder against its manifest."""
        bundle, findings = self.bundle, self.findings
        total, done = sum(bundle.present.values()), 0

        def told(size: int) -> None:
            nonlocal done
            done += size
            self._told("hashing files", done, total)

        for path in sorted(bundle.listed.keys() | bundle.present.keys()):
            findings.count(1)
            if path not in bundle.present:
                findings.add(1, path, "is named by the manifest and missing")
            elif path not in bundle.listed:
                findings.add(1, path, "is not named by the manifest")
            elif bundle.present[path] != bundle.listed[path].size:
                what = f"{bundle.present[path]} bytes, the manifest says {bundle.listed[path].size}"
                findings.add(1, path, what)
            elif hash_file(bundle.folder / path, told) != bundle.listed[path]:
                findings.add(1, path, "is not the file that the manifest names")

    # 3 to 13

    def logs(self) -> None:
        """Reads every log, the coordinator's first: members' are held against it."""
        bundle, findings = self.bundle, self.findings
        size = sum(size for path, size in bundle.present.items() if path.endswith("entries.jsonl"))
        done = 0

        def told(read: int) -> None:
            nonlocal done
            done += read
            self._told("reading logs", done, size)

        if bundle.under(f"{COORDINATOR}/"):
            audit = CoordinatorAudit(
                findings, self.heads, kept=self.kept, sample=self._sample, seed=self._seed
            )
            self.log = read_log(bundle, COORDINATOR, COORDINATOR, findings, audit.apply, told)
            if self.log is not None:
                self.coordinator = audit
                self.heads.read_heads(bundle, self.log)
                audit.finish(self.log)
        else:
            findings.cannot("what the coordinator recorded: its log is not in the folder")
        for name in bundle.members:
            member = MemberAudit(name, findings, self.heads, self.coordinator)
            folder = f"members/{name}"
            log = read_log(bundle, folder, f"member/{name}", findings, member.apply, told)
            if log is None:
                continue
            self.heads.read_heads(bundle, log)
            self.members.append((member, log))
            member.finish(log)
            key = self.log.key if self.log else self._key
            member.read_receipts(bundle, self.log, IdentityKey(key) if key else None)
        self._absent_members()

    def _absent_members(self) -> None:
        here = set(self.bundle.members)
        for study in self.coordinator.studies.values() if self.coordinator else ():
            for name in study.keys.keys() - here:
                self.findings.cannot(f"the budget of {name}: its log is not in the folder")

    # 2, 6

    def anchors(self, terms: Collection[str]) -> None:
        """Checks (2) and (6): who vouches for the folder, and what is known from elsewhere."""
        signer = next((log for log in self.known if log.origin == self.bundle.signer), None)
        self.findings.count(2)
        if signer is None:
            what = f"is signed by {self.bundle.signer:.80}, whose log is not in the folder"
            self.findings.add(2, "manifest.note", what)
        else:
            try:
                self.bundle.expect_signed(signer.key)
            except EvidenceError as error:
                self.findings.add(2, "manifest.note", str(error))
        if self.log is not None and self._key is not None and self.log.key != self._key:
            what = f"is signed by key {self.log.key[:16]}, you know {self._key[:16]}"
            self.findings.add(4, "coordinator/head.note", what)
        if self.log is not None and self._key is None:
            self.findings.cannot(
                f"whether {self.log.key} is the coordinator's ledger key: compare it, or give --key"
            )
        found = dict(self._terms())
        for terms_hash, path in found.items():
            if terms and terms_hash not in terms:
                what = f"terms {terms_hash} are not among those you know"
                self.findings.add(6, path, what)
        for terms_hash in sorted(set(terms) - found.keys()):
            self.findings.cannot(f"terms {terms_hash[:80]}: no log in the folder has them")
        if not terms and found:
            self.findings.cannot(
                "whether the identity keys in the terms are their members': compare the terms' "
                f"hashes ({', '.join(one[:16] for one in found)}), or give --terms"
            )

    def _terms(self) -> list[tuple[str, str]]:
        ours = self.coordinator.studies if self.coordinator else {}
        pairs = [(one, audit.file) for audit, _ in self.members for one in audit.terms]
        return pairs + [(one, "coordinator/entries.jsonl") for one in ours]

    # 15, 16

    def rounds(self, draw: int) -> None:
        """Checks (15) and (16): rounds added again, releases folded again."""
        if self.coordinator is None:
            return
        studies = {study.label: study for study in self.coordinator.studies.values()}
        released = {
            (label, one.round, one.attempt): one
            for label, study in studies.items()
            for one in study.released
        }
        for place, folder in sorted(self.kept.items()):
            if place not in released:
                what = "is kept of a round that the log does not release"
                self.findings.add(15, f"{folder}/opening.json", what)
        drawn = sorted(
            (place for place in self.kept if place in released),
            key=lambda place: hashlib.sha256(f"{self._seed}/{place}".encode()).digest(),
        )[:draw]
        added: dict[str, dict[tuple[int, int], npt.NDArray[np.float64]]] = {}
        for done, place in enumerate(drawn):
            self._told("adding rounds again", done, len(drawn))
            label = place[0]
            folder = self.kept[place]
            total = add_again(self.bundle, folder, studies[label], released[place], self.findings)
            if total is not None:
                added.setdefault(label, {})[place[1:]] = total
        if len(drawn) < len(released):
            self.findings.cannot(
                f"whether the sums of {len(released) - len(drawn)} of {len(released)} released "
                f"rounds are those of their contributions: {len(self.kept)} are kept, "
                f"{len(drawn)} were drawn"
            )
        for label, study in studies.items():
            fold_again(
                self.bundle, study, self._folds(study.terms.recipe), added.get(label, {}),
                self.findings, lambda at, of: self._told("folding releases again", at, of),
            )  # fmt: skip

    # 11

    def studies(self) -> tuple[StudyView, ...]:
        """Check (11) by the second accountant, and what the reader is shown of studies."""
        found: dict[str, Study | Terms] = {}
        for audit, _ in self.members:
            found |= audit.terms
        if self.coordinator is not None:
            found |= self.coordinator.studies
        views = []
        for done, one in enumerate(found.values()):
            self._told("accounting again", done, len(found))
            study = one if isinstance(one, Study) else None
            terms = one.terms if isinstance(one, Study) else one
            try:
                figures = figures_of(terms)
                attempts = min(len(study.attempts), terms.privacy.max_attempts) if study else 0
                view = StudyView(
                    terms=terms,
                    members=tuple(sorted(study.keys)) if study else (),
                    releases=len(study.released) if study else 0,
                    attempts=attempts,
                    points=tuple(study.points[:: 1 + len(study.points) // 400]) if study else (),
                    spent=figures.profile(attempts),
                    whole=figures.whole,
                    second=figures.second,
                    publications=len(study.publications) if study else 0,
                )
            except (EvidenceError, TermsError) as error:
                self.findings.cannot(f"epsilon of {terms.label}: {error}")
                continue
            self.findings.count(11, 2 * len(view.whole))
            self._hold_accountants(view)
            views.append(view)
        return tuple(views)

    def _hold_accountants(self, view: StudyView) -> None:
        """The second accountant is looser than a tight first one, so it is never below it.

        Where epsilon is tiny the first one's grid is what it is made of; then it is the looser.
        """
        where = "coordinator/entries.jsonl" if self.coordinator else self.members[0][0].file
        for members, (ours, theirs) in enumerate(
            zip(view.whole, view.second, strict=True), start=1
        ):
            if theirs >= ours:
                continue
            what = (
                f"{view.terms.label}: epsilon({members}) is {ours / MICRO:g} by one accountant and "
                f"{theirs / MICRO:g} by the other"
            )
            if ours >= LEAST_COMPARED_MICRO:  # (11)
                self.findings.add(11, where, f"{what}, which is never below it")
            else:
                self.findings.cannot(f"{what}; both hold, so small figures are not compared")
