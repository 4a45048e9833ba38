"""Model families, one folder each. Imports nothing, so that a fold needs no torch."""
