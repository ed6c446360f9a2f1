"""Thin steps around the rooms below: data, training, fits, the store, the tracker, the report."""
