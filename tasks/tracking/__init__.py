"""The record for people, in MLflow: its fields, its faults, its pages."""
