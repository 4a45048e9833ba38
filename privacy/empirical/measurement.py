"""From secrets and releases to one result, in figures and in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from privacy.empirical.bounds import (
    fitted_gaussian,
    guessed,
    guessed_gaussian,
)
from privacy.empirical.canaries import CanarySecret, check_dimension
from privacy.empirical.faults import (
    FALSE_ALARM,
    Finding,
    little_noise,
    no_clipping,
    no_poisson_sampling,
    private_weights,
    repeated_noise,
)
from privacy.empirical.gaussian import gaussian_mu
from privacy.empirical.releases import Released
from privacy.empirical.response import response
from privacy.empirical.scores import log_likelihood_ratios, score
from privacy.errors import EvidenceError
from privacy.terms import Terms

__all__ = ["ERROR", "Measurement", "measure"]

ERROR: Final = 1e-3
"""Probability with which each lower bound may be above the truth: confidence 99.9 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What an auditor learned from one run.

    Args:
        claimed: epsilon(1) of these releases by the accountant, at ``delta``.
        assumption_free: lower bound on epsilon; supposes fair, secret coins and nothing else.
        gaussian: lower bound on epsilon under the Gaussian hypothesis.
        gaussian_estimate: the estimate that ``gaussian`` is below.
        gaussian_guessed: lower bound if the mechanism is Gaussian, whatever canaries do; None
            where consumers are sampled.
        response: how far a canary moved a release, in units of C.
        findings: of the five detectors.
    """

    claimed: float
    delta: float
    canaries: int
    included: int
    releases: int
    assumption_free: float
    gaussian: float
    gaussian_estimate: float
    gaussian_guessed: float | None
    response: float
    findings: tuple[Finding, ...]

    @property
    def bounds(self) -> dict[str, float]:
        """The lower bounds that were worked out, by name."""
        bounds = {"assumption_free": self.assumption_free, "gaussian": self.gaussian}
        if self.gaussian_guessed is not None:
            bounds["gaussian_guessed"] = self.gaussian_guessed
        return bounds

    @property
    def sound(self) -> bool:
        """Whether no bound is above the claim and no detector flagged anything."""
        within = all(bound <= self.claimed for bound in self.bounds.values())
        return within and not any(finding.flagged for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "claimed": self.claimed,
            "delta": self.delta,
            "confidence": 1 - ERROR,
            "canaries": self.canaries,
            "included": self.included,
            "releases": self.releases,
            "bounds": {name: round(bound, 6) for name, bound in self.bounds.items()},
            "gaussian_estimate": round(self.gaussian_estimate, 6),
            "response": round(self.response, 6),
            "false_alarm": FALSE_ALARM,
            "findings": [
                {
                    "fault": finding.fault,
                    "tested": finding.tested,
                    "flagged": finding.flagged,
                    "p_value": finding.p_value,
                    "power": round(finding.power, 6),
                    "measured": _number(finding.measured),
                    "expected": _number(finding.expected),
                    "sentence": finding.sentence,
                }
                for finding in self.findings
            ],
            "sound": self.sound,
        }

    def words(self) -> list[str]:
        """The result in plain words, one paragraph an item."""
        lines = []
        lines.append(
            f"{self.canaries} canaries were tossed for, {self.included} took part, "
            f"{self.releases} releases were measured. The ledger claims epsilon {self.claimed:.3f} "
            f"at delta {self.delta:g} for a consumer of one member."
        )
        lines.append(
            f"With {100 * (1 - ERROR):g} % confidence each, epsilon is at least "
            f"{self.assumption_free:.3f}, supposing nothing but fair and secret coins, and at "
            f"least {self.gaussian:.3f} under the Gaussian hypothesis (estimate "
            f"{self.gaussian_estimate:.3f})."
        )
        if self.gaussian_guessed is not None:
            lines.append(
                f"It is at least {self.gaussian_guessed:.3f} if the mechanism is a Gaussian one, "
                "whatever its canaries do."
            )
        for finding in self.findings:
            if not finding.tested:
                lines.append(f"{finding.fault}: not tested: {finding.sentence}.")
                continue
            lines.append(
                f"{finding.fault}: {'FLAGGED' if finding.flagged else 'nothing found'}. "
                f"{finding.sentence} (measured {finding.measured:.4g}, expected "
                f"{finding.expected:.4g}, p {finding.p_value:.2g}, power {finding.power:.3f})."
            )
        lines.append(
            f"An honest run is flagged with probability at most {FALSE_ALARM:g}. A low bound "
            "proves nothing: this finds faults, not a member that cheats. Whoever knows the "
            "canaries can treat them better than consumers; the budget rests on the ledger and on "
            "the members' own noise."
        )
        return lines


def measure(
    terms: Terms, secrets: Sequence[CanarySecret], releases: Sequence[Released], *, claimed: float
) -> Measurement:
    """Measures one run.

    Guarantees:
        Each bound is above the truth with probability at most ``ERROR``, under what its docstring
        supposes; the detectors flag an honest run with probability at most ``FALSE_ALARM``. What
        this returns reveals coins, so it is published after the last release only.

    Args:
        terms: of the study.
        secrets: the auditor's, one a member.
        releases: all or some of the study's, in order.
        claimed: epsilon(1) of these releases by the accountant, at the terms' delta.

    Raises:
        ConfigurationError: if there are more canaries than the dimension can tell apart.
        EvidenceError: if two secrets are of one member, or there are none, or no releases.
    """
    if not secrets or len({secret.member for secret in secrets}) != len(secrets):
        raise EvidenceError("one secret for each member with canaries is needed")
    if not releases:
        raise EvidenceError("there is no release to measure")
    count = sum(secret.count for secret in secrets)
    check_dimension(terms, count)
    scores = score(terms, secrets, releases)
    ratios, included = log_likelihood_ratios(scores)
    delta = terms.privacy.delta
    asked = {"delta": delta, "error": ERROR, "claimed_mu": gaussian_mu(claimed, delta)}
    bound, estimate = fitted_gaussian(scores, delta=delta, error=ERROR)
    measured = response(scores)
    sampled = terms.privacy.sampling_probability < 1
    return Measurement(
        claimed=claimed,
        delta=delta,
        canaries=count,
        included=int(included.sum()),
        releases=len(releases),
        assumption_free=guessed(ratios, included, **asked),
        gaussian=bound,
        gaussian_estimate=estimate,
        gaussian_guessed=None if sampled else guessed_gaussian(ratios, included, **asked),
        response=measured.value,
        findings=(
            little_noise(terms, scores, releases),
            repeated_noise(terms, scores, measured, releases),
            no_clipping(scores, measured),
            no_poisson_sampling(scores, measured),
            private_weights(measured),
        ),
    )


def _number(value: float) -> float | None:
    """NaN is no JSON."""
    return None if value != value else round(value, 6)
