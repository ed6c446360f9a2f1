"""Results of runs: the truth of a study, the leases on its runs, what can be trusted of it."""
