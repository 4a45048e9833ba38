"""Campaign of the ledger: kills, faults at system calls, restored backups, races, mutations.

Real processes write real files; what is checked afterwards is the files, by opening them as a
process that restarts does, and by a second reading that shares no code with the store's own check.
"""
