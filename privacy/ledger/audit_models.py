"""Published models and their passports, held against the coordinator's log: check (14)."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.numpy import load

from privacy.errors import EvidenceError
from privacy.ledger.audit_coordinator import CoordinatorAudit
from privacy.ledger.audit_log import Claim, Heads, Log
from privacy.ledger.bundle import Bundle, hash_file
from privacy.ledger.findings import Findings
from privacy.ledger.merkle import leaf_hash
from privacy.ledger.passport import LONGEST, open_passport
from privacy.secagg import model_hash

__all__ = ["check_models"]


def check_models(
    bundle: Bundle,
    coordinator: CoordinatorAudit | None,
    log: Log | None,
    heads: Heads,
    findings: Findings,
) -> None:
    """Checks every file under ``models``.

    Args:
        bundle: the folder.
        coordinator: what the coordinator's log says; None if it is not there.
        log: that log.
        heads: takes the heads in passports.
        findings: takes what does not hold.
    """
    for path in bundle.under("models/"):
        findings.count(14)
        try:
            if path.endswith(".safetensors"):
                _check_model(bundle, path, coordinator, findings)
            else:
                _check_passport(bundle, path, coordinator, log, heads)
        except EvidenceError as error:
            findings.add(14, path, str(error).removeprefix(f"{path}: "))
    if coordinator is None:
        return
    for study in coordinator.studies.values():
        if study.publications and not bundle.has(f"models/{study.terms.study}.safetensors"):
            findings.cannot(f"the published model of {study.label}: its file is not in the folder")
        elif study.publications and not bundle.has(f"models/{study.terms.study}.passport.json"):
            findings.cannot(f"the passport of {study.label}: there is none in the folder")


def _check_model(
    bundle: Bundle, path: str, coordinator: CoordinatorAudit | None, findings: Findings
) -> None:
    if coordinator is None:
        findings.cannot(f"whether {path} was published: the coordinator's log is not here")
        return
    sha256 = hash_file(bundle.folder / path).sha256
    named = [
        one
        for study in coordinator.studies.values()
        for one in study.publications
        if one.file == sha256
    ]
    if not named:
        raise EvidenceError("no publication in the coordinator's log names this file")
    try:
        parameters = load(bundle.read(path))["parameters"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise EvidenceError(f"is no readable model file ({error})") from error
    if parameters.dtype != "float32" or model_hash(parameters).hex() != named[-1].model:
        raise EvidenceError("its parameters are not those whose hash was published with it")


def _check_passport(
    bundle: Bundle,
    path: str,
    coordinator: CoordinatorAudit | None,
    log: Log | None,
    heads: Heads,
) -> None:
    model = path.removesuffix(".passport.json") + ".safetensors"
    sha256 = hash_file(bundle.folder / model).sha256 if bundle.has(model) else None
    passport = open_passport(
        bundle.read(path, most_bytes=LONGEST), model=sha256, key=log.key if log else None
    )
    head, proof = passport.head(), passport.publication
    heads.claim(Claim(head.origin, head.size, head.root, 5, path, None, "the passport's head"))
    if coordinator is None or log is None:
        return
    if log.leaf(proof.index) != leaf_hash(proof.entry.encode()):
        raise EvidenceError(f"entry {proof.index} of the coordinator's log is another")
    study = coordinator.studies.get(passport.terms_hash)
    attempts = (
        sum(index < proof.index for index, _ in study.attempts.values()) if study is not None else 0
    )
    if attempts != passport.epsilon.attempts:
        raise EvidenceError(
            f"it states {passport.epsilon.attempts} attempts, the log has {attempts} before it"
        )
