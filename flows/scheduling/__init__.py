"""Sweeps on a schedule: what one does when its time comes, and how it is served."""
