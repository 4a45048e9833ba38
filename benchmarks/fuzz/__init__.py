"""Fuzzing of every parser of ours; see `benchmarks.fuzz.__main__`."""
