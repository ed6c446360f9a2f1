"""Cuvée: finds the data mixture for a large language-model training run.

The rooms of the house are its sub-packages; nothing is imported until it is used, so that threads
and environment variables can be set first.
"""
