"""The sections of the report, as plain values."""
