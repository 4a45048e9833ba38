"""Evidence: an append-only Merkle log of canonical entries, its signed heads, and their auditor."""
