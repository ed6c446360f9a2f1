"""Runs of several sizes: steps of a ladder, the law across them, its back-test."""
