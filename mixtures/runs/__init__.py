"""Runs: what is trained, what came of it, and how both are written down."""
