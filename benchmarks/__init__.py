"""Benchmarks and campaigns, run by hand from the repository root; not shipped."""
