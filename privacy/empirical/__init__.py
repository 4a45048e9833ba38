"""The empirical audit: what one run shows of epsilon, and of faults in how noise was added."""
