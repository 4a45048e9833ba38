"""The empirical audit: what one run shows of epsilon, and of faults in how noise was added."""

from privacy.empirical.canaries import CanaryEnrolment, CanarySecret, enrol_canaries, open_enrolment
from privacy.empirical.faults import Finding
from privacy.empirical.measurement import Measurement, measure
from privacy.empirical.releases import Released, open_releases, release_line, release_name

__all__ = [
    "CanaryEnrolment",
    "CanarySecret",
    "Finding",
    "Measurement",
    "Released",
    "enrol_canaries",
    "measure",
    "open_enrolment",
    "open_releases",
    "release_line",
    "release_name",
]
