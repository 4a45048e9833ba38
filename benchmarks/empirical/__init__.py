"""The empirical audit at full size, and the runs that its tests plant faults in."""
