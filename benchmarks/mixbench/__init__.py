"""MixBench: every law and search on tables of real runs and on worlds whose truth is known."""
