"""Campaign of the whole alliance: kills, stops, partitions, losses and full disks in all phases.

Real processes over TLS. Members' data make every contribution a one-hot far above the noise, so a
release shows who is in it and how often; ledgers, and notes of what was handed to the link, show
the rest. The processes run the shipped code; the harness only writes down where each one is.
"""
