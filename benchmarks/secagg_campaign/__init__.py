"""Campaign of secure aggregation: dropouts, one-hot sums, attacks, and controls that must break.

Everything runs the shipped members and the shipped coordinator in memory. Where a coordinator or a
member has to be bad, a harness plays it against the shipped code; weakened members live in
`controls` and nowhere else.
"""
