"""Baselines: published equations that are there for comparisons; another law replaces each."""
